"""``ultrarefiner experiment``: a recipe and real data in, a result with provenance out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, progress
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.experiments.network_masks import NetworkMaskExperiment, run_network_masks
from ultrarefiner.experiments.prompt_kinds import run_prompt_kinds
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks

_STUDIES: dict[str, tuple[type, Callable[..., dict[str, Any]]]] = {
    "network-masks": (NetworkMaskExperiment, run_network_masks),
    "prompt-kinds": (RoughMaskExperiment, run_prompt_kinds),
    "rough-masks": (RoughMaskExperiment, run_rough_masks),
}


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Run a recipe and store its result with provenance.")
    parser.add_argument("recipe", type=Path, help="YAML file, see recipes/")
    parser.add_argument("--data", type=Path, required=True, help="folder of BUS-BRA")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return parser


def run(args: Namespace) -> int:
    """Run it, and print a line per variant."""
    study, experiment = _read_recipe(args.recipe)
    result = study(
        experiment,
        args.data,
        command=args.command_line,
        device=args.device,
        track=progress("images"),
    )
    write_json(args.out, result)
    print(f"coarse DSC {result['coarse']['dsc']['mean']:.4f}")
    for name, variant in result["variants"].items():
        gain, harmed = variant["paired"]["differences"]["dsc"], variant["paired"]["harmed"]
        print(
            f"{name:28s} DSC {variant['dsc']['mean']:.4f}  gain {gain['mean']:+.4f} "
            f"[{gain['low']:+.4f}, {gain['high']:+.4f}]  harmed {100 * harmed['share']:.1f} %"
        )
    return DONE


def _read_recipe(path: Path) -> tuple[Callable[..., dict[str, Any]], Any]:
    """Return the study and its settings."""
    expected = "a recipe in YAML, see recipes/"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as cause:
        found = getattr(cause, "strerror", None) or _one_line(cause)
        raise InputError(f"cannot read {path}", expected=expected, found=found) from cause
    settings = dict(content) if isinstance(content, dict) else {}
    name = settings.pop("study", None)
    if name not in _STUDIES:
        raise InputError(
            f"cannot use {path}",
            expected="a recipe with 'study' as one of " + ", ".join(_STUDIES),
            found=repr(name),
        )
    kind, study = _STUDIES[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--experiment", type=kind)
    try:
        parsed = parser.parse_object({"experiment": settings})
    except (ArgumentError, TypeError, ValueError) as cause:
        raise InputError(f"cannot use {path}", expected=expected, found=_one_line(cause)) from cause
    return study, parser.instantiate(parsed).experiment


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())

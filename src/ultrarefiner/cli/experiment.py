"""``ultrarefiner experiment``: a recipe and real data in, a result with provenance out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, progress
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.experiments.ablation import AblationExperiment, run_ablation
from ultrarefiner.experiments.network_masks import NetworkMaskExperiment, run_network_masks
from ultrarefiner.experiments.partial import partial_path
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks
from ultrarefiner.experiments.tables import markdown


class _Study(NamedTuple):
    """A study: its settings and what runs it."""

    settings: type
    run: Callable[..., dict[str, Any]]


_STUDIES = {
    "ablation": _Study(AblationExperiment, run_ablation),
    "network-masks": _Study(NetworkMaskExperiment, run_network_masks),
    "rough-masks": _Study(RoughMaskExperiment, run_rough_masks),
}


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Run a recipe and store its result with provenance, or print a stored result. "
        "A run that was interrupted goes on where it was if it is started again."
    )
    parser.add_argument(
        "recipe", type=Path, help="YAML file, see recipes/; or a stored result, to print its tables"
    )
    parser.add_argument("--data", type=Path, default=None, help="folder of BUS-BRA")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return parser


def run(args: Namespace) -> int:
    """Run it and store the result; print its tables in Markdown."""
    if args.recipe.suffix == ".json":
        print(_tables(args.recipe))
        return DONE
    for name in ("data", "out"):
        if getattr(args, name) is None:
            raise InputError(f"cannot run {args.recipe}", expected=f"--{name}", found="none")
    study, experiment = _read_recipe(args.recipe)
    partial = partial_path(args.out)
    result = study.run(
        experiment,
        args.data,
        command=args.command_line,
        device=args.device,
        track=progress("images"),
        partial=partial,
    )
    write_json(args.out, result)
    partial.unlink(missing_ok=True)
    print(markdown(result))
    return DONE


def _tables(path: Path) -> str:
    """Return the tables of a stored result."""
    try:
        return markdown(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        found = getattr(cause, "strerror", None) or f"{type(cause).__name__}: {_one_line(cause)}"
        raise InputError(
            f"cannot print {path}", expected="the result of an experiment", found=found
        ) from cause


def _read_recipe(path: Path) -> tuple[_Study, Any]:
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
    study = _STUDIES[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--experiment", type=study.settings)
    try:
        parsed = parser.parse_object({"experiment": _upon_base(settings)})
        experiment = parser.instantiate(parsed).experiment
    except (ArgumentError, TypeError, ValueError) as cause:
        raise InputError(f"cannot use {path}", expected=expected, found=_one_line(cause)) from cause
    return study, experiment


def _upon_base(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe in which the variants of all groups say everything that their base says."""
    groups, base = settings.get("groups"), settings.get("base") or {}
    if not (isinstance(groups, dict) and all(isinstance(part, dict) for part in groups.values())):
        return settings
    complete = {
        group: {name: _merged(base, changes) for name, changes in variants.items()}
        for group, variants in groups.items()
    }
    return settings | {"groups": complete}


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {key: base[key] for key in base} | {
        key: _merged(base.get(key), value) for key, value in changes.items()
    }


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())

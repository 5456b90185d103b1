"""The command line: parse, call one function, format the error."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from rich.console import Console
from rich.progress import track

from ultrarefiner._version import __version__
from ultrarefiner.data.phantom import write_phantoms
from ultrarefiner.data.writers import write_json
from ultrarefiner.doctor import examine
from ultrarefiner.errors import InputError, OutputError, UltraRefinerError
from ultrarefiner.experiments.evaluation import evaluate_folder
from ultrarefiner.experiments.prompt_kinds import run_prompt_kinds
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.folder import FolderOptions, refine_folder
from ultrarefiner.refine.gates import GATES
from ultrarefiner.refine.predictor import Refiner, RefinerConfig
from ultrarefiner.report.run import write_run_report

DONE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
_SHOWN_PROBLEMS = 20

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    _let_any_name_be_printed()
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    parsed = parser.parse_args(argv)
    try:
        args = parser.instantiate(parsed)
        chosen = args[args.command]
        chosen.command_line = shlex.join(["ultrarefiner", *argv])
        return _COMMANDS[args.command](chosen)
    except UltraRefinerError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, OutputError):
            print("what was written before is kept", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; what was done so far is kept", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(
        prog="ultrarefiner",
        description="Refine coarse ultrasound segmentations. Research software, not a medical "
        "device.",
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    commands.add_subcommand("refine", _refine_parser(), help="refine a folder of coarse masks")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="score masks against the truth")
    commands.add_subcommand("report", _report_parser(), help="write the report of a run")
    commands.add_subcommand("experiment", _experiment_parser(), help="run a recipe on real data")
    data = ArgumentParser(description="Make data.")
    commands.add_subcommand("data", data, help="make data")
    commands.add_subcommand("list", _list_parser(), help="list what can be chosen by name")
    commands.add_subcommand("doctor", ArgumentParser(), help="say what is installed and missing")
    kinds = data.add_subcommands(dest="kind", required=True)
    kinds.add_subcommand("phantom", _phantom_parser(), help="draw synthetic ultrasound images")
    return parser


def _refine_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Refine every image that has a coarse mask.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument(
        "--coarse", type=Path, required=True, help="folder of coarse masks, matched by file stem"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for masks, results.csv and report.html"
    )
    parser.add_argument(
        "--foundation", type=str, default="lite-medsam", help="promptable model, see 'list'"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--options", type=FolderOptions, default=FolderOptions())
    parser.add_argument("--refiner", type=RefinerConfig, default=RefinerConfig())
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Score masks, and a baseline beside them.")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with image and mask")
    parser.add_argument("--preds", type=Path, required=True, help="folder of masks, or of a run")
    parser.add_argument("--baseline", type=Path | None, default=None, help="masks to compare with")
    parser.add_argument("--out", type=Path, required=True, help="eval.json to write")
    return parser


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Write the report of a run as one HTML file.")
    parser.add_argument("run", type=Path, help="folder written by 'refine'")
    parser.add_argument("--evaluation", type=Path | None, default=None, help="eval.json of the run")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    return parser


def _experiment_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Run a recipe and store its result with provenance.")
    parser.add_argument("recipe", type=Path, help="YAML file, see recipes/")
    parser.add_argument("--data", type=Path, required=True, help="folder of BUS-BRA")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return parser


def _phantom_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Draw synthetic ultrasound images with rough masks.")
    parser.add_argument("--num", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="series to draw from")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


def _list_parser() -> ArgumentParser:
    parser = ArgumentParser(description="List what can be chosen by name.")
    parser.add_argument("what", choices=sorted(_LISTS), help="what to list")
    return parser


def _refine(args: Namespace) -> int:
    result = refine_folder(
        args.images,
        args.coarse,
        args.out,
        Refiner(args.foundation, args.refiner, device=args.device),
        options=args.options,
        command=args.command_line,
        track=_progress("refining"),
    )
    write_run_report(args.out, args.out / "report.html")
    kept = result.num_refined - result.num_accepted
    print(
        f"{_counted(result.num_accepted, 'mask')} refined, {kept} kept as given; "
        f"see {args.out / 'report.html'}"
    )
    _print_problems("note", result.notes)
    return _fail_if_any(result.failures)


def _evaluate(args: Namespace) -> int:
    result = evaluate_folder(args.manifest, args.preds, args.out, baseline=args.baseline)
    content = result.content
    counts = content["counts"]
    _print_problems("note", result.notes)
    code = _fail_if_any(result.failures)
    print(
        f"{_counted(content['num_images'], 'image')}, {counts['missed']} missed, "
        f"{counts['false_positive']} false positive; see {args.out}"
    )
    print(_headline(content))
    return code


def _headline(content: Mapping[str, Any]) -> str:
    dsc = content["summary"]["dsc"]
    if not content["paired"]:
        return f"DSC {dsc['mean']:.3f} [{dsc['low']:.3f}, {dsc['high']:.3f}]"
    coarse, gain = content["baseline"]["dsc"], content["paired"]["differences"]["dsc"]
    return (
        f"coarse DSC {coarse['mean']:.3f} -> refined DSC {dsc['mean']:.3f} "
        f"({gain['mean']:+.3f} [{gain['low']:.3f}, {gain['high']:.3f}])"
    )


def _report(args: Namespace) -> int:
    write_run_report(args.run, args.out, evaluation=args.evaluation)
    print(f"see {args.out}")
    return DONE


def _experiment(args: Namespace) -> int:
    study, experiment = _read_recipe(args.recipe)
    result = _STUDIES[study](
        experiment,
        args.data,
        command=args.command_line,
        device=args.device,
        track=_progress("images"),
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


def _data(args: Namespace) -> int:
    manifest = write_phantoms(args.phantom.num, args.phantom.seed, args.phantom.out)
    print(f"{_counted(args.phantom.num, 'phantom')}; see {manifest}")
    return DONE


def _list(args: Namespace) -> int:
    print("\n".join(_LISTS[args.what]))
    return DONE


def _doctor(args: Namespace) -> int:
    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name:24s} {finding.detail}")
    return DONE if all(finding.ok or not finding.needed for finding in findings) else SOME_FAILED


_LISTS: dict[str, Iterable[str]] = {"foundation": FOUNDATION_MODELS, "gates": GATES}
_STUDIES = {"rough-masks": run_rough_masks, "prompt-kinds": run_prompt_kinds}
_COMMANDS = {
    "refine": _refine,
    "evaluate": _evaluate,
    "report": _report,
    "experiment": _experiment,
    "data": _data,
    "list": _list,
    "doctor": _doctor,
}


def _read_recipe(path: Path) -> tuple[str, RoughMaskExperiment]:
    """Return the name of the study and its settings."""
    expected = "a recipe in YAML, see recipes/"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as cause:
        found = getattr(cause, "strerror", None) or _one_line(cause)
        raise InputError(f"cannot read {path}", expected=expected, found=found) from cause
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--study", choices=sorted(_STUDIES), required=True)
    parser.add_argument("--experiment", type=RoughMaskExperiment)
    try:
        settings = dict(content)
        study = settings.pop("study", None)
        parsed = parser.parse_object({"study": study, "experiment": settings})
    except (ArgumentError, TypeError, ValueError) as cause:
        raise InputError(f"cannot use {path}", expected=expected, found=_one_line(cause)) from cause
    recipe = parser.instantiate(parsed)
    return recipe.study, recipe.experiment


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())


def _progress(what: str) -> Callable[[Iterable[T], int], Iterable[T]]:
    """Return a progress bar on stderr; silent where that is no terminal."""
    console = Console(stderr=True)

    def wrap(items: Iterable[T], total: int) -> Iterable[T]:
        return track(items, what, total=total, console=console, disable=not console.is_terminal)

    return wrap


def _let_any_name_be_printed() -> None:
    """Escape what the terminal's encoding lacks: file names may hold any bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_problems(kind: str, problems: Sequence[tuple[str, str]]) -> None:
    for name, message in problems[:_SHOWN_PROBLEMS]:
        print(f"{kind}: {name}: {message}", file=sys.stderr)
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"{kind}: and {len(problems) - _SHOWN_PROBLEMS} more", file=sys.stderr)


def _counted(num: int, noun: str) -> str:
    return f"{num} {noun}" + ("" if num == 1 else "s")


def _fail_if_any(failures: Sequence[tuple[str, str]]) -> int:
    _print_problems("skipped", failures)
    if failures:
        print(f"{_counted(len(failures), 'file')} skipped", file=sys.stderr)
    return SOME_FAILED if failures else DONE

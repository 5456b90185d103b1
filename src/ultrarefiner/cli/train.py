"""``ultrarefiner train``: a manifest and a recipe in, a checkpoint with its story out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, TextIO

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, LEAK, SOME_FAILED, UNUSABLE, print_problems, progress
from ultrarefiner.errors import ConfigError, LeakError, UltraRefinerError
from ultrarefiner.report.run import write_report
from ultrarefiner.training.engine.fitting import Hardware
from ultrarefiner.training.engine.hardware import is_first_process
from ultrarefiner.training.fan_out import Job, Outcome, folds_of, plan_jobs, train_in_turn
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.ray_workers import train_over_ray
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.run import PHASES


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        usage="ultrarefiner train RECIPE --manifest FILE --out RUN [--fold K] [--a.b VALUE ...]",
        description="Train on the images of a manifest; RECIPE is a YAML file, see recipes/. "
        "Phase 1: the coarse network. Phase 2: the foundation model learns to correct masks. "
        "Phase 3: both together.",
    )
    parser.add_argument("--recipe", action="config", help="YAML file (or first argument)")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with image and mask")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--phase",
        type=Literal["1", "2", "3", "all"],
        default="all",
        help="one phase, whose forerunners are in the folder; or all",
    )
    parser.add_argument(
        "--fold",
        type=str | None,
        default=None,
        help="fold to hold out; train on the others. all: each of them in turn",
    )
    parser.add_argument(
        "--seeds",
        type=str | None,
        default=None,
        help="such as 0,1,2: train from each, into OUT/seed-S; instead of the recipe's seed",
    )
    parser.add_argument(
        "--drop-leaks",
        action="store_true",
        help="do not train on patients who share a scene with the fold, instead of refusing",
    )
    parser.add_argument(
        "--pseudo",
        type=Path | None,
        default=None,
        help="folder of 'predict': its masks stand in for true ones that are missing",
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what is finished, go on with what is not"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, estimate the cost, stop"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_argument("--devices", type=int, default=1, help="processes on each machine (DDP)")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument(
        "--parallel",
        type=Literal["none", "ray"],
        default="none",
        help="ray: folds and seeds at the same time, on this machine or on the cluster of "
        "RAY_ADDRESS, whose machines share the file system; needs the extra 'ray'",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="with --parallel, how many at the same time (default: one on each GPU, or core)",
    )
    parser.add_class_arguments(TrainingRecipe)
    return parser


def run(args: Namespace) -> int:
    """Train, and say what came of it."""
    recipe = TrainingRecipe(**{item.name: args[item.name] for item in fields(TrainingRecipe)})
    options = RunOptions(
        hardware=Hardware(device=args.device, num_devices=args.devices, num_nodes=args.nodes),
        resume=args.resume,
        command=args.command_line,
        say=_say,
        warn=lambda line: _say(f"warning: {line}", file=sys.stderr),
        track=progress("training"),
        finished=_report,
    )
    job = Job(
        recipe=recipe,
        manifest=args.manifest,
        out=args.out,
        fold=None if args.fold == "all" else args.fold,
        phases=PHASES if args.phase == "all" else (int(args.phase),),
        drop_leaks=args.drop_leaks,
        pseudo=args.pseudo,
        dry_run=args.dry_run,
    )
    folds = folds_of(args.manifest) if args.fold == "all" else ()
    jobs = plan_jobs(job, folds=folds, seeds=_seeds(args.seeds))
    if args.parallel == "ray" and not args.dry_run:
        return conclude(train_over_ray(jobs, options, num_workers=args.workers))
    if len(jobs) > 1:
        return conclude(train_in_turn(jobs, options))
    return conclude([Outcome(job=jobs[0], trained=jobs[0].train(options))])


def _seeds(words: str | None) -> tuple[int, ...]:
    """Return the seeds of ``0,1,2``.

    Raises:
        ConfigError: they are no whole numbers.
    """
    try:
        return tuple(int(word) for word in words.split(",")) if words is not None else ()
    except ValueError as cause:
        raise ConfigError("seeds", expected="numbers such as 0,1,2", found=str(words)) from cause


def _report(folder: Path) -> None:
    """Draw what the phases of a run have come to so far."""
    write_report([folder], folder / "report.html")


def _say(line: str, file: TextIO | None = None) -> None:
    """Print a line, once if several processes train together."""
    if is_first_process():
        print(line, file=file, flush=True)


def conclude(outcomes: Sequence[Outcome]) -> int:
    """Say what came of jobs, and return the exit code of the gravest error.

    Args:
        outcomes: of all jobs.
    """
    for outcome in outcomes:
        if outcome.trained is not None and is_first_process():
            print_problems("note", outcome.trained.notes)
            for checkpoint in outcome.trained.checkpoints:
                print(f"see {checkpoint}")
    errors = [(outcome.job.name, outcome.error) for outcome in outcomes if outcome.error]
    for name, error in errors:
        print(f"error: {name}: {error}", file=sys.stderr)
    return max([_code(error) for _, error in errors], default=DONE)


def _code(error: UltraRefinerError) -> int:
    """Return the exit code of a job that failed: a worker that died says nothing of its input."""
    if type(error) is UltraRefinerError:
        return SOME_FAILED
    return LEAK if isinstance(error, LeakError) else UNUSABLE

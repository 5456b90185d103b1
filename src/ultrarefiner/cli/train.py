"""``ultrarefiner train``: a manifest and a recipe in, a checkpoint with its story out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, print_problems, progress
from ultrarefiner.training.phase1 import train_coarse
from ultrarefiner.training.recipe import TrainingRecipe


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        usage="ultrarefiner train RECIPE --manifest FILE --out RUN [--fold K] [--a.b VALUE ...]",
        description="Train on the images of a manifest; RECIPE is a YAML file, see recipes/.",
    )
    parser.add_argument("--recipe", action="config", help="YAML file (or first argument)")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with image and mask")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--phase", type=Literal["1"], default="1", help="1: the coarse network")
    parser.add_argument(
        "--fold", type=str | None, default=None, help="fold to hold out; train on the others"
    )
    parser.add_argument(
        "--drop-leaks",
        action="store_true",
        help="do not train on patients who share a scene with the fold, instead of refusing",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, estimate the cost, stop"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_class_arguments(TrainingRecipe)
    return parser


def run(args: Namespace) -> int:
    """Train, and say what came of it."""
    recipe = TrainingRecipe(**{item.name: args[item.name] for item in fields(TrainingRecipe)})
    result = train_coarse(
        recipe,
        args.manifest,
        args.out,
        fold=args.fold,
        drop_leaks=args.drop_leaks,
        resume=args.resume,
        dry_run=args.dry_run,
        device=args.device,
        command=args.command_line,
        say=print,
        track=progress("comparing images"),
    )
    print_problems("note", result.notes)
    if result.checkpoint:
        print(f"DSC {result.val_dsc:.3f} on the inner validation; see {result.checkpoint}")
    return DONE

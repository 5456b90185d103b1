"""``ultrarefiner refine``: coarse masks from anywhere in, better ones out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.calibration.storing import CALIBRATED
from ultrarefiner.cli.output import counted, fail_if_any, print_problems, progress
from ultrarefiner.coarse import CoarseCheckpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.pairing import pair_by_stem
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.refine.checkpoint import RefinerCheckpoint, load_refiner
from ultrarefiner.refine.folder import refine_folder
from ultrarefiner.refine.job import FolderOptions
from ultrarefiner.refine.predictor import DEFAULT_FOUNDATION, Refiner
from ultrarefiner.report.run import write_report
from ultrarefiner.training.lineage import card_sha256, seen_in_training

DEFAULT_CHECKPOINT = "busbra-lite"
UNTRAINED = "none"


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Refine every image that has a coarse mask.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument(
        "--coarse", type=Path, required=True, help="folder of coarse masks, matched by file stem"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for masks, results.csv and report.html"
    )
    parser.add_argument(
        "--label", type=int | None, default=None, help="value of the lesion in label maps"
    )
    parser.add_argument(
        "--checkpoint",
        type=str | None,
        default=None,
        help="a trained refiner: a name, a file or a folder of 'train'; or none, which is the "
        f"published model; default: {DEFAULT_CHECKPOINT}, or none where settings are given",
    )
    add_refiner_arguments(parser)
    return parser


def add_refiner_arguments(parser: ArgumentParser) -> None:
    """Add what every command that refines can be told."""
    parser.add_argument(
        "--foundation",
        type=str | None,
        default=None,
        help=f"promptable model, see 'list'; default: {DEFAULT_FOUNDATION} or the checkpoint's",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--options", type=FolderOptions, default=FolderOptions())
    parser.add_argument(
        "--preset", choices=list(PRESETS), default=None, help="settings instead of --refiner"
    )
    parser.add_argument("--refiner", type=RefinerConfig, default=RefinerConfig())
    add_flips(parser)
    parser.add_argument(
        "--no-rule",
        action="store_true",
        help="leave out the acceptance rule of a calibrated checkpoint",
    )


def add_flips(parser: ArgumentParser) -> None:
    """Add the switch for looking twice."""
    parser.add_argument(
        "--flips",
        action="store_true",
        help="average with what is found in the mirror image: better, at twice the time",
    )


def chosen_settings(args: Namespace) -> RefinerConfig:
    """Return the preset, or the single settings.

    Raises:
        ConfigError: both were given.
    """
    settings: RefinerConfig = args.refiner if args.preset is None else _preset(args)
    return replace(settings, flips=True) if args.flips else settings


def _preset(args: Namespace) -> RefinerConfig:
    if args.refiner != RefinerConfig():
        raise ConfigError(
            "settings of the refiner",
            expected="--preset or --refiner...",
            found="both",
            fix="Leave one of them out.",
        )
    return PRESETS[args.preset]


def trained_refiner(checkpoint: RefinerCheckpoint, args: Namespace) -> Refiner:
    """Return the refiner of a checkpoint, with its acceptance rule unless that is left out.

    Raises:
        ConfigError: other settings, or another foundation model, are asked for than it was trained
            or calibrated with.
    """
    checkpoint.check_foundation(args.foundation)
    if args.no_rule and checkpoint.rule is not None:
        print_problems("note", [(checkpoint.origin, "its acceptance rule is left out, as asked")])
        checkpoint = replace(checkpoint, rule=None)
    return checkpoint.refiner(chosen_settings(args), device=args.device)


def calibrated_beside(names: Iterable[str]) -> list[tuple[str, str]]:
    """Remark on folders that are used without the calibrated checkpoint that lies in them."""
    files = [Path(name) / CALIBRATED for name in names]
    return [
        (str(file.parent), f"used without an acceptance rule; --checkpoint {file} has one")
        for file in files
        if file.is_file()
    ]


def untrained_refiner(args: Namespace) -> Refiner:
    """Return the refiner around the published foundation model."""
    return Refiner(args.foundation or DEFAULT_FOUNDATION, chosen_settings(args), device=args.device)


def seen_before(
    records: Sequence[Record], checkpoints: Iterable[CoarseCheckpoint | RefinerCheckpoint]
) -> list[tuple[str, str]]:
    """Remark on images that a checkpoint was trained or chosen on: scores on them prove nothing."""
    notes: list[tuple[str, str]] = []
    readable = [record for record in records if os.access(record.image, os.R_OK)]
    for checkpoint in checkpoints:
        calibrated = checkpoint.card.get("calibration", {})
        for card, what, remark in (
            (checkpoint.card, "seen in training", "a score on them says nothing"),
            (calibrated, "calibrated on", "a score on them is too good"),
        ):
            seen = seen_in_training(readable, card)
            if seen:
                bonds = Counter(item.bond for item in seen)
                by_bond = ", ".join(f"{bond}: {num}" for bond, num in bonds.items())
                found = f"{len(seen)} of the {len(records)} images were {what} ({by_bond})"
                notes.append((checkpoint.origin, f"{found}: {remark}"))
    return notes


def _refiner(args: Namespace) -> tuple[Refiner, RefinerCheckpoint | None]:
    """Return the refiner, and where it comes from; nothing for the published model."""
    is_told = args.foundation or args.preset or args.refiner != RefinerConfig()
    name = args.checkpoint or (UNTRAINED if is_told else DEFAULT_CHECKPOINT)
    if name == UNTRAINED:
        return untrained_refiner(args), None
    checkpoint = load_refiner(name)
    return trained_refiner(checkpoint, args), checkpoint


def _about(args: Namespace, checkpoint: RefinerCheckpoint | None) -> dict[str, Any]:
    """Return what ``run.json`` is to say of the run beside what was asked of the model."""
    about: dict[str, Any] = {"command": args.command_line}
    if checkpoint is None:
        return about
    name, datasets = checkpoint.origin, ", ".join(checkpoint.card["datasets"])
    remark = f"trained on {datasets}; --checkpoint {UNTRAINED} asks the published model"
    return about | {
        "checkpoints": [name],
        "card_sha256": [card_sha256(checkpoint.card)],
        "notes": calibrated_beside([name]) if args.checkpoint else [(f"refined by {name}", remark)],
    }


def run(args: Namespace) -> int:
    """Refine, report, and say how it went.

    Raises:
        ConfigError: a second opinion is asked for, which only a network's masks can have.
    """
    if args.refiner.second_opinion:
        raise ConfigError(
            "refiner second_opinion",
            expected="masks of a network, which 'ultrarefiner predict' makes",
            found="given masks, which are refined as they are",
            fix="Leave it out.",
        )
    refiner, checkpoint = _refiner(args)
    result = refine_folder(
        args.images,
        args.coarse,
        args.out,
        refiner,
        label=args.label,
        options=args.options,
        about=_about(args, checkpoint),
        track=progress("refining"),
    )
    write_report([args.out], args.out / "report.html")
    kept = result.num_refined - result.num_accepted
    print(
        f"{counted(result.num_accepted, 'mask')} refined, {kept} kept as given; "
        f"see {args.out / 'report.html'}"
    )
    pairs = pair_by_stem(args.images, args.coarse).pairs
    images = [Record(image=pair.image) for pair in pairs]
    seen = seen_before(images, [checkpoint]) if checkpoint else []
    print_problems("note", [*seen, *result.notes])
    return fail_if_any(result.failures)

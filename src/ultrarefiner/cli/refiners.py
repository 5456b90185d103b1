"""What every command that refines can be told, and whom it asks then."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.calibration.storing import CALIBRATED
from ultrarefiner.cli.output import print_problems
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.refine.checkpoint import RefinerCheckpoint
from ultrarefiner.refine.job import FolderOptions
from ultrarefiner.refine.predictor import DEFAULT_FOUNDATION, Refiner
from ultrarefiner.training.lineage import seen_in_training

DEFAULT_CHECKPOINT = "busbra-lite"


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


def refuse_opinion(settings: RefinerConfig) -> None:
    """Refuse a second opinion where masks are given.

    Raises:
        ConfigError: one is asked for.
    """
    if settings.second_opinion:
        raise ConfigError(
            "refiner second_opinion",
            expected="masks of a network, which 'ultrarefiner predict' makes",
            found="given masks, which are refined as they are",
            fix="Leave it out.",
        )


def seen_before(
    records: Sequence[Record], cards: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[tuple[str, str]]:
    """Remark on images that a checkpoint was trained or chosen on: scores on them prove nothing.

    Args:
        records: what is to be segmented.
        cards: name and card of each checkpoint.
    """
    notes: list[tuple[str, str]] = []
    readable = [record for record in records if os.access(record.image, os.R_OK)]
    for name, own in cards:
        for card, what, remark in (
            (own, "seen in training", "a score on them says nothing"),
            (own.get("calibration", {}), "calibrated on", "a score on them is too good"),
        ):
            seen = seen_in_training(readable, card)
            if seen:
                bonds = Counter(item.bond for item in seen)
                by_bond = ", ".join(f"{bond}: {num}" for bond, num in bonds.items())
                found = f"{len(seen)} of the {len(records)} images were {what} ({by_bond})"
                notes.append((name, f"{found}: {remark}"))
    return notes

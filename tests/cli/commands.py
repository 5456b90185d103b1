"""Calling the command line and reading what it wrote."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.cli import main

# One box instead of several: the same code in a third of the time. Its masks may have specks.
FAST = ("--refiner.prompts.jitter", "0", "--refiner.stabilizer.max_components", "1000")


@dataclass(frozen=True)
class Outcome:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Run:
    """A finished ``refine`` of all phantoms, not to be changed."""

    folder: Path
    outcome: Outcome

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        return read_rows(self.folder)


Command = Callable[..., Outcome]


def read_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def refine_args(images: Path, coarse: Path, out: Path, *more: str) -> list[str]:
    folders = ["--images", str(images), "--coarse", str(coarse), "--out", str(out)]
    return ["refine", *folders, "--device", "cpu", *FAST, *more]


def call(arguments: Sequence[object]) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:  # how argparse refuses arguments, and ends --help
        return int(stop.code or 0)

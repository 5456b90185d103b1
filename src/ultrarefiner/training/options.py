"""How a run is carried out; nothing in here changes its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.training.engine.fitting import Hardware

Track = Callable[[Iterable[Any], int], Iterable[Any]]


def _silent(line: str) -> None:
    """Say nothing."""


def _unreported(folder: Path) -> None:
    """Report nothing."""


def _untracked(items: Iterable[Any], num_items: int) -> Iterable[Any]:
    """Return the items as they are."""
    return items


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        hardware: where to compute.
        resume: go on from where an earlier run of the same recipe stopped.
        command: recorded.
        say: told what happens, a line at a time.
        warn: told what may be wrong, a line at a time.
        track: wraps long loops, for a progress bar.
        finished: told the folder of a run after each phase.
    """

    hardware: Hardware = field(default_factory=Hardware)
    resume: bool = False
    command: str = ""
    say: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    track: Track = _untracked
    finished: Callable[[Path], None] = _unreported

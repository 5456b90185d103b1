"""What all commands print alike, and their exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

DONE, SOME_FAILED, UNUSABLE, LEAK, INTERRUPTED = 0, 1, 2, 3, 130
_SHOWN_PROBLEMS = 20

T = TypeVar("T")


def progress(what: str) -> Callable[[Iterable[T], int], Iterable[T]]:
    """Return a progress bar on stderr; silent where that is no terminal."""
    console = Console(stderr=True)

    def wrap(items: Iterable[T], total: int) -> Iterable[T]:
        return track(items, what, total=total, console=console, disable=not console.is_terminal)

    return wrap


def print_problems(kind: str, problems: Sequence[tuple[str, str]]) -> None:
    """Print name and message of each problem on stderr, up to a bound."""
    for name, message in problems[:_SHOWN_PROBLEMS]:
        print(f"{kind}: {name}: {message}", file=sys.stderr)
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"{kind}: and {len(problems) - _SHOWN_PROBLEMS} more", file=sys.stderr)


def fail_if_any(failures: Sequence[tuple[str, str]]) -> int:
    """Print what was skipped and return the exit code."""
    print_problems("skipped", failures)
    if failures:
        print(f"{counted(len(failures), 'file')} skipped", file=sys.stderr)
    return SOME_FAILED if failures else DONE


def counted(num: int, noun: str) -> str:
    """Return the number with its noun, in the plural unless it is 1."""
    return f"{num} {noun}" + ("" if num == 1 else "s")


def headline(content: Mapping[str, Any]) -> str:
    """Return the line that sums up an ``eval.json``; beside each mean the empty masks in it."""
    own, empty = content["summary"].get("dsc"), empty_masks(content["counts"])
    if own is None:  # the policy left it undefined for every image
        return f"DSC undefined ({empty})"
    if not content["paired"]:
        return f"DSC {own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}] ({empty})"
    coarse, gain = content["baseline"]["dsc"], content["paired"]["differences"]["dsc"]
    return (
        f"coarse DSC {coarse['mean']:.3f} ({empty_masks(content['baseline_counts'])}) -> "
        f"refined DSC {own['mean']:.3f} ({empty}): "
        f"{gain['mean']:+.3f} [{gain['low']:.3f}, {gain['high']:.3f}]"
    )


def empty_masks(counts: Mapping[str, int]) -> str:
    """Return how many lesions were missed, and how many were seen where there is none."""
    return f"{counts['missed']} missed, {counts['false_positive']} false positive"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())

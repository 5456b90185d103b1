"""The table of a run, ``results.csv``: one row per image, whatever became of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from ultrarefiner.data.atomic import encoded
from ultrarefiner.errors import InputError
from ultrarefiner.refine.predictor import RefinedImage

RESULT_COLUMNS = (
    "image",
    "accepted",
    "reason",
    "iou_with_coarse",
    "area_coarse_px",
    "area_refined_px",
    "predicted_iou",
    "seconds",
    "error",
    "score",
)
_SINCE_CALIBRATION = ("score",)
"""Columns that the tables of earlier versions lack."""


def result_row(stem: str, result: RefinedImage, seconds: float) -> dict[str, object]:
    """Return the row of an image that was refined, accepted or not."""
    return {
        "image": stem,
        "accepted": "yes" if result.accepted else "no",
        "reason": result.reason,
        "iou_with_coarse": f"{result.iou_with_coarse:.4f}",
        "area_coarse_px": int(result.coarse_mask.sum()),
        "area_refined_px": int(result.mask.sum()),
        "predicted_iou": f"{result.predicted_iou:.4f}",
        "seconds": f"{seconds:.3f}",
        "score": "" if result.score is None else f"{result.score:.6f}",
    }


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the rows of ``results.csv``, also of a run that was interrupted.

    The table of an earlier version, without scores, gets empty ones.

    Raises:
        InputError: the file is missing, damaged or another table.
    """
    expected = "the table written by 'ultrarefiner refine'"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, rows = _read_table(stream)
    except (OSError, ValueError, csv.Error) as cause:
        found = getattr(cause, "strerror", None) or str(cause)
        raise InputError(f"cannot read {path}", expected=expected, found=found) from cause
    if header == RESULT_COLUMNS[: -len(_SINCE_CALIBRATION)]:
        return [row | dict.fromkeys(_SINCE_CALIBRATION, "") for row in rows]
    if header != RESULT_COLUMNS:
        found = "the columns " + (", ".join(header) or "of an empty file")
        raise InputError(f"cannot use {path}", expected=expected, found=found)
    return rows


def _read_table(stream: TextIO) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    table = csv.DictReader(stream)
    return tuple(table.fieldnames or ()), list(table)


def as_cell(stem: str) -> str:
    """Return a file stem as ``results.csv`` holds it: on one line, in valid UTF-8."""
    return " ".join(encoded(stem).decode("utf-8").splitlines())

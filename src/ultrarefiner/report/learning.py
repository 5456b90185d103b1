"""Training runs: their learning curves, read from the log beside each checkpoint."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ultrarefiner.errors import InputError
from ultrarefiner.report.chart import (
    Axis,
    Point,
    draw_chart,
    draw_line,
    draw_marks,
    draw_swatch,
    value_axis,
)
from ultrarefiner.report.figures import Figure
from ultrarefiner.report.wording import fixed

LOG = Path("log") / "metrics.csv"
PHASES = ("phase2", "phase3")
"""Folders within that of a training, which is itself the log of phase 1."""

_EXPECTED = "the log of 'ultrarefiner train', with the columns epoch, train_loss and val_dsc"
_NUM_STYLES = 6

_CAPTIONS = {
    "loss": "Mean over each epoch; the key gives the last value. The disc marks the epoch with the "
    "best validation DSC, whose weights were kept unless the phase's start was better. Losses of "
    "different phases do not compare.",
    "val_dsc": "The disc marks the best epoch, whose weights were kept unless the phase's start "
    "was better; the key gives the last value. The best of many epochs flatters: judge the network "
    "on images held out.",
    "coarse_dsc": "Of the masks that phases 2 and 3 refine. In phase 2 they are given; in phase 3 "
    "they are the coarse network's own, and a curve that falls says that it pays for the others.",
}

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training run.

    Attributes:
        name: what tells it from the others.
        loss: training loss by epoch.
        val_dsc: Dice on the validation images by epoch.
        coarse_dsc: of phases 2 and 3, the same of the masks before refinement.
        card: content of its ``run.json``; empty while it is not finished.
    """

    name: str
    loss: Curve
    val_dsc: Curve
    coarse_dsc: Curve
    card: Mapping[str, Any]

    @property
    def num_epochs(self) -> int:
        """Epochs that the log knows."""
        return 1 + max(epoch for epoch, _ in (*self.loss, *self.val_dsc))

    @property
    def best(self) -> tuple[int, float] | None:
        """Epoch and Dice of the checkpoint that was kept: the first of the highest."""
        return max(self.val_dsc, key=lambda point: (point[1], -point[0]), default=None)


def read_training(folder: Path, *, name: str) -> Training:
    """Read the log and, if the run was finished, the card of a training run.

    Args:
        folder: has ``log/metrics.csv`` and perhaps ``run.json``.
        name: what to call it.

    Raises:
        InputError: the log or the card cannot be read, or the log has no finite value.
    """
    path, card = folder / LOG, folder / "run.json"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        content = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        curves = {
            "loss": _curve(rows, "train_loss"),
            "val_dsc": _curve(rows, "val_dsc"),
            "coarse_dsc": _curve(rows, "val_coarse_dsc"),
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as cause:
        found = getattr(cause, "strerror", None) or str(cause)
        raise InputError(
            f"cannot read the training run {folder}", expected=_EXPECTED, found=found
        ) from cause
    if not any(curves.values()) or not isinstance(content, dict):
        raise InputError(f"cannot use {path}", expected=_EXPECTED, found="no value in it")
    return Training(name=name, card=content, **curves)


def draw_learning(trainings: Sequence[Training]) -> list[Figure]:
    """Draw loss and validation Dice by epoch, all runs in one figure each."""
    if not trainings:
        return []
    most = max(training.num_epochs for training in trainings)
    x_axis = value_axis([1, most], label="Epoch")
    return [
        figure
        for figure in (
            _draw(trainings, x_axis, title="Training loss", curve="loss"),
            _draw(trainings, x_axis, title="Validation DSC", curve="val_dsc"),
            _draw(trainings, x_axis, title="Validation DSC before refinement", curve="coarse_dsc"),
        )
        if figure is not None
    ]


def _curve(rows: Sequence[Mapping[str, str]], column: str) -> Curve:
    """Return the mean of a column by epoch; a cell that is empty or not finite is left out."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(column) and math.isfinite(value := float(row[column])):
            values[int(row["epoch"])].append(value)
    return tuple((epoch, sum(found) / len(found)) for epoch, found in sorted(values.items()))


def _draw(trainings: Sequence[Training], x_axis: Axis, *, title: str, curve: str) -> Figure | None:
    """Draw one curve of every run; the best epoch, by validation, has a mark."""
    shown = [(i, t) for i, t in enumerate(trainings) if getattr(t, curve)]
    if not shown:
        return None
    values = [value for _, training in shown for _, value in getattr(training, curve)]
    y_axis = value_axis([*values, 0.0 if curve == "loss" else 1.0], label=title, upward=True)
    body, key = Markup(""), []
    for number, training in shown:
        points: Curve = getattr(training, curve)
        style = f"curve style-{number % _NUM_STYLES}"
        places = [(epoch + 1, value) for epoch, value in points]
        body += draw_line(places, x_axis, y_axis, kind=style)
        body += _best_mark(training, dict(points), x_axis=x_axis, y_axis=y_axis)
        key.append((training.name, draw_swatch(style), fixed(points[-1][1])))
    return Figure(
        title=title,
        svg=draw_chart("Line chart", x_axis, y_axis, body),
        key=tuple(key),
        caption=_CAPTIONS[curve],
    )


def _best_mark(
    training: Training, values: Mapping[int, float], *, x_axis: Axis, y_axis: Axis
) -> Markup:
    if training.best is None or training.best[0] not in values:
        return Markup("")
    epoch = training.best[0]
    label = f"{training.name}: best epoch {epoch + 1}, validation DSC {fixed(training.best[1])}"
    point = Point(index=None, kind="best", x=epoch + 1, y=values[epoch], label=label)
    return draw_marks([point], x_axis, y_axis)

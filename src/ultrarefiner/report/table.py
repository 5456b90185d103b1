"""The table of all cases: which columns a run has, and what sorts and shows in each cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.wording import fixed, signed


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of numbers, or of text if it has no format.

    Attributes:
        label: heading.
        value: the case's value; None if unknown.
        show: number to text.
    """

    label: str
    value: Callable[[ReportCase], float | str | None]
    show: Callable[[float | None], str] | None = None

    def text(self, case: ReportCase) -> str:
        """Return what the cell shows."""
        value = self.value(case)
        if self.show is None:
            return str(value or "")
        assert not isinstance(value, str), f"column {self.label} holds text"
        return self.show(value)

    def key(self, case: ReportCase) -> str:
        """Return what the cell sorts by; empty goes last."""
        value = self.value(case)
        return "" if value is None else str(value)


def choose_columns(cases: Sequence[ReportCase], *, distance_unit: str) -> tuple[Column, ...]:
    """Return the columns that these cases can fill.

    Args:
        cases: the processed cases.
        distance_unit: ``"mm"`` or ``"px"``, of HD95.
    """
    columns = []
    if any(case.baseline is not None for case in cases):
        columns += [
            Column(label="DSC coarse", value=lambda case: case.dsc_coarse, show=fixed),
            Column(label="DSC refined", value=lambda case: case.dsc, show=fixed),
            Column(label="Gain", value=lambda case: case.gain, show=signed),
        ]
    elif any(case.metrics is not None for case in cases):
        columns += [Column(label="DSC", value=lambda case: case.dsc, show=fixed)]
    if columns:
        label = f"HD95 [{distance_unit}]"
        columns += [Column(label=label, value=_hd95, show=partial(fixed, digits=1))]
    else:
        columns += [
            _number("Area coarse [px]", "area_coarse_px", 0),
            _number("Area refined [px]", "area_refined_px", 0),
        ]
    return (*columns, *_strata_columns(cases), *(c for c in _RUN_COLUMNS if _has_value(c, cases)))


def _strata_columns(cases: Sequence[ReportCase]) -> list[Column]:
    """Return a column for each property in which the cases differ."""
    return [
        Column(label=label, value=partial(_stratum, kind=kind))
        for kind, label in _STRATA.items()
        if len({_stratum(case, kind=kind) for case in cases}) > 1
    ]


def _stratum(case: ReportCase, *, kind: str) -> str | None:
    strata: Any = (case.metrics or {}).get("strata") or {}
    return strata.get(kind) or None


def _has_value(column: Column, cases: Sequence[ReportCase]) -> bool:
    return any(column.value(case) not in (None, "") for case in cases)


def _hd95(case: ReportCase) -> float | None:
    return None if case.metrics is None else case.metrics["hd95"]


def _number(label: str, column: str, digits: int) -> Column:
    return Column(
        label=label,
        value=lambda case: case.number(column),
        show=partial(fixed, digits=digits),
    )


def _decision(case: ReportCase) -> str | None:
    return case.reason if "accepted" in case.row else None


_STRATA = {"label": "Pathology", "birads": "BI-RADS", "device": "Device", "dataset": "Data set"}
_RUN_COLUMNS = (
    _number("IoU with coarse", "iou_with_coarse", 3),
    Column(label="Area ratio", value=lambda case: case.area_ratio, show=partial(fixed, digits=2)),
    _number("Predicted IoU", "predicted_iou", 3),
    _number("Score", "score", 2),
    Column(label="Decision", value=_decision),
    _number("Time [s]", "seconds", 2),
)

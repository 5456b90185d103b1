"""How far sizes of masks are from the truth: Bland-Altman plots with limits of agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ultrarefiner.report.cases import ReportCase, judge_change
from ultrarefiner.report.chart import (
    Axis,
    Point,
    draw_belt,
    draw_chart,
    draw_level,
    draw_level_label,
    draw_marks,
    value_axis,
)
from ultrarefiner.report.figures import CHANGES, Figure, count_kinds
from ultrarefiner.report.wording import counted, fixed, signed
from ultrarefiner.statistics import Bound, Limits, limits_of_agreement

_MIN_PATIENTS = 3  # with fewer, limits say nothing


@dataclass(frozen=True, kw_only=True)
class SizeAgreement:
    """How one size of one method's masks agrees with the truth.

    Attributes:
        size: ``"area"`` or ``"diameter"``.
        method: whose masks.
        unit: of the differences.
        digits: decimals worth printing.
        difference: limits of measured minus true.
        ratio: limits of measured over true, of the images where both are above zero; None where
            there are too few.
    """

    size: str
    method: str
    unit: str
    digits: int
    difference: Limits
    ratio: Limits | None


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One image's size: measured and true."""

    index: int
    kind: str
    stem: str
    patient: str
    pred: float
    target: float


def compare_sizes(
    cases: Mapping[int, ReportCase], *, distance_unit: str, delta: float
) -> tuple[list[SizeAgreement], list[Figure]]:
    """Return limits and plots of area and longest diameter, of coarse and refined masks.

    Args:
        cases: cases by their index on the page; those without the size are left out.
        distance_unit: ``"mm"`` or ``"px"``.
        delta: Dice change up to which a case counts as unchanged, for the marks.

    Returns:
        One row and one plot per size and method; none where fewer than three patients have it, as
        in evaluations of older versions.
    """
    agreements, figures = [], []
    for size, unit, digits in (
        ("area", f"{distance_unit}²", 1 if distance_unit == "mm" else 0),
        ("diameter", distance_unit, 1),
    ):
        measured = {
            method: _measure(cases, table, size, delta=delta)
            for method, table in (("coarse", "baseline"), ("refined", "metrics"))
        }
        measured = {
            method: found
            for method, found in measured.items()
            if len({case.patient for case in found}) >= _MIN_PATIENTS
        }
        rows = [
            _agree(found, size=size, method=method, unit=unit, digits=digits)
            for method, found in measured.items()
        ]
        agreements += rows
        figures += [
            _plot(row, measured[row.method], all_measured=measured, all_rows=rows) for row in rows
        ]
    return agreements, figures


def _measure(
    cases: Mapping[int, ReportCase], table: str, size: str, *, delta: float
) -> list[_Measured]:
    """Return what one table of metrics says of a size."""
    found = []
    for index, case in cases.items():
        values: Mapping[str, object] = getattr(case, table) or {}
        pred, target = values.get(f"{size}_pred"), values.get(f"{size}_target")
        if isinstance(pred, (int, float)) and isinstance(target, (int, float)):
            found.append(
                _Measured(
                    index=index,
                    kind="accepted" if case.gain is None else judge_change(case.gain, delta),
                    stem=case.stem,
                    patient=str(values.get("patient") or case.stem),
                    pred=float(pred),
                    target=float(target),
                )
            )
    return found


def _agree(
    measured: Sequence[_Measured], *, size: str, method: str, unit: str, digits: int
) -> SizeAgreement:
    difference = limits_of_agreement(
        [case.pred - case.target for case in measured], [case.patient for case in measured]
    )
    assert difference is not None, "there are patients enough"
    both = [case for case in measured if case.pred > 0 and case.target > 0]
    logs = limits_of_agreement(
        [math.log(case.pred / case.target) for case in both], [case.patient for case in both]
    )
    return SizeAgreement(
        size="longest diameter" if size == "diameter" else size,
        method=method,
        unit=unit,
        digits=digits,
        difference=difference,
        ratio=_exponential(logs) if logs else None,
    )


def _exponential(logs: Limits) -> Limits:
    """Return limits of ratios from those of their logarithms."""
    bias, lower, upper = (
        Bound(value=math.exp(b.value), low=math.exp(b.low), high=math.exp(b.high))
        for b in (logs.bias, logs.lower, logs.upper)
    )
    return Limits(
        bias=bias,
        lower=lower,
        upper=upper,
        num_images=logs.num_images,
        num_patients=logs.num_patients,
    )


def _plot(
    row: SizeAgreement,
    measured: Sequence[_Measured],
    *,
    all_measured: Mapping[str, Sequence[_Measured]],
    all_rows: Sequence[SizeAgreement],
) -> Figure:
    """Draw differences against means, on axes that all methods share."""
    points = [case for cases in all_measured.values() for case in cases]
    x_axis = value_axis(
        [(case.pred + case.target) / 2 for case in points],
        label=f"Mean of mask and truth [{row.unit}]",
    )
    ends = [b.value for r in all_rows for b in (r.difference.lower, r.difference.upper)]
    y_axis = value_axis(
        [0.0, *ends, *(case.pred - case.target for case in points)],
        label=f"Mask minus truth [{row.unit}]",
        upward=True,
    )
    marks = [
        Point(
            index=case.index,
            kind=case.kind,
            x=(case.pred + case.target) / 2,
            y=case.pred - case.target,
            label=f"{case.stem}: {fixed(case.pred, row.digits)} {row.unit}, "
            f"truth {fixed(case.target, row.digits)}",
        )
        for case in measured
    ]
    kinds = CHANGES if any(case.kind in CHANGES for case in measured) else ("accepted",)
    patients = counted(row.difference.num_patients, "patient")
    return Figure(
        title=f"{row.size.capitalize()}, {row.method} masks",
        svg=draw_chart(
            f"Bland-Altman plot of the {row.size} of {row.method} masks",
            x_axis,
            y_axis,
            _lines(row.difference, y_axis)
            + draw_marks(marks, x_axis, y_axis)
            + _labels(row.difference, row.digits, y_axis),
        ),
        key=count_kinds(kinds, [case.kind for case in measured]) if kinds == CHANGES else (),
        caption=f"Above zero the mask is too large. Solid: bias; dashed: 95 % limits of agreement, "
        f"each with its 95 % interval shaded; {len(measured)} images of {patients}.",
    )


def _lines(limits: Limits, y_axis: Axis) -> Markup:
    """Return zero, bias and limits, each with the shade of its interval."""
    body = draw_level("zero", 0, y_axis)
    for kind, bound in (("limit", limits.upper), ("mean", limits.bias), ("limit", limits.lower)):
        body += draw_belt(bound.low, bound.high, y_axis)
        body += draw_level(kind, bound.value, y_axis)
    return body


def _labels(limits: Limits, digits: int, y_axis: Axis) -> Markup:
    """Return the values of the lines, to be drawn over the marks."""
    bounds = (("upper", limits.upper), ("bias", limits.bias), ("lower", limits.lower))
    return Markup("").join(
        draw_level_label(
            f"{name} {signed(bound.value, digits)}", bound.value, y_axis, below=name == "lower"
        )
        for name, bound in bounds
    )

"""How a comparison comes out in parts of the data: a table with a forest plot beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ultrarefiner.report.chart import Axis, value_axis
from ultrarefiner.report.naming import digits_of, in_order
from ultrarefiner.report.wording import fixed, initial, interval, signed

Content = Mapping[str, Any]

_WIDTH, _HEIGHT, _MARGIN = 220, 26, 18
_SIZES = ("small", "medium", "large")  # a JSON file may hold them in the order of the alphabet
_KINDS = {
    "size": "Lesion size",
    "label": "Pathology",
    "birads": "BI-RADS",
    "device": "Device",
    "dataset": "Data set",
}


@dataclass(frozen=True, kw_only=True)
class StratumRow:
    """One method in one part of the data.

    Attributes:
        level: which part; empty where the row above has it already.
        method: whose difference from the reference.
        num_images: images of the part.
        num_patients: patients of the part.
        reference: mean of the reference method with its interval.
        own: mean of the method with its interval.
        difference: mean difference with its interval.
        harmed: share of harmed images; None if it was not counted.
        forest: the difference as a drawing.
    """

    level: str
    method: str
    num_images: int
    num_patients: int
    reference: Content | None
    own: Content | None
    difference: Content | None
    harmed: Content | None
    forest: Markup


@dataclass(frozen=True, kw_only=True)
class Strata:
    """All parts of the data by one property, for one metric.

    Attributes:
        title: the property.
        rows: its levels, each with every method but the reference.
    """

    title: str
    rows: tuple[StratumRow, ...]


@dataclass(frozen=True, kw_only=True)
class StrataTable:
    """Everything that the section on strata shows.

    Attributes:
        metric: which metric the means are of.
        reference: name of the reference method.
        groups: one table a property.
        scale: axis under the drawings.
        several: whether there is more than one method beside the reference.
        remarks: how sizes were cut, and which levels were left out.
    """

    metric: str
    reference: str
    groups: tuple[Strata, ...]
    scale: Markup
    several: bool
    remarks: tuple[str, ...]


def tabulate_strata(comparison: Content) -> StrataTable | None:
    """Return the parts of the data that a comparison looked at; None if there is none.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
    """
    strata: Content = comparison.get("strata") or {}
    names = in_order(comparison["metrics"])
    ends = [
        estimate[end]
        for levels in strata.values()
        for level in levels.values()
        for found in level["differences"].values()
        if names and (estimate := found.get(names[0]))
        for end in ("low", "high")
    ]
    if not ends:
        return None
    metric, axis = names[0], value_axis([0.0, *ends], label="")
    known = [kind for kind in _KINDS if strata.get(kind)]
    kinds = known + sorted(kind for kind in strata if kind not in _KINDS and strata[kind])
    return StrataTable(
        metric=metric,
        reference=comparison["reference"],
        groups=tuple(
            Strata(
                title=_KINDS.get(kind, initial(kind)),
                rows=tuple(
                    row
                    for level, content in sorted(strata[kind].items(), key=_by_size)
                    for row in _rows(
                        level,
                        content,
                        metric=metric,
                        reference=comparison["reference"],
                        axis=axis,
                    )
                ),
            )
            for kind in kinds
        ),
        scale=_draw_scale(axis),
        several=len(comparison["methods"]) > 2,
        remarks=tuple(_remarks(comparison)),
    )


def _by_size(item: tuple[str, Content]) -> int:
    """Return the rank of a level among sizes; others keep their order."""
    return _SIZES.index(item[0]) if item[0] in _SIZES else len(_SIZES)


def _remarks(comparison: Content) -> Iterator[str]:
    """Say what the table does not."""
    cuts, unit = comparison.get("size_cuts"), f"{comparison['distance_unit']}²"
    if cuts and "size" in comparison["strata"]:
        low, high = (f"{fixed(cut, 0)} {unit}" for cut in cuts)
        yield f"Sizes are thirds by the area of the true lesion: to {low}, to {high}, above."
    for kind, levels in (comparison.get("strata_left_out") or {}).items():
        label = _KINDS.get(kind, initial(kind))
        yield f"{label}, left out with fewer than two patients: {', '.join(levels)}."


def _rows(
    level: str, content: Content, *, metric: str, reference: str, axis: Axis
) -> list[StratumRow]:
    return [
        StratumRow(
            level=level if number == 0 else "",
            method=method,
            num_images=content["num_images"],
            num_patients=content["num_patients"],
            reference=content["summaries"][reference].get(metric),
            own=content["summaries"][method].get(metric),
            difference=found.get(metric),
            harmed=content.get("harmed", {}).get(method),
            forest=_draw_interval(found.get(metric), axis, digits_of(metric)),
        )
        for number, (method, found) in enumerate(content["differences"].items())
    ]


def _draw_interval(estimate: Content | None, axis: Axis, digits: int) -> Markup:
    """Return mean and interval as a square on a line; its colour only repeats its side of zero."""
    zero = _across(0, axis)
    body = Markup("")
    if estimate:
        low, mean, high = (_across(estimate[end], axis) for end in ("low", "mean", "high"))
        side = "open" if estimate["low"] <= 0 <= estimate["high"] else "clear"
        body = Markup(
            '<path class="whisker" d="M{} 13H{}M{} 9V17M{} 9V17"/>'
            '<rect class="square {}" x="{}" y="8.5" width="9" height="9"/><title>{}</title>'
        ).format(
            *(low, high, low, high, side, round(mean - 4.5, 2)),
            f"{signed(estimate['mean'], digits)}, {interval(estimate, digits, sign=True)}",
        )
    return Markup(
        '<svg class="forest" viewBox="0 0 {} {}" aria-hidden="true">'
        '<path class="zero" d="M{} 0V{}"/>{}</svg>'
    ).format(_WIDTH, _HEIGHT, zero, _HEIGHT, body)


def _draw_scale(axis: Axis) -> Markup:
    ticks = Markup("").join(
        Markup('<text x="{}" y="17">{}</text>').format(_across(value, axis), axis.show(value))
        for value in _few(list(axis.ticks))
    )
    return Markup(
        '<svg class="forest" viewBox="0 0 {} 22" aria-hidden="true">'
        '<path class="axis" d="M{} 1H{}"/>{}</svg>'
    ).format(_WIDTH, _MARGIN, _WIDTH - _MARGIN, ticks)


def _few(ticks: list[float]) -> list[float]:
    """Return at most three of the ticks: both ends and zero, or the one nearest to it."""
    if ticks[0] < 0 < ticks[-1]:
        middle = min(ticks[1:-1], key=abs, default=0.0)
        return [ticks[0], middle, ticks[-1]]
    return [ticks[0], ticks[-1]]


def _across(value: float, axis: Axis) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return round(_MARGIN + share * (_WIDTH - 2 * _MARGIN), 2)

"""The page's figures: what each shows of the cases, and how to read it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ultrarefiner.report.cases import Change, ReportCase, judge_change
from ultrarefiner.report.chart import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Point,
    count_axis,
    draw_bar,
    draw_chart,
    draw_marks,
    draw_symbol,
    round_up,
)
from ultrarefiner.report.wording import fixed, signed

CHANGES = ("improved", "unchanged", "harmed")
_TENTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MAX_DOUBLINGS = 4  # an area beyond 16 times or a 16th is drawn at the border


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its key.

    Attributes:
        title: heading.
        svg: the drawing.
        key: kind of mark, its symbol, and how many cases have it or what it reached.
        caption: how to read it.
    """

    title: str
    svg: Markup
    key: tuple[tuple[str, Markup, int | str], ...]
    caption: str


def choose_figures(
    cases: Mapping[int, ReportCase], evaluation: Mapping[str, Any] | None
) -> list[Figure]:
    """Return the figures that these cases can fill.

    Args:
        cases: cases by their index on the page.
        evaluation: content of ``eval.json``; None without truth.
    """
    if not cases:
        return []
    if evaluation and evaluation["paired"]:
        paired = evaluation["paired"]
        return [
            paired_scatter(cases, paired["delta"]),
            gain_histogram(cases, paired["delta"], paired["differences"]["dsc"]),
        ]
    dsc = [case.dsc for case in cases.values() if case.dsc is not None]
    quality = share_histogram(
        dsc, title="How good the masks are", label="DSC", caption="Images by their DSC."
    )
    ious = [case.number("iou_with_coarse") for case in cases.values() if case.accepted]
    kept = share_histogram(
        [iou for iou in ious if iou is not None],
        title="How much was kept",
        label="IoU with the coarse mask",
        caption="Accepted images by their IoU with the coarse mask.",
    )
    moved = any(case.number("iou_with_coarse") is not None for case in cases.values())
    return [*([agreement_scatter(cases)] if moved else []), quality if dsc else kept]


def paired_scatter(cases: Mapping[int, ReportCase], delta: float) -> Figure:
    """Draw refined against coarse DSC; below the diagonal, refinement did harm.

    Args:
        cases: cases by their index on the page; those without both values are left out.
        delta: Dice change up to which a case counts as unchanged.
    """
    points = [
        Point(
            index=index,
            kind=judge_change(refined - coarse, delta),
            x=coarse,
            y=refined,
            label=f"{case.stem}: {fixed(coarse)} → {fixed(refined)}",
        )
        for index, case in cases.items()
        if (coarse := case.dsc_coarse) is not None and (refined := case.dsc) is not None
    ]
    low, ticks = _dsc_range(min((min(point.x, point.y) for point in points), default=0.0))
    x_axis = Axis(low=low, high=1, ticks=ticks, label="DSC of the coarse mask")
    y_axis = Axis(low=low, high=1, ticks=ticks, label="DSC of the refined mask", upward=True)
    body = _diagonal(x_axis, y_axis, delta) + draw_marks(points, x_axis, y_axis)
    return Figure(
        title="Every image, before and after",
        svg=draw_chart("Scatter plot", x_axis, y_axis, body),
        key=count_kinds(CHANGES, [point.kind for point in points]),
        caption=f"On the diagonal nothing changed; the band is a change of at most {delta:g}. "
        "Select a mark to see its image.",
    )


def gain_histogram(
    cases: Mapping[int, ReportCase], delta: float, estimate: Mapping[str, float]
) -> Figure:
    """Draw how the change of DSC is distributed, with its mean and interval.

    Args:
        cases: cases by their index on the page; those without a change are left out.
        delta: Dice change up to which a case counts as unchanged; bins are ``2 delta`` wide, so
            that each is of one kind.
        estimate: mean change with the ends of its interval.
    """
    gains = [case.gain for case in cases.values() if case.gain is not None]
    width = 2 * delta or 0.02
    bins = Counter((math.floor(gain / width + 0.5), judge_change(gain, delta)) for gain in gains)
    edge = (max((abs(number) for number, _ in bins), default=0) + 1.5) * width
    step = round_up(edge / 4)
    ticks = [i * step for i in range(-math.floor(edge / step), math.floor(edge / step) + 1)]
    x_axis = Axis(
        low=-edge, high=edge, ticks=ticks, label="Change of DSC", show=lambda v: signed(v, 2)
    )
    bars, y_axis = _stacked_bars(bins, width, x_axis)
    return Figure(
        title="How much changed",
        svg=draw_chart(
            "Histogram",
            x_axis,
            y_axis,
            _interval_band(x_axis, estimate) + bars + _mean_line(x_axis, estimate),
        ),
        key=count_kinds(CHANGES, [judge_change(gain, delta) for gain in gains]),
        caption="Images by their change of DSC. The line is the mean change, the shade its "
        "95 % interval.",
    )


def agreement_scatter(cases: Mapping[int, ReportCase]) -> Figure:
    """Draw the agreement with the coarse mask against the change of area.

    Args:
        cases: cases by their index on the page; those with an empty coarse mask are left out.
    """
    points = [
        Point(
            index=index,
            kind="accepted" if case.accepted else "rejected",
            x=math.log2(ratio) if ratio else -math.inf,
            y=iou,
            label=f"{case.stem}: area × {fixed(ratio, 2)}, IoU {fixed(iou)}",
        )
        for index, case in cases.items()
        if (ratio := case.area_ratio) is not None
        and (iou := case.number("iou_with_coarse")) is not None
    ]
    x_axis = _doublings(point.x for point in points)
    y_axis = Axis(low=0, high=1, ticks=_TENTHS, label="IoU with the coarse mask", upward=True)
    body = _containment(x_axis, y_axis) + draw_marks(points, x_axis, y_axis)
    left_out = len(cases) - len(points)
    return Figure(
        title="How far refinement moved each mask",
        svg=draw_chart("Scatter plot", x_axis, y_axis, body),
        key=count_kinds(("accepted", "rejected"), [point.kind for point in points]),
        caption="On the curve one mask contains the other; the further below, the less they "
        "overlap. Select a mark to see its image."
        + (f" Not drawn, since a mask's area is unknown or zero: {left_out}." if left_out else ""),
    )


def share_histogram(values: Sequence[float], *, title: str, label: str, caption: str) -> Figure:
    """Draw how values in [0, 1] are distributed, in bins of 0.05."""
    width = 0.05
    bins = Counter(min(math.floor(value / width + 1e-9), 19) for value in values)
    x_axis = Axis(low=0, high=1, ticks=_TENTHS, label=label)
    y_axis = count_axis(max(bins.values(), default=1))
    bars = Markup("").join(
        draw_bar("accepted", (number * width, (number + 1) * width), (0, num), x_axis, y_axis)
        for number, num in sorted(bins.items())
    )
    return Figure(
        title=title,
        svg=draw_chart("Histogram", x_axis, y_axis, bars),
        key=(),
        caption=caption,
    )


def _dsc_range(least: float) -> tuple[float, list[float]]:
    """Return where DSC axes start, so that nothing is cut off, and their ticks."""
    step = 0.1 if least >= 0.5 else 0.2
    num_steps = max(math.ceil((1 - least) / step - 1e-9), 1)
    ticks = [round(1 - i * step, 1) for i in range(num_steps, -1, -1)]
    return ticks[0], ticks


def _diagonal(x_axis: Axis, y_axis: Axis, delta: float) -> Markup:
    """Return the line of no change, the band around it, and what lies on either side."""
    low = x_axis.low
    upper = [(low, low), (low, low + delta), (1 - delta, 1.0)]
    lower = [(1.0, 1.0), (1.0, 1 - delta), (low + delta, low)]
    return Markup(
        '<polygon class="band" points="{}"/><path class="guide" d="M{} {}L{} {}"/>'
        '<text class="region" x="{}" y="{}">better</text>'
        '<text class="region end" x="{}" y="{}">worse</text>'
    ).format(
        " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in [*upper, *lower]),
        *(LEFT, BOTTOM, RIGHT, TOP),
        *(LEFT + 12, TOP + 22),
        *(RIGHT - 12, BOTTOM - 14),
    )


def _stacked_bars(
    bins: Mapping[tuple[int, Change], int], width: float, x_axis: Axis
) -> tuple[Markup, Axis]:
    """Return the bars of bins ``(number, kind)``, bin 0 being centred on 0, and their axis."""
    totals: Counter[int] = Counter()
    for (number, _), num in bins.items():
        totals[number] += num
    y_axis = count_axis(max(totals.values(), default=1))
    bars, heights = Markup(""), Counter[int]()
    for (number, kind), num in sorted(bins.items()):
        span = ((number - 0.5) * width, (number + 0.5) * width)
        bars += draw_bar(kind, span, (heights[number], heights[number] + num), x_axis, y_axis)
        heights[number] += num
    return bars, y_axis


def _interval_band(x_axis: Axis, estimate: Mapping[str, float]) -> Markup:
    low, high = x_axis.at(estimate["low"]), x_axis.at(estimate["high"])
    return Markup('<rect class="interval" x="{}" y="{}" width="{:.2f}" height="{}"/>').format(
        low, TOP, high - low, BOTTOM - TOP
    )


def _mean_line(x_axis: Axis, estimate: Mapping[str, float]) -> Markup:
    """Return lines at zero and at the mean, labelled on the side away from zero."""
    leftward = estimate["mean"] < 0
    beside = x_axis.at(estimate["low"]) - 8 if leftward else x_axis.at(estimate["high"]) + 8
    return Markup(
        '<path class="zero" d="M{} {}V{}"/><path class="mean" d="M{} {}V{}"/>'
        '<text class="note {}" x="{:.2f}" y="{}">mean {}</text>'
    ).format(
        *(x_axis.at(0), BOTTOM, TOP),
        *(x_axis.at(estimate["mean"]), BOTTOM, TOP),
        *("end" if leftward else "start", beside, TOP + 12, signed(estimate["mean"])),
    )


def _doublings(logs: Iterable[float]) -> Axis:
    """Return an axis of area ratios in powers of two that holds the given logarithms."""
    reach = max([1, *(math.ceil(min(abs(log), _MAX_DOUBLINGS)) for log in logs)])
    return Axis(
        low=-reach,
        high=reach,
        ticks=range(-reach, reach + 1),
        label="Area, refined relative to coarse",
        show=lambda log: f"× {2**log:g}" if log >= 0 else f"× 1/{2**-log:g}",
    )


def _containment(x_axis: Axis, y_axis: Axis) -> Markup:
    """Return the curve of the largest IoU that an area ratio r allows, min(r, 1 / r)."""
    logs = [x_axis.low + (x_axis.high - x_axis.low) * i / 80 for i in range(81)]
    return Markup('<path class="guide" d="M{}"/>').format(
        "L".join(f"{x_axis.at(log)} {y_axis.at(2 ** -abs(log))}" for log in logs)
    )


def count_kinds(
    kinds: Sequence[str], found: Sequence[str]
) -> tuple[tuple[str, Markup, int | str], ...]:
    """Return the key of marks by kind, with how many there are of each."""
    return tuple((kind, draw_symbol(kind), found.count(kind)) for kind in kinds)

"""Parts of a chart as SVG: axes, one mark per case, bars. Colour and shape both say the kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 440  # user units; the page scales the drawing
LEFT, RIGHT, TOP, BOTTOM = 60, 468, 14, 388

_DISC = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z"
_SHAPES = {  # in drawing order: the rare and grave kinds on top
    "unchanged": "M-3.5 0L0-3.5L3.5 0L0 3.5Z",  # diamond
    "improved": _DISC,
    "accepted": _DISC,
    "best": _DISC,
    "rejected": "M-3.6-3.6L3.6 3.6M-3.6 3.6L3.6-3.6",  # cross
    "harmed": "M-5.2-4H5.2L0 5Z",  # triangle pointing down
}


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _thousands(value: float) -> str:
    return f"{_plain(value / 1000)}k" if value else "0"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis.

    Attributes:
        low: value at its start.
        high: value at its end.
        ticks: values to label.
        label: what it shows.
        show: value to tick label.
        upward: whether it runs from bottom to top, else from left to right.
    """

    low: float
    high: float
    ticks: Sequence[float]
    label: str
    show: Callable[[float], str] = _plain
    upward: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value [user units]; one beyond the axis is put at its end."""
        start, end = (BOTTOM, TOP) if self.upward else (LEFT, RIGHT)
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(start + share * (end - start), 2)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One case in a scatter plot.

    Attributes:
        index: index of the case on the page; None if the mark is of no single case.
        kind: which mark it gets.
        x: value along the first axis.
        y: value along the second axis.
        label: what its tooltip says.
    """

    index: int | None
    kind: str
    x: float
    y: float
    label: str


def draw_marks(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> Markup:
    """Return one mark per point."""
    order = list(_SHAPES)
    mark = Markup(
        '<path class="mark {}"{} transform="translate({} {})" d="{}"><title>{}</title></path>'
    )
    return Markup("").join(
        mark.format(
            point.kind,
            "" if point.index is None else Markup(' data-case="{}"').format(point.index),
            x_axis.at(point.x),
            y_axis.at(point.y),
            _SHAPES[point.kind],
            point.label,
        )
        for point in sorted(points, key=lambda point: order.index(point.kind))
    )


def draw_line(
    values: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis, *, kind: str
) -> Markup:
    """Return a line through points in their order."""
    return Markup('<path class="{}" d="M{}"/>').format(
        kind, "L".join(f"{x_axis.at(x)} {y_axis.at(y)}" for x, y in values)
    )


def draw_level(kind: str, value: float, y_axis: Axis) -> Markup:
    """Return a level line over the whole width."""
    return Markup('<path class="{}" d="M{} {}H{}"/>').format(kind, LEFT, y_axis.at(value), RIGHT)


def draw_level_label(text: str, value: float, y_axis: Axis, *, below: bool = False) -> Markup:
    """Return the label of a level line, at its right end above or below it."""
    return Markup('<text class="level-label end" x="{}" y="{}">{}</text>').format(
        RIGHT, round(y_axis.at(value) + (15 if below else -5), 2), text
    )


def draw_belt(low: float, high: float, y_axis: Axis) -> Markup:
    """Return a shade over the whole width between two values."""
    bottom, top = y_axis.at(low), y_axis.at(high)
    return Markup('<rect class="interval" x="{}" y="{}" width="{}" height="{:.2f}"/>').format(
        LEFT, top, RIGHT - LEFT, bottom - top
    )


def draw_bar(
    kind: str, span: tuple[float, float], stack: tuple[int, int], x_axis: Axis, y_axis: Axis
) -> Markup:
    """Return one bar over a span of values, from the first to the second count of a stack."""
    left, right = (x_axis.at(value) for value in span)
    bottom, top = (y_axis.at(count) for count in stack)
    return Markup(
        '<rect class="bar {}" x="{:.2f}" y="{}" width="{:.2f}" height="{:.2f}">'
        "<title>{}</title></rect>"
    ).format(kind, left + 0.75, top, right - left - 1.5, bottom - top, stack[1] - stack[0])


def draw_chart(what: str, x_axis: Axis, y_axis: Axis, body: Markup) -> Markup:
    """Return a whole drawing: axes, grid and labels around a body."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}: {} by {}">{}{}{}'
        '<path class="axis" d="M{} {}H{}"/>'
        '<text class="label mid" x="{}" y="{}">{}</text>'
        '<text class="label mid" transform="translate(14 {}) rotate(-90)">{}</text></svg>'
    ).format(
        *(WIDTH, HEIGHT, what, y_axis.label, x_axis.label),
        *(_ticks_across(x_axis), _ticks_up(y_axis), body),
        *(LEFT, BOTTOM, RIGHT),
        *((LEFT + RIGHT) / 2, HEIGHT - 8, x_axis.label),
        *((TOP + BOTTOM) / 2, y_axis.label),
    )


def draw_symbol(kind: str) -> Markup:
    """Return the mark of a kind as a small drawing of its own."""
    return Markup(
        '<svg class="symbol" viewBox="-7 -7 14 14" aria-hidden="true">'
        '<path class="mark {}" d="{}"/></svg>'
    ).format(kind, _SHAPES[kind])


def draw_swatch(kind: str) -> Markup:
    """Return a line of a kind as a small drawing of its own."""
    return Markup(
        '<svg class="swatch-line" viewBox="0 0 34 12" aria-hidden="true">'
        '<path class="{}" d="M1 6H33"/></svg>'
    ).format(kind)


def count_axis(most: int) -> Axis:
    """Return an upward axis for counts of images, 0 to at least ``most``."""
    step = max(1, round(round_up(most / 4)))
    high = math.ceil(most / step) * step
    return Axis(low=0, high=high, ticks=range(0, high + 1, step), label="Images", upward=True)


def value_axis(values: Iterable[float], *, label: str, upward: bool = False) -> Axis:
    """Return an axis with round ticks that holds all the values, of which there is at least one."""
    known = list(values)
    low, high = min(known), max(known)
    step = round_up((high - low or abs(high) or 1) / 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return Axis(
        low=first * step,
        high=last * step,
        ticks=[number * step for number in range(first, last + 1)],
        label=label,
        show=_thousands if step >= 1000 else lambda value: _plain(round(value, 9)),
        upward=upward,
    )


def round_up(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below ``least`` > 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _ticks_across(axis: Axis) -> Markup:
    tick = Markup('<text class="tick mid" x="{}" y="{}">{}</text>')
    return Markup("").join(
        tick.format(axis.at(value), BOTTOM + 20, axis.show(value)) for value in axis.ticks
    )


def _ticks_up(axis: Axis) -> Markup:
    tick = Markup(
        '<path class="grid" d="M{} {}H{}"/><text class="tick end" x="{}" y="{}">{}</text>'
    )
    return Markup("").join(
        tick.format(LEFT, axis.at(value), RIGHT, LEFT - 8, axis.at(value) + 4, axis.show(value))
        for value in axis.ticks
    )

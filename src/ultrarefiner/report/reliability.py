"""Whether probabilities mean what they say: the reliability diagram and its two numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ultrarefiner.report.chart import Axis, Point, draw_chart, draw_line, draw_marks, draw_symbol
from ultrarefiner.report.figures import Figure
from ultrarefiner.report.wording import fixed, percent

_TENTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_KINDS = {"coarse": "unchanged", "refined": "improved"}


def draw_reliability(probabilities: Mapping[str, Any]) -> Figure | None:
    """Draw how often the lesion was there against how probable it was said to be.

    Args:
        probabilities: ``eval.json["probabilities"]``, method to its numbers and bins.

    Returns:
        The diagram; None if no method has a pixel in a bin.
    """
    x_axis = Axis(low=0, high=1, ticks=_TENTHS, label="Probability said")
    y_axis = Axis(
        low=0, high=1, ticks=_TENTHS, label="Share of pixels inside the truth", upward=True
    )
    body = draw_line([(0, 0), (1, 1)], x_axis, y_axis, kind="guide")
    body += _region_labels(x_axis, y_axis)
    key = []
    for method in sorted(probabilities):  # coarse first, refined on top
        found = [entry for entry in probabilities[method]["bins"] if entry["count"]]
        if not found:
            continue
        kind = _KINDS.get(method, "accepted")
        total = sum(entry["count"] for entry in found)
        places = [(entry["confidence"], entry["frequency"]) for entry in found]
        body += draw_line(places, x_axis, y_axis, kind=f"curve reliability {kind}")
        body += draw_marks(
            [
                Point(
                    index=None,
                    kind=kind,
                    x=entry["confidence"],
                    y=entry["frequency"],
                    label=f"{method}: said {fixed(entry['confidence'])}, was "
                    f"{fixed(entry['frequency'])}; {percent(entry['count'] / total, 1)} of pixels",
                )
                for entry in found
            ],
            x_axis,
            y_axis,
        )
        key.append((method, draw_symbol(kind), f"ECE {fixed(probabilities[method]['ece'])}"))
    if not key:
        return None
    return Figure(
        title="Do the probabilities hold?",
        svg=draw_chart("Reliability diagram", x_axis, y_axis, body),
        key=tuple(key),
        caption="Each mark is a bin of pixels. On the diagonal, a share p of the pixels given the "
        "probability p is lesion; below it the probabilities are too high.",
    )


def _region_labels(x_axis: Axis, y_axis: Axis) -> Markup:
    return Markup(
        '<text class="region" x="{}" y="{}">says too little</text>'
        '<text class="region end" x="{}" y="{}">says too much</text>'
    ).format(
        *(x_axis.at(0.03), y_axis.at(0.94)),
        *(x_axis.at(0.97), y_axis.at(0.04)),
    )

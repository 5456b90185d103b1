"""Risk and coverage: what comes of accepting only the refinements with the best scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.chart import (
    Axis,
    Point,
    draw_chart,
    draw_level,
    draw_level_label,
    draw_line,
    draw_marks,
    draw_swatch,
    draw_symbol,
    value_axis,
)
from ultrarefiner.report.figures import Figure
from ultrarefiner.report.wording import fixed, percent, signed
from ultrarefiner.statistics import RiskCoverage, risk_coverage

_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LISTED = (0.25, 0.5, 0.75, 0.9)
_ROUNDING = 1e-6  # results.csv holds scores with six decimals


@dataclass(frozen=True, kw_only=True)
class Step:
    """What comes of accepting the images whose score reaches a threshold, and no others.

    Attributes:
        threshold: least score; minus infinity accepts all.
        coverage: share of the images that are accepted.
        harmed_share: patients' mean share of images made worse; refused ones are not.
        gain: mean change of DSC over all images; that of refused ones is 0.
        p_value: of the hypothesis that the harmed share is above the bound; None if not tested.
    """

    threshold: float
    coverage: float
    harmed_share: float
    gain: float
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Selective:
    """What the section on risk and coverage shows.

    Attributes:
        figures: harmed share and gain by coverage.
        listed: a few steps, by coverage.
        chosen: the step of the rule's threshold; None where no rule is known.
        curve: share made worse of the accepted images; None where the rule refused some.
        delta: fall of DSC from which on an image counts as made worse.
        num_images: images with score and truth.
        num_unknown: those that the rule refused, of which nobody kept the refined mask.
        method: how the rule's threshold was chosen; None where no rule is known.
    """

    figures: tuple[Figure, ...]
    listed: tuple[Step, ...]
    chosen: Step | None
    curve: RiskCoverage | None
    delta: float
    num_images: int
    num_unknown: int
    method: str | None


def select_cases(
    cases: Mapping[int, ReportCase], rule: AcceptanceRule | None, *, delta: float
) -> Selective | None:
    """Return risk and coverage of a run; None without scores or without truth of both masks.

    Where a rule refused images, the run kept their coarse masks, and nobody knows what their
    refined ones were worth: the curves end at the rule's threshold.

    Args:
        cases: cases by their index on the page; those without score or truth are left out.
        rule: the rule that the run used, if known; its delta goes before the given one.
        delta: fall of DSC from which on an image counts as made worse.
    """
    judged = [case for case in cases.values() if case.score is not None and case.gain is not None]
    delta = rule.delta if rule else delta
    unknown = [case for case in judged if case.is_refused_by_rule]
    steps, curve = _trace(judged, delta=delta, unknown=unknown)
    if not steps:
        return None
    chosen = step_at(steps, rule.threshold) if rule else None
    if rule and chosen:
        place, chosen = steps.index(chosen), replace(chosen, threshold=rule.threshold)
        steps[place] = chosen
    return Selective(
        figures=draw_steps(
            steps, rule, chosen=chosen, delta=delta, dsc_coarse=_mean_coarse(judged)
        ),
        listed=pick_steps(steps, chosen),
        chosen=chosen,
        curve=curve,
        delta=delta,
        num_images=len(judged),
        num_unknown=len(unknown),
        method=rule.method if rule else None,
    )


def draw_steps(
    steps: Sequence[Step],
    rule: AcceptanceRule | None,
    *,
    chosen: Step | None,
    delta: float,
    dsc_coarse: float | None = None,
) -> tuple[Figure, Figure]:
    """Draw harmed share and gain against coverage.

    Args:
        steps: by coverage; accepting nothing is added.
        rule: whose bound is drawn; None if there is none.
        chosen: the step of its threshold.
        delta: fall of DSC from which on an image counts as made worse.
        dsc_coarse: mean DSC of the coarse masks; without it the change of the mean is drawn.
    """
    harm = _draw(
        [(step.coverage, 100 * step.harmed_share) for step in steps],
        chosen,
        label=f"Images made worse by more than {delta:g} [%]",
        title="What accepting more costs",
        caption="Patients' mean share of all images whose DSC falls; an image that keeps its "
        "coarse mask is not harmed.",
        show=lambda value: percent(value / 100, 1),
        bound=100 * rule.alpha if rule else None,
    )
    start = 0.0 if dsc_coarse is None else dsc_coarse
    gain = _draw(
        [(step.coverage, start + step.gain) for step in steps],
        chosen,
        start=start,
        label="Mean change of DSC" if dsc_coarse is None else "Mean DSC",
        title="What accepting more gains",
        caption="Mean over all images, of which those not accepted keep their coarse mask.",
        show=signed if dsc_coarse is None else fixed,
    )
    return harm, gain


def pick_steps(steps: Sequence[Step], chosen: Step | None) -> tuple[Step, ...]:
    """Return the steps nearest to a few coverages, the chosen one, the next one, and the last."""
    picked = {min(steps, key=lambda step: abs(step.coverage - share)) for share in _LISTED}
    picked.add(steps[-1])
    if chosen is not None:
        place = steps.index(chosen)
        picked.update(steps[place : place + 2])
    return tuple(sorted(picked, key=lambda step: (step.coverage, -step.threshold)))


def step_at(steps: Sequence[Step], threshold: float) -> Step | None:
    """Return the step of the most images whose scores all reach a threshold; None if none do.

    Args:
        steps: by coverage.
        threshold: least score.
    """
    least = threshold - _ROUNDING
    return next((step for step in reversed(steps) if step.threshold >= least), None)


def show_threshold(threshold: float) -> str:
    """Return a threshold as the page prints it.

    Example:
        >>> show_threshold(-1.25), show_threshold(-math.inf), show_threshold(math.inf)
        ('−1.25', 'accept all', 'accept none')
    """
    if math.isinf(threshold):
        return "accept none" if threshold > 0 else "accept all"
    return fixed(threshold, 2)


def _trace(
    cases: Sequence[ReportCase], *, delta: float, unknown: Sequence[ReportCase]
) -> tuple[list[Step], RiskCoverage | None]:
    """Return the steps above the scores of the unknown cases, and the whole curve if none is.

    The risk of :func:`~ultrarefiner.statistics.risk_coverage` is of the accepted images; times the
    coverage it is of all, of which those not accepted lose nothing.
    """
    if not cases:
        return [], None
    scores = np.array([case.score for case in cases], dtype=np.float64)
    gains = np.array([case.gain for case in cases], dtype=np.float64)
    harmed = (gains < -delta).astype(np.float64)
    harm = risk_coverage(scores, harmed, [case.patient for case in cases])
    loss = risk_coverage(scores, -gains)
    least = max((case.score for case in unknown if case.score is not None), default=-math.inf)
    steps = [
        Step(
            threshold=float(threshold),
            coverage=loss.coverage[i],
            harmed_share=harm.risk[i] * harm.coverage[i],
            gain=-loss.risk[i] * loss.coverage[i],
        )
        for i, threshold in enumerate(np.unique(scores)[::-1])
        if threshold > least
    ]
    return steps, None if unknown else harm


def _mean_coarse(cases: Sequence[ReportCase]) -> float:
    return float(np.mean([case.dsc_coarse for case in cases if case.dsc_coarse is not None]))


def _draw(
    places: Sequence[tuple[float, float]],
    chosen: Step | None,
    *,
    label: str,
    title: str,
    caption: str,
    show: Callable[[float], str],
    start: float = 0.0,
    bound: float | None = None,
) -> Figure:
    """Draw one curve from nothing accepted on, with the random order, a bound, the chosen step."""
    places = [(0.0, start), *(place for place in places if place[0] > 0)]
    heights = [height for _, height in places]
    x_axis = Axis(low=0, high=1, ticks=_FIFTHS, label="Share of images accepted", show=percent)
    y_axis = value_axis([*heights, 1.2 * bound] if bound else heights, label=label, upward=True)
    body, key = Markup(""), [("by decreasing score", draw_swatch("curve"), "")]
    told = f"{show(heights[-1])} at {percent(places[-1][0])} accepted"
    if places[-1][0] == 1:
        body += draw_line([places[0], places[-1]], x_axis, y_axis, kind="guide")
        key.append(("in random order", draw_swatch("guide"), ""))
    if bound is not None:
        body += draw_level("limit", bound, y_axis)
        key.append(("bound of the rule", draw_swatch("limit"), show(bound)))
    body += draw_line(places, x_axis, y_axis, kind="curve")
    if chosen is not None:
        share, height = next(place for place in places if place[0] == chosen.coverage)
        at = f"{percent(share)} accepted"
        told = f"{show(height)} at the rule's threshold, {at}; {told}"
        mark = Point(index=None, kind="best", x=share, y=height, label=f"{show(height)}, {at}")
        body += draw_marks([mark], x_axis, y_axis)
        key.append(("threshold of the rule", draw_symbol("best"), at))
    if bound is not None:
        is_above = heights[-1] > bound
        body += draw_level_label(f"bound {show(bound)}", bound, y_axis, below=is_above)
    return Figure(
        title=title,
        svg=draw_chart(f"Line chart, {told}", x_axis, y_axis, body),
        key=tuple(key),
        caption=caption,
    )

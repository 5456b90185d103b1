"""Calibrations of the acceptance rule: what ``calibration.json`` says, as the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report.figures import Figure
from ultrarefiner.report.selective import Step, draw_steps, pick_steps, step_at

Content = Mapping[str, Any]

CALIBRATION_KEYS = ("rule", "before", "after", "curve", "statement")
"""Entries of ``calibration.json`` that the page cannot do without."""

_COMMAND = "ultrarefiner calibrate"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What would be delivered to the patients that the threshold was chosen on.

    Attributes:
        accepted_share: of the images.
        harmed: patients' mean share of images made worse with its interval: mean, low, high.
        gain: mean change of DSC over all images.
        num_images: images.
        num_patients: their patients.
    """

    accepted_share: float
    harmed: Mapping[str, float]
    gain: float
    num_images: int
    num_patients: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """One calibration as the page shows it.

    Attributes:
        name: what tells it from the others.
        rule: what was found.
        statement: what is guaranteed and what is not, in the words of the file.
        before: of every refinement.
        after: of those that the rule accepts.
        steps: what each threshold would deliver, by coverage.
        content: of the whole file.
    """

    name: str
    rule: AcceptanceRule
    statement: str
    before: Delivery
    after: Delivery
    steps: tuple[Step, ...]
    content: Content

    @property
    def chosen(self) -> Step | None:
        """The step of the rule's threshold."""
        return step_at(self.steps, self.rule.threshold)

    @property
    def figures(self) -> tuple[Figure, Figure]:
        """Harmed share and gain against the share of images accepted."""
        return draw_steps(self.steps, self.rule, chosen=self.chosen, delta=self.rule.delta)

    @property
    def listed(self) -> tuple[Step, ...]:
        """A few steps, by coverage."""
        return pick_steps(self.steps, self.chosen)

    @property
    def kept_gain(self) -> float | None:
        """Share of the gain that the rule keeps; None where there was none to keep."""
        share: float | None = self.content.get("kept_gain")
        return share if self.before.gain > 0 else None

    @property
    def weights(self) -> list[tuple[str, float]]:
        """Signs that count and their weights, the heaviest first."""
        found = [(name, weight) for name, weight in self.rule.weights.items() if weight > 0]
        return sorted(found, key=lambda entry: -entry[1])


def read_calibration(content: Content, *, name: str, path: Path) -> Calibration:
    """Return the calibration that a file holds.

    Args:
        content: of ``calibration.json``, with at least :data:`CALIBRATION_KEYS`.
        name: what to call it.
        path: of the file, for the message.

    Raises:
        InputError: an entry is missing, or another than ``calibrate`` writes.
    """
    try:
        steps = sorted(map(_step, content["curve"]), key=lambda step: step.coverage)
        if not steps:
            raise ValueError("a curve without a step")
        return Calibration(
            name=name,
            rule=AcceptanceRule.from_json(content["rule"]),
            statement=str(content["statement"]),
            before=_delivery(content["before"]),
            after=_delivery(content["after"]),
            steps=tuple(steps),
            content=content,
        )
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as cause:
        raise InputError(
            f"cannot use {path}",
            expected=f"a file written by '{_COMMAND}'",
            found=f"no {cause.args[0]} in it" if isinstance(cause, KeyError) else str(cause),
            fix=f"Run '{_COMMAND}' again.",
        ) from cause


def _delivery(entry: Content) -> Delivery:
    return Delivery(
        accepted_share=float(entry["accepted_share"]),
        harmed={
            "mean": float(entry["harmed_share"]),
            "low": float(entry["harmed_low"]),
            "high": float(entry["harmed_high"]),
        },
        gain=float(entry["gain"]),
        num_images=int(entry["images"]),
        num_patients=int(entry["patients"]),
    )


def _step(entry: Content) -> Step:
    threshold, p_value = entry["threshold"], entry.get("p_value")
    ends: dict[object, float] = {None: -math.inf, "none": math.inf}
    return Step(
        threshold=ends[threshold] if threshold in ends else float(threshold),
        coverage=float(entry["coverage"]),
        harmed_share=float(entry["harmed_share"]),
        gain=float(entry["gain"]),
        p_value=None if p_value is None else float(p_value),
    )

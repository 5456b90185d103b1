"""What a run says in a few numbers and one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.wording import FEWEST_PATIENTS, counted, fixed, interval, signed


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What the stabiliser decided over the run.

    Attributes:
        num_accepted: images whose refinement was taken.
        num_rejected: images left with their coarse mask.
        reasons: why, most frequent first; an image with several lesions may count for several.
    """

    num_accepted: int
    num_rejected: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far refinement moved the accepted masks; None where no image tells.

    Attributes:
        median_iou: median IoU of refined and coarse mask.
        median_area_change: median relative change of the area; 0.1 is 10 % larger.
    """

    median_iou: float | None
    median_area_change: float | None


def count_decisions(cases: Sequence[ReportCase]) -> Decisions:
    """Count accepted and rejected images, and the reasons of the rejected.

    Cases of which no run tells the decision, as where only an evaluation is known, do not count.
    """
    cases = [case for case in cases if "accepted" in case.row]
    rejected = [case for case in cases if not case.accepted]
    reasons = Counter(part for case in rejected for part in case.reason.split("; "))
    return Decisions(
        num_accepted=len(cases) - len(rejected),
        num_rejected=len(rejected),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def measure_agreement(cases: Sequence[ReportCase]) -> Agreement:
    """Take medians over the accepted cases."""
    accepted = [case for case in cases if case.accepted]
    ratio = _median(case.area_ratio for case in accepted)
    return Agreement(
        median_iou=_median(case.number("iou_with_coarse") for case in accepted),
        median_area_change=None if ratio is None else ratio - 1,
    )


def gain_sentence(evaluation: Mapping[str, Any]) -> str:
    """Say what refinement did to the mean DSC, no more than the interval supports."""
    gain = evaluation["paired"]["differences"]["dsc"]
    sample = (
        f"{counted(evaluation['num_images'], 'image')} "
        f"of {counted(evaluation['num_patients'], 'patient')}"
    )
    if evaluation["num_patients"] < FEWEST_PATIENTS:
        return (
            f"The mean change of DSC is {signed(gain['mean'])} over {sample}, "
            "too few patients to tell it from chance."
        )
    if gain["low"] <= 0 <= gain["high"]:
        return (
            f"The 95 % interval of the mean change ({interval(gain, sign=True)}) includes zero: "
            f"whether refinement helps or harms on average stays open after these {sample}."
        )
    verb = "raised" if gain["mean"] > 0 else "lowered"
    low, high = sorted(abs(gain[end]) for end in ("low", "high"))
    return (
        f"Refinement {verb} the mean DSC by {fixed(abs(gain['mean']))} "
        f"(95 % interval {fixed(low)} to {fixed(high)}) over {sample}."
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None

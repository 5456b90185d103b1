"""Whether what a calibrated rule promises can hold for the images of a run."""

from __future__ import annotations

from collections.abc import Sequence

from ultrarefiner.refine.acceptance import MASKS, NETWORK, AcceptanceRule
from ultrarefiner.statistics.drift import score_drift

DRIFT_LEVEL = 0.01
"""p-value below which scores count as different."""

_WORDS = {NETWORK: "masks of the checkpoint's own network", MASKS: "given masks"}


def doubts(rule: AcceptanceRule, scores: Sequence[float], *, source: str, bf16: bool) -> list[str]:
    """Return why the guarantee does not hold, or may not; nothing of it if there is no sign.

    Args:
        rule: that was used.
        scores: of the images, in any order.
        source: where their coarse masks come from, one of
            :data:`~ultrarefiner.refine.acceptance.SOURCES`.
        bf16: whether they were refined in bfloat16.
    """
    found = []
    if source != rule.source:
        found.append(
            f"calibrated on {_WORDS[rule.source]}, used on {_WORDS[source]}: "
            "the guarantee does not hold for these images"
        )
    if bf16 != rule.bf16:
        found.append(
            f"calibrated in {_precision(rule.bf16)}, used in {_precision(bf16)}: scores differ a "
            "little, and the guarantee holds only nearly"
        )
    drift = score_drift(scores, rule.scores)
    if drift.p_value < DRIFT_LEVEL:  # NaN, so never, for too few images to test
        found.append(
            f"scores differ from those of the calibration (p = {drift.p_value:.1g}, {drift.num} "
            "images): the guarantee may not hold for these images"
        )
    return found


def _precision(bf16: bool) -> str:
    return "bfloat16" if bf16 else "float32"

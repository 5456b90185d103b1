"""The threshold of a score: as many images accepted as can be, of which few enough are made worse.

Thresholds are tried from the strictest on, which accepts nothing. A looser one accepts the images
of a stricter one and more, so no patient's share of harmed images ever falls on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.statistics import (
    conformal_risk_control,
    estimate_columns,
    learn_then_test,
    p_value,
    wilson_interval,
)
from ultrarefiner.statistics.clusters import cluster_sums


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A threshold and what it does to the images that it is chosen on.

    Attributes:
        threshold: least score that is accepted.
        coverage: share of the images accepted, in [0, 1].
        harmed_share: share of images made worse, averaged over patients.
        gain: mean gain in DSC over images, the coarse mask kept where refused.
        p_value: of the hypothesis that more than alpha are made worse; none where only the
            expectation is bounded.
    """

    threshold: float
    coverage: float
    harmed_share: float
    gain: float
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """All thresholds that were tried, the strictest first.

    Attributes:
        tried: from nothing accepted to everything accepted.
        chosen: position of the loosest that keeps the promise; the first, which accepts nothing,
            always does where there are enough patients.
    """

    tried: tuple[Tried, ...]
    chosen: int

    @property
    def threshold(self) -> float:
        """The threshold that was chosen."""
        return self.tried[self.chosen].threshold


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What is delivered by a rule, or without one.

    Attributes:
        images: number of images.
        patients: number of patients.
        accepted_share: of the images, in [0, 1].
        harmed_share: share of images made worse, averaged over patients.
        harmed_low: lower end of its 95 % interval.
        harmed_high: upper end.
        gain: mean gain in DSC over images.
    """

    images: int
    patients: int
    accepted_share: float
    harmed_share: float
    harmed_low: float
    harmed_high: float
    gain: float


def candidate_thresholds(scores: Sequence[float]) -> tuple[float, ...]:
    """Return thresholds between accepting nothing and accepting everything, the strictest first.

    Args:
        scores: of images: each is a threshold. Of those that it is chosen on none is left out, and
            nothing more can happen between them: so all real numbers are tried, in falling order.

    Example:
        >>> candidate_thresholds([-0.5, 0.0, -0.5])
        (inf, 0.0, -0.5, -inf)
    """
    return (math.inf, *sorted(set(scores), reverse=True), -math.inf)


def search_threshold(
    outcomes: Sequence[Outcome],
    scores: Sequence[float],
    thresholds: Sequence[float],
    *,
    promise: Promise,
) -> Search:
    """Return the loosest threshold that keeps a promise, and all that were tried.

    Args:
        outcomes: of the images to choose it on; the score was not learned on them.
        scores: of these images.
        thresholds: from strict to loose, the first accepts nothing; settled beforehand, or all
            scores.
        promise: what is to be kept.

    Raises:
        InputError: there are too few patients.
    """
    accepted = np.asarray(scores)[None] >= np.asarray(thresholds)[:, None]
    losses = patient_losses(outcomes, accepted, promise.delta)
    promise.check_patients(losses.shape[1], learn_share=0.0)
    are_binary = losses.shape[1] == len(outcomes)  # one image a patient
    if promise.is_expected_only:
        chosen = conformal_risk_control(losses, promise.alpha)
    else:
        chosen = learn_then_test(losses, promise.alpha, promise.eta, are_binary=are_binary)
    assert chosen is not None  # without any loss, there are enough patients
    gains = np.array([outcome.gain for outcome in outcomes])
    tried = tuple(
        Tried(
            threshold=float(threshold),
            coverage=float(taken.mean()),
            harmed_share=float(shares.mean()),
            gain=float((gains * taken).mean()),
            p_value=None
            if promise.is_expected_only
            else p_value(shares, promise.alpha, are_binary=are_binary),
        )
        for threshold, taken, shares in zip(thresholds, accepted, losses, strict=True)
    )
    return Search(tried=tried, chosen=chosen)


def patient_losses(
    outcomes: Sequence[Outcome], accepted: Bool[np.ndarray, "T N"], delta: float
) -> Float64[np.ndarray, "T P"]:
    """Return each patient's share of images that are accepted and made worse.

    Args:
        outcomes: one per image.
        accepted: whether each image is, one row per threshold.
        delta: fall of the DSC from which on an image counts as made worse.

    Returns:
        One column per patient, in the sorted order of their names.
    """
    harmed = np.array([outcome.is_harmed(delta) for outcome in outcomes])
    patients = np.array([outcome.patient for outcome in outcomes])
    sums, counts = cluster_sums((accepted & harmed).T.astype(np.float64), patients)
    shares: Float64[np.ndarray, "T P"] = (sums / counts).T
    return shares


def deliver(
    outcomes: Sequence[Outcome],
    accepted: Bool[np.ndarray, " N"],
    *,
    delta: float,
    seed: int = 0,
) -> Delivery:
    """Return what comes of accepting some images and keeping the coarse masks of the others.

    The interval is the BCa interval of a bootstrap over patients; where no patient, or every one,
    has only harmed images it is Wilson's, which does not collapse to a point.

    Args:
        outcomes: one per image.
        accepted: whether each image is.
        delta: fall of the DSC from which on an image counts as made worse.
        seed: of the bootstrap.
    """
    losses = patient_losses(outcomes, accepted[None], delta)[0]
    mean, num = float(losses.mean()), len(losses)
    if 0 < mean < 1:
        found = estimate_columns(losses[:, None], np.arange(num), ["harmed"], seed=seed)["harmed"]
        low, high = found.low, found.high
    else:
        low, high = wilson_interval(num if mean else 0, num)
    gains = np.array([outcome.gain for outcome in outcomes])
    return Delivery(
        images=len(outcomes),
        patients=num,
        accepted_share=float(accepted.mean()),
        harmed_share=mean,
        harmed_low=low,
        harmed_high=high,
        gain=float((gains * accepted).mean()),
    )

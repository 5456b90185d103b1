"""The calibrated rule: which refinements are delivered, and which coarse masks are kept.

The rule is one score of an image, minus what speaks against its worst lesion, and a threshold, both
found by ``ultrarefiner calibrate`` on patients that nothing was trained on, so that few images are
made worse. It holds for the weights and settings that it was calibrated with, and for no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ultrarefiner.errors import ConfigError

LEARN_THEN_TEST, CONFORMAL = "learn-then-test", "conformal-risk-control"
CROSS_CONFORMAL = "cross-conformal"
METHODS = (LEARN_THEN_TEST, CONFORMAL, CROSS_CONFORMAL)
"""How a threshold can be chosen: with confidence, in expectation, or across folds, an estimate."""

NETWORK, MASKS = "network", "masks"
SOURCES = (NETWORK, MASKS)
"""Where coarse masks can come from: the checkpoint's own network, or the user."""


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What speaks against one refined lesion: each at least 0, more is worse.

    Measured on the grid of the pipeline, on what the gate and the stabiliser would deliver, without
    the truth and without the image's size, so that a score made of them means the same anywhere.

    Attributes:
        moved: 1 - IoU of the final with the coarse mask.
        resized: binary logarithm of their ratio of areas, of whichever sign; an empty mask counts
            as 1 px; at most 4.
        fragmented: binary logarithm of the number of 8-connected components of the final mask;
            specks below 1 % of its area do not count; at most 4.
        doubted: 1 - predicted IoU, in [0, 1]; what is no number is doubted wholly.
        pushed: sum of |final - coarse| over the sum of the coarse probability; at most 4.
        scattered: 1 - mean IoU of the foundation model's answers with the selected mask; 0 for a
            single answer.
        undecided: mean uncertainty of the coarse map on the coarse mask; 1 where that is empty.
        strayed: 1 - IoU of the foundation model's own mask, before the gate, with the coarse mask:
            a gate can hide how wrong it is.
        unsupported: 1 - gain in boundary contrast of that mask over the coarse one, in [0, 2]: 1
            where the image prefers neither outline, more where it prefers the coarse one.
    """

    moved: float
    resized: float
    fragmented: float
    doubted: float
    pushed: float
    scattered: float
    undecided: float
    strayed: float
    unsupported: float

    def __post_init__(self) -> None:
        for name in SIGNS:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"sign {name}", expected="finite, >= 0", found=str(value))


SIGNS: tuple[str, ...] = tuple(item.name for item in fields(Signs))
"""Names of the signs, in order."""

SIGNS_VERSION = 1
"""To be raised whenever a sign, or a stage that it is measured on, changes its meaning."""

COMPLAINTS = {
    "moved": "mask moved too far",
    "resized": "area changed too much",
    "fragmented": "mask fell apart",
    "doubted": "foundation model doubts its mask",
    "pushed": "too much was changed",
    "scattered": "foundation model's answers differ",
    "undecided": "coarse mask is undecided",
    "strayed": "foundation model's mask lies elsewhere",
    "unsupported": "image does not support the new outline",
}
"""What each sign says, in a user's words."""


@dataclass(frozen=True, kw_only=True)
class AcceptanceRule:
    r"""A calibrated score and its threshold: an image is accepted if its score reaches that.

    .. math:: s = -\max_l \sum_i w_i x_{li}

    over the signs x of the lesions l of an image. The worst lesion decides for all of them. Since
    no weight is negative, a sign that grows never raises the score.

    Attributes:
        weights: w, one of at least 0 for each sign.
        threshold: least score to accept; minus infinity accepts all, infinity nothing.
        alpha: bound on the patient-averaged share of images made worse, in (0, 1).
        delta: fall of DSC from which on an image counts as made worse, in [0, 1).
        eta: 1 - confidence in the bound, in (0, 1).
        method: one of :data:`METHODS`.
        source: one of :data:`SOURCES`: the coarse masks that it was calibrated on.
        scores: of the images that the threshold was chosen on, ascending, to test for drift.
        binding: sha256 of the weights and settings that it was calibrated for.
        num_images: images that the threshold was chosen on.
        num_patients: their patients.
        bf16: whether it was calibrated in bfloat16 rather than float32.
        signs_version: :data:`SIGNS_VERSION` at the calibration; of another, its weights mean
            nothing.
    """

    weights: Mapping[str, float]
    threshold: float
    alpha: float
    delta: float
    eta: float
    method: str
    source: str
    scores: tuple[float, ...]
    binding: str
    num_images: int
    num_patients: int
    bf16: bool = False
    signs_version: int = SIGNS_VERSION

    def __post_init__(self) -> None:
        is_current = self.signs_version == SIGNS_VERSION
        _require(is_current, "signs_version", str(SIGNS_VERSION), self.signs_version)
        _require(set(self.weights) == set(SIGNS), "weights", ", ".join(SIGNS), self.weights)
        sizes = list(self.weights.values())
        _require(all(math.isfinite(w) and w >= 0 for w in sizes), "weights", "finite, >= 0", sizes)
        _require(not math.isnan(self.threshold), "threshold", "a number", self.threshold)
        for name in ("alpha", "eta"):
            _require(0 < getattr(self, name) < 1, name, "in (0, 1)", getattr(self, name))
        _require(0 <= self.delta < 1, "delta", "in [0, 1)", self.delta)
        _require(self.method in METHODS, "method", " or ".join(METHODS), self.method)
        _require(self.source in SOURCES, "source", " or ".join(SOURCES), self.source)
        is_finite = all(math.isfinite(score) for score in self.scores)
        is_sorted = is_finite and list(self.scores) == sorted(self.scores)
        _require(is_sorted, "scores", "finite, ascending", self.scores[:3])
        counts = f"{self.num_patients} patients, {self.num_images} images"
        is_possible = 1 <= self.num_patients <= self.num_images
        _require(is_possible, "counts", "1 <= patients <= images", counts)

    def score(self, lesions: Sequence[Signs]) -> float:
        """Return the score of an image from the signs of its refined lesions; 0 is the best."""
        return score_lesions(self.weights, lesions)

    def accepts(self, score: float) -> bool:
        """Return whether an image of that score is to be refined."""
        return score >= self.threshold

    def complaint(self, lesions: Sequence[Signs]) -> str:
        """Return what speaks most against the refined lesions of an image, in a user's words."""
        costs = [_costs(self.weights, signs) for signs in lesions]
        worst = max(costs, key=sum, default=[0.0])
        greatest = max(worst)
        return COMPLAINTS[SIGNS[worst.index(greatest)]] if greatest > 0 else "nothing is trusted"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: null for a threshold that accepts all, "none" for nothing."""
        stored = {item.name: getattr(self, item.name) for item in fields(self)}
        stored["weights"] = {name: self.weights[name] for name in SIGNS}
        stored["scores"] = list(self.scores)
        if math.isinf(self.threshold):
            stored["threshold"] = "none" if self.threshold > 0 else None
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> AcceptanceRule:
        """Return the rule that :meth:`to_json` stored.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        names = {item.name for item in fields(cls)}
        if stored.keys() != names:
            different = ", ".join(sorted(stored.keys() ^ names))
            raise ConfigError("acceptance rule", expected=", ".join(sorted(names)), found=different)
        ends = {None: -math.inf, "none": math.inf}
        threshold = ends.get(stored["threshold"], stored["threshold"])
        return cls(**{**stored, "threshold": threshold, "scores": tuple(stored["scores"])})


def score_lesions(weights: Mapping[str, float], lesions: Sequence[Signs]) -> float:
    """Return the score of an image; see :class:`AcceptanceRule`.

    Args:
        weights: one of at least 0 for each sign.
        lesions: signs of the lesions that were refined; without any, the score is 0.
    """
    return 0.0 - max((sum(_costs(weights, signs)) for signs in lesions), default=0.0)


def _costs(weights: Mapping[str, float], signs: Signs) -> list[float]:
    return [weights[name] * getattr(signs, name) for name in SIGNS]


def _require(ok: bool, name: str, expected: str, found: object) -> None:
    if not ok:
        raise ConfigError(f"acceptance rule: {name}", expected=expected, found=str(found))

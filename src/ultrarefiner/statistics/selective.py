r"""How the risk falls when the least trusted images are left out: selective prediction.

Images enter by falling score; at coverage c the risk is the mean loss of those that are in. The
area under that curve sums a score up, and its excess over the best order there could be says how
much is left to gain by a better score.

.. math:: A = \int_0^1 R(c) \, dc, \qquad R(c) = \frac1c \int_0^c \ell(u) \, du

with :math:`\ell(u)` the loss of the image that enters at coverage u. Images of equal score enter
together, in equal parts: this averages over all orders of theirs.

Reference:
    Geifman et al., Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019,
    https://arxiv.org/abs/1805.08206. What we changed: the area is an integral, so that ties and
    patients of several images have one exact answer; theirs is the sum at the N images, which
    tends to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Risk against coverage, one point for each different score, the highest first.

    Attributes:
        coverage: share of the images in, ascending to 1.
        risk: their mean loss.
        area: under the curve from 0 to 1: the mean risk over all coverages.
        excess_area: how far the area is above that of the best order, at least 0.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    excess_area: float


def risk_coverage(
    scores: Float64[np.ndarray, " N"],
    losses: Float64[np.ndarray, " N"],
    patients: Sequence[str] | Shaped[np.ndarray, " N"] | None = None,
) -> RiskCoverage:
    """Return the risk-coverage curve of a score.

    Args:
        scores: of images, more is more trusted.
        losses: of the same images, such as 1 where refinement made it worse.
        patients: whose image each is, to count each patient once however many images there are;
            None counts each image once.

    Returns:
        The curve and its area, in the unit of the losses.

    Raises:
        InputError: there is no image, a number is missing, or the numbers of items differ.

    Example:
        >>> curve = risk_coverage(np.array([3.0, 2.0, 2.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
        >>> curve.coverage, curve.risk[1]
        ((0.25, 0.75, 1.0), 0.3333333333333333)
    """
    names = np.arange(len(scores)) if patients is None else np.asarray(patients)
    _check(scores, losses, names)
    _, owner, num_images = np.unique(names, return_inverse=True, return_counts=True)
    shares = 1 / (num_images[owner] * len(num_images))
    coverage, lost, area = _curve(scores, losses, shares)
    best = _curve(-losses, losses, shares)[2]
    return RiskCoverage(
        coverage=tuple(coverage.tolist()),
        risk=tuple((lost / coverage).tolist()),
        area=area,
        excess_area=max(0.0, area - best),  # a rounding error below
    )


def _curve(
    scores: Float64[np.ndarray, " N"],
    losses: Float64[np.ndarray, " N"],
    shares: Float64[np.ndarray, " N"],
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"], float]:
    r"""Return coverage, sum of losses, and the area, where images of one score enter together.

    While a group of share m and mean loss q enters at coverage a, with the loss s in,
    :math:`\int_0^m \frac{s + q x}{a + x} dx = q m + (s - q a) \ln \frac{a + m}{a}`.
    """
    _, group = np.unique(-scores, return_inverse=True)
    share = np.bincount(group, weights=shares)
    lost = np.bincount(group, weights=shares * losses)
    coverage, total = np.cumsum(share), np.cumsum(lost)
    before = coverage[:-1]
    bend = total[:-1] - lost[1:] / share[1:] * before
    area = total[-1] + (bend * np.log1p(share[1:] / before)).sum()
    coverage[-1] = 1.0  # a rounding error beside
    return coverage, total, float(area)


def _check(
    scores: Float64[np.ndarray, " N"],
    losses: Float64[np.ndarray, " N"],
    names: Shaped[np.ndarray, " N"],
) -> None:
    """Refuse what has no curve."""
    if not len(scores) == len(losses) == len(names) or not len(scores):
        raise InputError(
            "risk and coverage",
            expected="a score, a loss and a patient for each of one or more images",
            found=f"{len(scores)} scores, {len(losses)} losses, {len(names)} patients",
        )
    for name, values in (("scores", scores), ("losses", losses)):
        if not np.isfinite(values).all():
            raise InputError(name, expected="finite numbers", found="others among them")

"""Tests of paired differences by rank and by sign, and the size of the effect.

They take differences as independent: on images that holds only for one image per patient, so give
them patient means too and report both. The test that respects patients by itself is
:func:`~ultrarefiner.statistics.sign_flip_test`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.special import bdtr, ndtr

from ultrarefiner.statistics.clusters import cluster_sums

_MAX_EXACT = 50  # changed pairs up to which the distribution of the rank sum is counted out
_ROUNDING = 1e-12  # patient means that differ by less than this share of the largest are equal


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two-sided p-value of a paired test, and its effect in [-1, 1] (see the test)."""

    p: float
    effect: float


def signed_rank_test(differences: Float64[np.ndarray, " N"]) -> PairedTest:
    r"""Return Wilcoxon's signed-rank test, with the matched-pairs rank-biserial correlation.

    .. math:: r = \frac{R_+ - R_-}{R_+ + R_-}, \qquad R_\pm = \sum_{\pm d_i > 0} \mathrm{rank} |d_i|

    Unchanged pairs take part in the ranking and then lose their ranks (Pratt,
    https://doi.org/10.1080/01621459.1959.10501526): many are unchanged here, where a refinement was
    refused, and dropped beforehand they could make a result more significant. Ties have mean ranks.
    Up to 50 changed pairs the p-value is exact, given the ranks; above, it is that of the normal
    distribution with the variance of these ranks, without continuity correction.

    Args:
        differences: method minus reference, one per pair; NaN where a pair is missing.

    Returns:
        The p-value, and r: 1 when every change is upwards, -1 when every one is downwards. Without
        any change p = 1 and r = 0; without any pair both are NaN.

    Example:
        >>> signed_rank_test(np.array([0.1, 0.2, -0.3, 0.4, 0.0]))
        PairedTest(p=0.5, effect=0.42857142857142855)
    """
    there = differences[~np.isnan(differences)]
    if not there.size:
        return PairedTest(p=math.nan, effect=math.nan)
    ranks = _mid_ranks(np.abs(there))
    up = float(ranks[there > 0].sum())
    down = float(ranks[there < 0].sum())
    if up + down == 0:
        return PairedTest(p=1.0, effect=0.0)
    return PairedTest(p=_rank_sum_p(ranks[there != 0], up), effect=(up - down) / (up + down))


def sign_test(differences: Float64[np.ndarray, " N"]) -> PairedTest:
    r"""Return the exact sign test: are changes upwards as frequent as changes downwards?

    .. math:: p = \min\big(1, 2 P(X \le \min(n_+, n_-))\big), \qquad
              X \sim \mathrm{Binomial}(n_+ + n_-, \tfrac12)

    Args:
        differences: method minus reference, one per pair; NaN where a pair is missing.

    Returns:
        The p-value, and the share of upward minus the share of downward changes among the changed
        pairs. Without any change p = 1 and the effect is 0; without any pair both are NaN.

    Example:
        >>> sign_test(np.array([0.1, 0.2, 0.3, -0.1, 0.0]))
        PairedTest(p=0.625, effect=0.5)
    """
    if np.isnan(differences).all():
        return PairedTest(p=math.nan, effect=math.nan)
    up = int(np.count_nonzero(differences > 0))
    down = int(np.count_nonzero(differences < 0))
    if up + down == 0:
        return PairedTest(p=1.0, effect=0.0)
    p = min(1.0, 2 * float(bdtr(min(up, down), up + down, 0.5)))
    return PairedTest(p=p, effect=(up - down) / (up + down))


def standardised_mean(
    differences: Float64[np.ndarray, " N"], clusters: Shaped[np.ndarray, " N"]
) -> float:
    r"""Return Cohen's d_z of patient means: their mean in units of their standard deviation.

    .. math:: d_z = \frac{\frac1C \sum_c \bar d_c}{\sqrt{\frac1{C-1} \sum_c (\bar d_c - \bar d)^2}}

    Args:
        differences: method minus reference, one per image; NaN where a pair is missing.
        clusters: the patient of each image.

    Returns:
        d_z; 0 when all patient means are zero. NaN where there is no such thing: of one patient, or
        of patients who all changed by the same amount.

    Raises:
        InputError: see :func:`~ultrarefiner.statistics.clusters.cluster_sums`.

    Example:
        >>> standardised_mean(np.array([1.0, 3.0, 4.0]), np.array([*"aab"]))
        2.1213203435596424
    """
    sums, counts = cluster_sums(differences[:, None], clusters)
    means = sums / counts
    if means.size and not means.any():
        return 0.0
    if len(means) < 2 or np.ptp(means) <= _ROUNDING * np.abs(means).max():
        return math.nan
    return float(means.mean() / means.std(ddof=1))


def _mid_ranks(values: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, place, num = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64[np.ndarray, " N"] = (np.cumsum(num) - (num - 1) / 2)[place]
    return ranks


def _rank_sum_p(ranks: Float64[np.ndarray, " N"], up: float) -> float:
    """Return how probable a rank sum as far from its mean is when every sign is a fair coin."""
    mean = ranks.sum() / 2
    if len(ranks) > _MAX_EXACT:
        z = abs(up - mean) / math.sqrt((ranks**2).sum() / 4)
        return float(2 * ndtr(-z))
    doubled = np.rint(2 * ranks).astype(np.int64)  # mean ranks end in .0 or .5
    num_ways = np.zeros(doubled.sum() + 1)
    num_ways[0] = 1.0
    for rank in doubled:
        num_ways[rank:] = num_ways[rank:] + num_ways[:-rank]
    far = round(2 * max(up, 2 * mean - up))
    return min(1.0, float(2 * num_ways[far:].sum() / num_ways.sum()))

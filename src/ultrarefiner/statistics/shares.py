"""Shares of images, with an interval over images and one over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from ultrarefiner.errors import InputError
from ultrarefiner.statistics.bca import bca_interval
from ultrarefiner.statistics.bootstrap import clustered_bootstrap

_Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share of images with its 95 % intervals.

    ``low`` and ``high`` are Wilson's, which takes images as independent; ``clustered_low`` and
    ``clustered_high`` respect patients.
    """

    num: int
    share: float
    low: float
    high: float
    clustered_low: float
    clustered_high: float


def wilson_interval(num: int, num_total: int) -> tuple[float, float]:
    r"""Return the 95 % score interval of Wilson, https://doi.org/10.1080/01621459.1927.10502953.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    It stays open at 0 and 1, where a bootstrap collapses to a point.

    Args:
        num: number of images that have the property.
        num_total: number of images, at least 1.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        InputError: the two are not the parts of a share.

    Example:
        >>> [round(end, 4) for end in wilson_interval(0, 10)]
        [0.0, 0.2775]
    """
    if not 0 <= num <= num_total or num_total == 0:
        raise InputError(
            "this is no share",
            expected="0 <= num <= num_total, of one or more",
            found=f"{num} of {num_total}",
        )
    share, z2 = num / num_total, _Z_95**2 / num_total
    centre = share + z2 / 2
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def share_of(
    holds: Bool[np.ndarray, " N"], clusters: Shaped[np.ndarray, " N"], *, seed: int = 0
) -> Share:
    """Return the share of images for which a statement holds.

    The interval over patients is the BCa interval of the bootstrap. Where the statement holds for
    all images or for none, every resample says the same; then it is Wilson's with one trial per
    patient, as if all images of a patient had to agree.

    Args:
        holds: whether the statement holds, one per image, at least one.
        clusters: the patient of each image.
        seed: seed of the bootstrap.

    Returns:
        The share and its intervals, in [0, 1].

    Raises:
        InputError: there is no image, or there is not one cluster per image.

    Example:
        >>> share = share_of(np.zeros(10, dtype=bool), np.arange(10) // 2)
        >>> share.num, round(share.high, 4), round(share.clustered_high, 4)
        (0, 0.2775, 0.4345)
    """
    num = int(np.count_nonzero(holds))
    low, high = wilson_interval(num, len(holds))
    values = holds.astype(np.float64)[:, None]
    rng = np.random.default_rng(seed)
    resamples = clustered_bootstrap(values, clusters, rng)
    if 0 < num < len(holds):
        ends_low, ends_high = bca_interval(values, clusters, resamples)
        clustered = float(ends_low[0]), float(ends_high[0])
    else:
        num_clusters = len(np.unique(clusters))
        clustered = wilson_interval(num_clusters if num else 0, num_clusters)
    return Share(
        num=num,
        share=num / len(holds),
        low=low,
        high=high,
        clustered_low=clustered[0],
        clustered_high=clustered[1],
    )

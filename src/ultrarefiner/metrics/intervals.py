"""Intervals that respect patients, and shares with an interval of their own.

Images of one patient are alike, so the bootstrap draws patients, not images (the cluster bootstrap
of Field and Welsh, https://doi.org/10.1111/j.1467-9868.2007.00593.x). Shares have the interval of
Wilson, https://doi.org/10.1080/01621459.1927.10502953, which treats images as independent and
stays open at 0 and 1, where a bootstrap collapses to a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

_Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over images with its 95 % clustered-bootstrap interval, and the median."""

    mean: float
    low: float
    high: float
    median: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share of images with its 95 % Wilson interval."""

    num: int
    share: float
    low: float
    high: float


def clustered_bootstrap(
    values: Float64[np.ndarray, "N M"],
    clusters: Shaped[np.ndarray, " N"],
    rng: np.random.Generator,
    num_resamples: int = 2000,
) -> Float64[np.ndarray, "R M"]:
    r"""Return column means of resamples that draw whole clusters with replacement.

    .. math:: \bar x^*_r = \frac{\sum_c w_{rc} \sum_{i \in c} x_i}{\sum_c w_{rc} n_c}, \qquad
              w_r \sim \mathrm{Multinomial}(C; 1/C, \dots, 1/C)

    All columns share their draws, so that differences of columns stay paired.

    Args:
        values: one row per image, at least one.
        clusters: the cluster of each row.
        rng: source of the draws.
        num_resamples: number of resamples R, at least 1.

    Returns:
        One row of means per resample, in the unit of the values.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> means = clustered_bootstrap(np.array([[1.0], [3.0]]), np.array(["a", "b"]), rng)
        >>> np.unique(means)
        array([1., 2., 3.])
    """
    _, cluster, num_rows = np.unique(clusters, return_inverse=True, return_counts=True)
    num = len(num_rows)
    sums = np.zeros((num, values.shape[1]))
    np.add.at(sums, cluster, values)
    drawn = rng.integers(num, size=(num_resamples, num)) + num * np.arange(num_resamples)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=num_resamples * num).reshape(-1, num)
    return (weights @ sums) / (weights @ num_rows)[:, None]


def wilson_interval(num: int, num_total: int) -> tuple[float, float]:
    r"""Return the 95 % Wilson score interval of a share.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        num: number of images that have the property.
        num_total: number of images, at least 1.

    Returns:
        Lower and upper end, in [0, 1].

    Example:
        >>> [round(end, 4) for end in wilson_interval(0, 10)]
        [0.0, 0.2775]
    """
    share, z2 = num / num_total, _Z_95**2 / num_total
    centre = share + z2 / 2
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def share_of(holds: Shaped[np.ndarray, "N 1"]) -> Share:
    """Return the share of images for which a statement holds."""
    num = int(np.count_nonzero(holds))
    low, high = wilson_interval(num, len(holds))
    return Share(num=num, share=num / len(holds), low=low, high=high)


def estimate_columns(
    values: Float64[np.ndarray, "N M"],
    patients: Shaped[np.ndarray, " N"],
    names: Sequence[str],
    seed: int,
) -> dict[str, Estimate]:
    """Return the estimate of each column, by name."""
    low, high = central_interval(clustered_bootstrap(values, patients, np.random.default_rng(seed)))
    rows = np.stack([values.mean(axis=0), low, high, np.median(values, axis=0)], axis=1).tolist()
    return {
        name: Estimate(mean=mean, low=low, high=high, median=median)
        for name, (mean, low, high, median) in zip(names, rows, strict=True)
    }


def central_interval(
    means: Float64[np.ndarray, "R M"],
) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
    """Return the central 95 % of each column."""
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high

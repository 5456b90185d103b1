"""Resamples that draw patients, not images.

Images of one patient are alike, so the bootstrap draws whole patients: the cluster bootstrap of
Field and Welsh, https://doi.org/10.1111/j.1467-9868.2007.00593.x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.statistics.clusters import cluster_sums, ratio


def clustered_bootstrap(
    values: Float64[np.ndarray, "N M"],
    clusters: Shaped[np.ndarray, " N"],
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
) -> Float64[np.ndarray, "R M"]:
    r"""Return column means of resamples that draw whole clusters with replacement.

    .. math:: \bar x^*_r = \frac{\sum_c w_{rc} \sum_{i \in c} x_i}{\sum_c w_{rc} n_c}, \qquad
              w_r \sim \mathrm{Multinomial}(C; 1/C, \dots, 1/C)

    All columns share their draws, so that differences of columns stay paired.

    Args:
        values: one row per image; NaN where a value is missing: it counts in no sum.
        clusters: the cluster of each row.
        rng: source of the draws.
        num_resamples: number of resamples R, at least 1.

    Returns:
        One row of means per resample, in the unit of the values; NaN where a resample has drawn no
        value of a column.

    Raises:
        InputError: see :func:`~ultrarefiner.statistics.clusters.cluster_sums`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> means = clustered_bootstrap(np.array([[1.0], [3.0]]), np.array(["a", "b"]), rng)
        >>> np.unique(means)
        array([1., 2., 3.])
    """
    sums, counts = cluster_sums(values, clusters)
    weights = _draw(len(sums), rng, num_resamples=num_resamples)
    return ratio(weights @ sums, weights @ counts)


def _draw(
    num_clusters: int, rng: np.random.Generator, *, num_resamples: int
) -> Float64[np.ndarray, "R C"]:
    """Return how often each resample draws each cluster; a row sums to the number of clusters."""
    shape = (num_resamples, num_clusters)
    if num_clusters == 0:
        return np.zeros(shape)
    drawn = rng.integers(num_clusters, size=shape)
    drawn += num_clusters * np.arange(num_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(shape).astype(np.float64)

"""Means over images with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.statistics.bca import bca_interval
from ultrarefiner.statistics.bootstrap import clustered_bootstrap
from ultrarefiner.statistics.clusters import column_means


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over images with its 95 % BCa interval over patients, and the median over images."""

    mean: float
    low: float
    high: float
    median: float


def estimate_columns(
    values: Float64[np.ndarray, "N M"],
    clusters: Shaped[np.ndarray, " N"],
    names: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Estimate]:
    """Return the estimate of each column by name; a column without any value is left out.

    Args:
        values: one row per image, one column per name; NaN where a value is missing.
        clusters: the patient of each row.
        names: names of the columns.
        seed: seed of the bootstrap.
        num_resamples: number of resamples.

    Returns:
        Estimates in the unit of their column.

    Raises:
        InputError: see :func:`~ultrarefiner.statistics.clusters.cluster_sums`.

    Example:
        >>> values = np.array([[0.7], [0.8], [0.9]])
        >>> estimate_columns(values, np.array([1, 1, 2]), ["dsc"])["dsc"].median
        0.8
    """
    rng = np.random.default_rng(seed)
    resamples = clustered_bootstrap(values, clusters, rng, num_resamples=num_resamples)
    low, high = bca_interval(values, clusters, resamples)
    means = column_means(values)
    return {
        name: Estimate(
            mean=float(means[column]),
            low=float(low[column]),
            high=float(high[column]),
            median=float(np.nanmedian(values[:, column])),
        )
        for column, name in enumerate(names)
        if not np.isnan(means[column])
    }

"""Images grouped by patient: what every operator of this room starts from.

A cluster is whatever rows share: a patient, when rows are images. NaN means "not there": such a
value is left out of sums and counts, and never becomes a zero.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from ultrarefiner.errors import InputError


def cluster_sums(
    values: Float64[np.ndarray, "N M"], clusters: Shaped[np.ndarray, " N"]
) -> tuple[Float64[np.ndarray, "C M"], Float64[np.ndarray, "C M"]]:
    r"""Return the sum and the number of each column's values in each cluster.

    Rows without any value are as if absent, so that a cluster of such rows alone is none.

    Args:
        values: one row per image; NaN where a value is missing.
        clusters: the cluster of each row.

    Returns:
        Sums and counts, one row per cluster in the sorted order of the clusters.

    Raises:
        InputError: a value is infinite, or there is not one cluster per row.

    Example:
        >>> sums, counts = cluster_sums(np.array([[1.0], [3.0], [np.nan]]), np.array([*"aab"]))
        >>> sums.tolist(), counts.tolist()
        ([[4.0]], [[2.0]])
    """
    _check(values, clusters)
    there = ~np.isnan(values)
    rows = there.any(axis=1)
    names, cluster = np.unique(clusters[rows], return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, cluster, np.where(there, values, 0.0)[rows])
    np.add.at(counts, cluster, there[rows])
    return sums, counts


def drop_missing(
    differences: Float64[np.ndarray, " N"], clusters: Shaped[np.ndarray, " N"]
) -> tuple[Float64[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
    """Return the differences that are there, each with the number of its cluster from 0.

    Args:
        differences: one per pair; NaN where the pair is missing.
        clusters: the cluster of each pair.

    Returns:
        The differences without NaN, and cluster numbers in the sorted order of the clusters.

    Raises:
        InputError: a difference is infinite, or there is not one cluster per difference.
    """
    _check(differences, clusters)
    there = ~np.isnan(differences)
    return differences[there], np.unique(clusters[there], return_inverse=True)[1].astype(np.int64)


def column_means(values: Float64[np.ndarray, "N M"]) -> Float64[np.ndarray, " M"]:
    """Return the mean of each column's values, NaN where it has none."""
    counts = np.count_nonzero(~np.isnan(values), axis=0).astype(np.float64)
    return ratio(np.nansum(values, axis=0), counts)


def ratio(
    sums: Float64[np.ndarray, "*shape"], counts: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Return means, NaN where nothing was counted."""
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _check(values: Float64[np.ndarray, "N *M"], clusters: Shaped[np.ndarray, " N"]) -> None:
    """Refuse what has no mean."""
    if len(values) != len(clusters):
        raise InputError(
            "values and clusters do not match",
            expected=f"{len(values)} clusters, one per row",
            found=f"{len(clusters)}",
        )
    if np.isinf(values).any():
        raise InputError(
            "a value is infinite",
            expected="finite numbers, and NaN for what is not there",
            fix="Evaluate with a policy that says what an empty mask gives.",
        )

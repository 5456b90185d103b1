"""The mean difference with a random intercept per patient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy.special import stdtr, stdtrit

from ultrarefiner.statistics.clusters import cluster_sums, drop_missing

_NUM_TRIED = 41  # correlations tried at a time
_NUM_ZOOMS = 9  # each narrows the search 20-fold, together to about 1e-12
_AGREE = 1e-6  # scatter within patients, in units of that between, below which images agree


@dataclass(frozen=True, kw_only=True)
class MixedModel:
    """Mean difference with its 95 % interval, p-value, and intraclass correlation."""

    mean: float
    low: float
    high: float
    p: float
    icc: float


def random_intercept(
    differences: Float64[np.ndarray, " N"], clusters: Shaped[np.ndarray, " N"]
) -> MixedModel:
    r"""Return the mean difference of a random-intercept model, fitted by REML.

    .. math:: d_{ij} = \mu + u_i + e_{ij}, \qquad u_i \sim N(0, \rho \sigma^2), \quad
              e_{ij} \sim N(0, (1 - \rho) \sigma^2)

    Given the intraclass correlation :math:`\rho` everything has a closed form, so the restricted
    likelihood is searched over :math:`\rho \in [0, 1)` alone; a model whose intercepts do not vary
    ends at 0, where it is the one-sample t-test. The mean weighs patients between equally and by
    their number of images, as :math:`\rho` says, so it may differ a little from the mean over
    images.

    Args:
        differences: method minus reference, one per image; NaN where a pair is missing.
        clusters: the patient of each image.

    Returns:
        The fit. Interval and p-value are those of Student's t with (patients - 1) degrees of
        freedom: with equally many images per patient, and a correlation above 0, the t-test of
        patient means. When every patient has one image the correlation cannot be seen and is given
        as 0. All-zero differences give p = 1. With fewer than two patients there is neither
        interval, p-value nor correlation: they are NaN.

    Raises:
        InputError: see :func:`~ultrarefiner.statistics.clusters.cluster_sums`.

    Example:
        >>> fit = random_intercept(np.array([1.0, 2.0, 4.0, 5.0]), np.array([*"aabb"]))
        >>> fit.mean, round(fit.p, 4), round(fit.icc, 4)
        (3.0, 0.2952, 0.8947)
    """
    there, cluster = drop_missing(differences, clusters)
    num_clusters = len(np.unique(cluster))
    if num_clusters < 2:
        mean = float(there.mean()) if there.size else math.nan
        return MixedModel(mean=mean, low=math.nan, high=math.nan, p=math.nan, icc=math.nan)
    if np.ptp(there) == 0:
        mean = float(there[0])
        return MixedModel(mean=mean, low=mean, high=mean, p=float(mean == 0), icc=0.0)
    patients = _patients(there, cluster)
    icc = _best_icc(patients)
    # An icc of 1 is beyond the likelihood: patients then count once, as if of one image each.
    once = patients if icc < 1 else replace(patients, counts=np.ones(num_clusters), scatter=0.0)
    mean, error = (float(value[0]) for value in _fit(once, np.array([icc % 1]))[:2])
    half = float(stdtrit(num_clusters - 1, 0.975)) * error
    p = 2 * float(stdtr(num_clusters - 1, -abs(mean) / error))
    return MixedModel(mean=mean, low=mean - half, high=mean + half, p=p, icc=icc)


@dataclass(frozen=True, kw_only=True)
class _Patients:
    """All that the likelihood needs: patient means, numbers of images, scatter within patients."""

    means: Float64[np.ndarray, " C"]
    counts: Float64[np.ndarray, " C"]
    scatter: float


def _patients(
    differences: Float64[np.ndarray, " N"], clusters: Int64[np.ndarray, " N"]
) -> _Patients:
    """Return what is known of the patients, who are numbered from 0."""
    sums, counts = cluster_sums(differences[:, None], clusters)
    means = (sums / counts)[:, 0]
    scatter = float(((differences - means[clusters]) ** 2).sum())
    return _Patients(means=means, counts=counts[:, 0], scatter=scatter)


def _best_icc(patients: _Patients) -> float:
    """Return the correlation of highest restricted likelihood, by ever finer grids."""
    if (patients.counts == 1).all():
        return 0.0
    between = float((patients.counts * (patients.means - patients.means.mean()) ** 2).sum())
    if patients.scatter < _AGREE * between:
        return 1.0
    low, high, best = 0.0, 1 - _AGREE**2, 0.0
    for _ in range(_NUM_ZOOMS):
        tried = np.linspace(low, high, _NUM_TRIED)
        at = int(np.argmin(_fit(patients, tried)[2]))
        best = float(tried[at])
        low, high = float(tried[max(at - 1, 0)]), float(tried[min(at + 1, _NUM_TRIED - 1)])
    return best


def _fit(
    patients: _Patients, icc: Float64[np.ndarray, " G"]
) -> tuple[Float64[np.ndarray, " G"], Float64[np.ndarray, " G"], Float64[np.ndarray, " G"]]:
    r"""Return mean, its standard error and -2 log restricted likelihood (up to a constant).

    With :math:`w_i = n_i / (1 + (n_i - 1) \rho)` the mean is the :math:`w`-weighted mean of patient
    means, and :math:`Q = S_{within} / (1 - \rho) + \sum_i w_i (\bar d_i - \mu)^2` its scatter.
    """
    counts, rho = patients.counts, icc[:, None]
    spread = 1 + (counts - 1) * rho
    weights = counts / spread
    total = weights.sum(axis=1)
    mean = weights @ patients.means / total
    between = (weights * (patients.means - mean[:, None]) ** 2).sum(axis=1)
    free = counts.sum() - 1
    scatter = patients.scatter / (1 - icc) + between
    within = (counts.sum() - len(counts)) * np.log1p(-icc) + np.log(spread).sum(axis=1)
    deviance = free * np.log(scatter) + within + np.log(total)
    return mean, np.sqrt(scatter / free / total), deviance

"""The primary test of a paired comparison: patients whose differences change sign."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.statistics.clusters import cluster_sums

_MAX_EXACT = 14  # patients up to which all 2^C flips are tried
_ROUNDING = 1e-12  # sums this near to each other, as a share of the largest there can be, are ties


def sign_flip_test(
    differences: Float64[np.ndarray, " N"],
    clusters: Shaped[np.ndarray, " N"],
    *,
    seed: int = 0,
    num_permutations: int = 10_000,
) -> float:
    r"""Return the two-sided p-value of a permutation test on patients.

    .. math:: p = \frac{1 + \#\{m : |T(\varepsilon_m)| \ge |T(1)|\}}{1 + M}, \qquad
              T(\varepsilon) = \frac1N \sum_c \varepsilon_c \sum_{i \in c} d_i

    If the two methods are exchangeable, a patient's differences are as likely as their negatives;
    all images of a patient flip together, so that they need not be independent. Up to 14 patients
    whose differences do not cancel, all flips are tried and the p-value is exact; it is never below
    :math:`2^{1 - C}`.

    Args:
        differences: method minus reference, one per image; NaN where a pair is missing.
        clusters: the patient of each image.
        seed: seed of the flips.
        num_permutations: number of flips M drawn when there are too many to try all.

    Returns:
        The p-value in (0, 1]; 1 when all differences are zero, NaN when there is none.

    Raises:
        InputError: see :func:`~ultrarefiner.statistics.clusters.cluster_sums`.

    Example:
        >>> sign_flip_test(np.array([0.1, 0.2, 0.1, 0.3]), np.array([*"aabc"]))
        0.25
    """
    sums = cluster_sums(differences[:, None], clusters)[0][:, 0]
    if not sums.size:
        return float("nan")
    rounding = _ROUNDING * float(np.nansum(np.abs(differences)))
    sums = sums[np.abs(sums) > rounding]  # the others change nothing when they flip
    reach = abs(sums.sum()) - rounding
    if len(sums) <= _MAX_EXACT:
        flips = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(np.mean(_reaches(flips, sums, reach)))
    rng = np.random.default_rng(seed)
    flips = rng.integers(2, size=(num_permutations, len(sums)), dtype=np.int8)
    return float((1 + np.count_nonzero(_reaches(flips, sums, reach))) / (1 + num_permutations))


def _reaches(
    flips: Shaped[np.ndarray, "R C"], sums: Float64[np.ndarray, " C"], reach: float
) -> Shaped[np.ndarray, " R"]:
    """Tell which flips give a sum at least as far from zero; a patient of flip 1 is negated."""
    flipped = sums.sum() - 2.0 * (flips @ sums)
    return np.asarray(np.abs(flipped) >= reach)

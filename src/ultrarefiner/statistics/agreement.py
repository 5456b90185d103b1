"""Limits of agreement of measured and true sizes, where patients have several images.

Reference:
    Bland and Altman, Agreement between methods of measurement with multiple observations per
    individual, Journal of Biopharmaceutical Statistics 17 (2007), section 3 (the true value
    varies).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_NUM_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Between which bounds 95 % of the differences of new images are expected to lie.

    Attributes:
        bias: mean difference.
        lower: lower limit of agreement.
        upper: upper limit of agreement.
        num_images: differences used.
        num_patients: patients they are of.
    """

    bias: Bound
    lower: Bound
    upper: Bound
    num_images: int
    num_patients: int


def limits_of_agreement(
    differences: Sequence[float], patients: Sequence[str], *, seed: int = 0
) -> Limits | None:
    """Return the 95 % limits of agreement, bias ± 1.96 s.

    s² is the variance between patients plus that within them, from a one-way analysis of variance;
    with one image of each patient it is the sample variance. A negative variance between patients
    counts as zero. The intervals are 95 % percentiles of a bootstrap that draws patients. The
    differences are taken to be normal and as scattered for small lesions as for large ones.

    Args:
        differences: measured minus true; those that are NaN are left out.
        patients: whose image each is of.
        seed: seed of the bootstrap.

    Returns:
        The limits; None for fewer than two patients.

    Example:
        >>> limits = limits_of_agreement([1.0, 2.0, 3.0], ["a", "b", "c"])
        >>> f"{limits.bias.value:.2f} {limits.lower.value:.2f} {limits.upper.value:.2f}"
        '2.00 0.04 3.96'
    """
    values, owners = np.asarray(differences, dtype=np.float64), np.asarray(patients)
    values, owners = values[~np.isnan(values)], owners[~np.isnan(values)]
    names, number = np.unique(owners, return_inverse=True)
    if len(names) < 2:
        return None
    centre = values.mean()  # taken off first, so that no digits are lost in the squares
    sums = _sums_by_patient(values - centre, number)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_NUM_RESAMPLES
    )
    found = _bias_and_limits(np.ones((1, len(names))), sums)[0] + centre
    resampled = _bias_and_limits(drawn.astype(np.float64), sums) + centre
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    bias, lower, upper = (
        Bound(value=float(value), low=float(start), high=float(end))
        for value, start, end in zip(found, low, high, strict=True)
    )
    return Limits(
        bias=bias, lower=lower, upper=upper, num_images=len(values), num_patients=len(names)
    )


def _sums_by_patient(
    values: Float64[np.ndarray, "N"], number: np.ndarray
) -> Float64[np.ndarray, "P 5"]:
    """Return of each patient what the analysis of variance sums up: m, m², T, T²/m, Σd²."""
    num = np.bincount(number).astype(np.float64)
    total = np.bincount(number, weights=values)
    squares = np.bincount(number, weights=values**2)
    return np.stack([num, num**2, total, total**2 / num, squares], axis=1)


def _bias_and_limits(
    times: Float64[np.ndarray, "R P"], sums: Float64[np.ndarray, "P 5"]
) -> Float64[np.ndarray, "R 3"]:
    """Return bias and both limits when patient p is drawn ``times[:, p]`` times."""
    num_patients = sums.shape[0]
    num, num_squared, total, between, squares = (times @ sums).T
    left = num - num_patients  # degrees of freedom within patients
    within = np.divide(squares - between, left, out=np.zeros_like(num), where=left > 0)
    within = np.maximum(within, 0)  # a rounding error below
    mean_square = (between - total**2 / num) / (num_patients - 1)
    images_each = (num**2 - num_squared) / ((num_patients - 1) * num)
    variance = np.maximum((mean_square - within) / images_each, 0) + within
    bias, reach = total / num, _Z * np.sqrt(variance)
    return np.stack([bias, bias - reach, bias + reach], axis=1)

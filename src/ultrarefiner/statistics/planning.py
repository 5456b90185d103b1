"""How many patients a study of a given difference needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import nctdtr, ndtri, stdtrit

from ultrarefiner.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """Patients and images to collect, and by how much likeness within patients raises them."""

    num_patients: int
    num_images: int
    design_effect: float


def sample_size(
    effect: float,
    *,
    sd: float,
    icc: float,
    images_per_patient: float,
    power: float = 0.8,
    alpha: float = 0.05,
) -> SampleSize:
    r"""Return how many patients a two-sided paired t-test of patient means needs.

    .. math:: P\big(|t'_{C-1}(\lambda)| > t_{C-1, 1 - \alpha/2}\big) \ge 1 - \beta, \qquad
              \lambda = \frac{|\delta|}{s} \sqrt{\frac{m C}{1 + (m - 1) \rho}}

    is the smallest such C; :math:`1 + (m - 1) \rho` is the design effect: m images of one patient
    say as much as :math:`m / (1 + (m - 1) \rho)` independent ones.

    Args:
        effect: mean difference to be found, not 0.
        sd: standard deviation of the differences of images, above 0, in the unit of the effect.
        icc: intraclass correlation of a patient's differences, in [0, 1].
        images_per_patient: images of each patient m, at least 1; a mean of unequal numbers asks for
            slightly too few patients.
        power: probability of finding the effect, in (alpha, 1).
        alpha: two-sided level of the test, in (0, 1).

    Returns:
        At least two patients, and their images.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> sample_size(0.5, sd=1.0, icc=0.0, images_per_patient=1).num_patients
        34
        >>> sample_size(0.5, sd=1.0, icc=0.5, images_per_patient=2)
        SampleSize(num_patients=26, num_images=52, design_effect=1.5)
    """
    _check(effect, sd=sd, icc=icc, images_per_patient=images_per_patient, power=power, alpha=alpha)
    design_effect = 1 + (images_per_patient - 1) * icc
    effect_of_patient = abs(effect) / sd * math.sqrt(images_per_patient / design_effect)
    # With a known standard deviation as many would do; the t-test asks for a few more.
    normal = ((ndtri(1 - alpha / 2) + ndtri(power)) / effect_of_patient) ** 2
    num = max(2, math.ceil(normal))
    while _power(num, effect_of_patient, alpha) < power:
        num += 1
    return SampleSize(
        num_patients=num,
        num_images=math.ceil(num * images_per_patient),
        design_effect=design_effect,
    )


def _power(num_patients: int, effect: float, alpha: float) -> float:
    """Return the power of the two-sided one-sample t-test for a standardised effect."""
    df, shift = num_patients - 1, effect * math.sqrt(num_patients)
    critical = float(stdtrit(df, 1 - alpha / 2))
    return 1 - float(nctdtr(df, shift, critical)) + float(nctdtr(df, shift, -critical))


def _check(
    effect: float,
    *,
    sd: float,
    icc: float,
    images_per_patient: float,
    power: float,
    alpha: float,
) -> None:
    """Refuse what no number of patients answers."""
    for name, value, is_right, expected in (
        ("effect", effect, math.isfinite(effect) and effect != 0, "a difference other than 0"),
        ("sd", sd, 0 < sd < math.inf, "above 0"),
        ("icc", icc, 0 <= icc <= 1, "in [0, 1]"),
        ("images_per_patient", images_per_patient, 1 <= images_per_patient < math.inf, ">= 1"),
        ("alpha", alpha, 0 < alpha < 1, "in (0, 1)"),
        ("power", power, alpha < power < 1, "in (alpha, 1)"),
    ):
        if not is_right:
            raise ConfigError(name, expected=expected, found=f"{value}")

"""Limits of agreement against closed forms, another library and simulation."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ultrarefiner.statistics import limits_of_agreement

Z = 1.959963984540054


def grouped(seed: int, num_patients: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return differences with a patient effect, and whose they are: 1 to 4 images each."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 5, num_patients))
    effect = rng.normal(2, 3, num_patients)[patients]
    return effect + rng.normal(0, 1, len(patients)), patients.astype(str)


def half_width(limits) -> float:
    return (limits.upper.value - limits.lower.value) / 2


def test_one_image_each_is_the_sample_deviation():
    values = np.random.default_rng(0).normal(5, 2, 30)
    limits = limits_of_agreement(values, [str(i) for i in range(30)])
    assert limits.bias.value == pytest.approx(values.mean())
    assert half_width(limits) == pytest.approx(Z * values.std(ddof=1))
    assert (limits.num_images, limits.num_patients) == (30, 30)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_variance_is_that_of_an_analysis_of_variance(seed):
    values, patients = grouped(seed)
    table = anova_lm(ols("d ~ C(p)", pd.DataFrame({"d": values, "p": patients})).fit())
    (between, within), num = table["mean_sq"], np.unique(patients, return_counts=True)[1]
    each = (num.sum() ** 2 - (num**2).sum()) / ((len(num) - 1) * num.sum())
    variance = max((between - within) / each, 0) + within
    assert half_width(limits_of_agreement(values, patients)) == pytest.approx(Z * variance**0.5)


def test_alike_patients_have_no_variance_between_them():
    limits = limits_of_agreement([-1.0, 1.0, -1.0, 1.0], ["a", "a", "b", "b"])
    assert half_width(limits) == pytest.approx(Z * 2**0.5)  # 2 within, a negative between is 0


def test_constant_differences_have_no_width_and_no_rounding_noise():
    limits = limits_of_agreement([1e7 + 0.1] * 9, list("aabbccdde"))
    for bound in (limits.bias, limits.lower, limits.upper):
        assert [bound.value, bound.low, bound.high] == pytest.approx([1e7 + 0.1] * 3)


def test_differences_that_are_not_there_are_left_out():
    values, patients = grouped(3)
    more = limits_of_agreement([*values, np.nan], [*patients, "nobody"])
    assert more == limits_of_agreement(values, patients)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_too_few_patients_have_no_limits(values):
    assert limits_of_agreement(values, ["a"] * len(values)) is None


def test_intervals_hold_the_true_limits_as_often_as_they_say():
    truth = 2 + Z * 10**0.5  # variance 9 between and 1 within
    found = [limits_of_agreement(*grouped(seed, 60)).upper for seed in range(200)]
    held = np.mean([bound.low <= truth <= bound.high for bound in found])
    assert 0.88 <= held <= 0.99

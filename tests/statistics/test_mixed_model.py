"""The random-intercept model against statsmodels, analysis of variance and the t-test."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from ultrarefiner.statistics import MixedModel, random_intercept

NAN = float("nan")


def simulated(seed: int, *, icc: float, num_patients: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 6, size=num_patients))
    intercepts = rng.normal(0.0, math.sqrt(icc), num_patients)
    noise = rng.normal(0.0, math.sqrt(1 - icc), len(patients))
    return 0.3 + intercepts[patients] + noise, patients


def by_statsmodels(differences, patients) -> tuple[float, float, float]:
    """Return mean, its standard error given the variances, and the intraclass correlation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns near a correlation of 0
        fit = MixedLM(differences, np.ones((len(differences), 1)), groups=patients).fit(
            reml=True, gtol=1e-10
        )
    between, within = float(fit.cov_re[0, 0]), float(fit.scale)
    counts = np.unique(patients, return_counts=True)[1]
    error = (counts / (within + counts * between)).sum() ** -0.5
    # Its own error also carries the doubt about the variances.
    assert error == pytest.approx(float(fit.bse_fe[0]), rel=0.01)
    return float(fit.fe_params[0]), float(error), between / (between + within)


def error_of(fit: MixedModel, num_patients: int) -> float:
    return (fit.high - fit.low) / 2 / stats.t.ppf(0.975, num_patients - 1)


@pytest.mark.parametrize("icc", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_statsmodels(seed, icc):
    differences, patients = simulated(seed, icc=icc)
    mean, error, expected_icc = by_statsmodels(differences, patients)
    fit = random_intercept(differences, patients)
    assert fit.mean == pytest.approx(mean, abs=1e-5)
    assert error_of(fit, 40) == pytest.approx(error, rel=1e-4)
    assert fit.icc == pytest.approx(expected_icc, abs=1e-4)
    assert fit.p == pytest.approx(2 * stats.t.sf(abs(mean / error), 39), rel=1e-2)


def test_balanced_patients_are_the_analysis_of_variance():
    rng = np.random.default_rng(3)
    table = rng.normal(size=(30, 1)) + rng.normal(size=(30, 3))
    fit = random_intercept(table.ravel(), np.repeat(np.arange(30), 3))
    between = 3 * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    assert fit.icc == pytest.approx((between - within) / (between + 2 * within), abs=1e-6)
    oracle = stats.ttest_1samp(table.mean(axis=1), 0.0)
    assert fit.p == pytest.approx(oracle.pvalue)
    assert (fit.low, fit.high) == pytest.approx(tuple(oracle.confidence_interval()))


def test_one_image_per_patient_is_the_t_test():
    differences = np.random.default_rng(1).normal(0.2, 1.0, 25)
    oracle = stats.ttest_1samp(differences, 0.0)
    fit = random_intercept(differences, np.arange(25))
    assert (fit.mean, fit.icc) == (pytest.approx(differences.mean()), 0.0)
    assert fit.p == pytest.approx(oracle.pvalue)
    assert (fit.low, fit.high) == pytest.approx(tuple(oracle.confidence_interval()))


def test_patients_more_unlike_inside_than_between_end_at_zero():
    # Each patient has +1 and -1 about 0.1: intercepts do not vary at all.
    differences = np.tile([1.1, -0.9], 20)
    fit = random_intercept(differences, np.repeat(np.arange(20), 2))
    assert (fit.mean, fit.icc) == (pytest.approx(0.1), 0.0)
    assert error_of(fit, 20) == pytest.approx(differences.std(ddof=1) / math.sqrt(40))


def test_patients_that_agree_with_themselves_count_once():
    means = np.array([0.1, 0.4, 0.2, 0.9])
    fit = random_intercept(np.repeat(means, [1, 2, 5, 3]), np.repeat(np.arange(4), [1, 2, 5, 3]))
    assert fit.icc == pytest.approx(1.0)
    assert fit.mean == pytest.approx(means.mean())
    assert fit.p == pytest.approx(stats.ttest_1samp(means, 0.0).pvalue, rel=1e-6)


def test_equal_differences_and_too_few_patients():
    none = random_intercept(np.zeros(6), np.arange(6) // 2)
    assert dataclasses.astuple(none) == (0.0, 0.0, 0.0, 1.0, 0.0)
    equal = random_intercept(np.full(6, 0.1), np.arange(6) // 2)
    assert dataclasses.astuple(equal) == (0.1, 0.1, 0.1, 0.0, 0.0)
    one = random_intercept(np.array([0.2, 0.4, NAN]), np.array([1, 1, 2]))
    assert one.mean == pytest.approx(0.3)
    assert all(map(math.isnan, (one.low, one.high, one.p, one.icc)))
    assert all(map(math.isnan, dataclasses.astuple(random_intercept(np.zeros(0), np.zeros(0)))))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), icc=st.sampled_from([0.0, 0.3, 0.8]), shift=st.floats(-2, 2))
def test_order_shift_sign_and_missing_pairs(seed, icc, shift):
    differences, patients = simulated(seed, icc=icc, num_patients=12)
    order = np.random.default_rng(seed).permutation(len(differences))
    fit = random_intercept(differences, patients)
    expected = (fit.mean, fit.low, fit.high, fit.icc)

    def shape(other: MixedModel) -> tuple[float, ...]:
        return (other.mean, other.low, other.high, other.icc)

    reordered = random_intercept(differences[order], patients[order])
    assert shape(reordered) == pytest.approx(expected, abs=1e-6)
    more = random_intercept(np.append(differences, NAN), np.append(patients, 99))
    assert more == fit
    shifted = random_intercept(differences + shift, patients)
    moved = (fit.mean + shift, fit.low + shift, fit.high + shift, fit.icc)
    assert shape(shifted) == pytest.approx(moved, abs=1e-6)
    mirrored = random_intercept(-differences, patients)
    assert shape(mirrored) == pytest.approx((-fit.mean, -fit.high, -fit.low, fit.icc), abs=1e-6)
    assert mirrored.p == pytest.approx(fit.p, rel=1e-5)

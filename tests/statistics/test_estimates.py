"""Intervals over patients: scipy's BCa, hand-counted resamples, and what must not change them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.statistics import bca_interval, clustered_bootstrap, estimate_columns
from ultrarefiner.statistics.bca import bca_p

NAN = float("nan")


def column(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)[:, None]


def for_few(level: float, num_patients: int) -> float:
    """Return the level for which plain BCa uses our t quantile of so many patients."""
    t = stats.t.ppf((1 + level) / 2, num_patients - 1)
    return 2 * stats.norm.cdf(t * np.sqrt(num_patients / (num_patients - 1))) - 1


def estimate(values, patients, **keywords) -> tuple[float, ...]:
    found = estimate_columns(column(values), np.asarray(patients), ["dsc"], **keywords)
    return dataclasses.astuple(found["dsc"])


class TestClusteredBootstrap:
    def test_weighs_images_not_clusters(self):
        # Clusters {0} and {1, 1, 1}: both twice or each once, so means 0, 3/4, 1.
        values, clusters = column([0, 1, 1, 1]), np.array([*"abbb"])
        means = clustered_bootstrap(values, clusters, np.random.default_rng(0))
        found, counts = np.unique(means, return_counts=True)
        np.testing.assert_array_equal(found, [0.0, 0.75, 1.0])
        np.testing.assert_allclose(counts / 2000, [0.25, 0.5, 0.25], atol=0.04)

    def test_columns_share_their_draws(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(20, 1))
        means = clustered_bootstrap(np.hstack([values, values + 1]), np.arange(20), rng)
        np.testing.assert_allclose(means[:, 1] - means[:, 0], 1.0)

    def test_a_missing_value_counts_in_no_mean(self):
        # Only patient a has a value in column 1: every resample that draws it says 5.
        values = np.array([[1.0, 5.0], [2.0, NAN], [3.0, NAN]])
        means = clustered_bootstrap(values, np.array([*"abc"]), np.random.default_rng(0))
        without_a = np.isnan(means[:, 1])
        assert without_a.mean() == pytest.approx((2 / 3) ** 3, abs=0.03)
        np.testing.assert_array_equal(means[~without_a, 1], 5.0)
        assert not np.isnan(means[:, 0]).any()

    def test_global_generator_is_left_alone(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002 - the very thing under test
        estimate([0.1, 0.2], [1, 2])
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_refuses_what_has_no_mean(self):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match="a value is infinite"):
            clustered_bootstrap(column([1.0, np.inf]), np.arange(2), rng)
        with pytest.raises(InputError, match="expected 2 clusters, one per row, found 3"):
            clustered_bootstrap(column([1.0, 2.0]), np.arange(3), rng)


class TestBCa:
    @pytest.mark.parametrize("level", [0.9, 0.95])
    @pytest.mark.parametrize("power", [1, 3])
    def test_equals_scipy_on_its_own_resamples(self, level, power):
        values = np.random.default_rng(power).normal(size=40) ** power
        oracle = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=999,
            confidence_level=for_few(level, 40),
            rng=np.random.default_rng(1),
        )
        resamples = oracle.bootstrap_distribution[:, None]
        ends = bca_interval(column(values), np.arange(40), resamples, level=level)
        assert np.ravel(ends) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-9)

    def test_agrees_with_scipy_on_own_resamples(self):
        values = np.random.default_rng(5).exponential(size=150)
        oracle = stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, confidence_level=for_few(0.95, 150), rng=0
        ).confidence_interval
        low, high = estimate(values, np.arange(150), num_resamples=20_000)[1:3]
        width = oracle.high - oracle.low
        assert (low, high) == pytest.approx(tuple(oracle), abs=0.03 * width)

    def test_acceleration_leaves_out_patients(self):
        # Against scipy on patients: with a statistic of (sum, count) pairs it is the same ratio.
        rng = np.random.default_rng(6)
        patients = np.repeat(np.arange(60), rng.integers(1, 4, size=60))
        values = rng.exponential(size=len(patients)) + 0.5 * rng.exponential(size=60)[patients]
        sums, counts = np.bincount(patients, values), np.bincount(patients)
        oracle = stats.bootstrap(
            (sums, counts),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True,
            n_resamples=2000,
            confidence_level=for_few(0.95, 60),
            rng=np.random.default_rng(2),
        )
        resamples = oracle.bootstrap_distribution[:, None]
        ends = bca_interval(column(values), patients, resamples)
        assert np.ravel(ends) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-9)

    def test_few_patients_have_the_t_interval(self):
        # On symmetric values there is nothing to correct but the number of patients.
        values = stats.norm.ppf((np.arange(8) + 0.5) / 8)
        oracle = stats.ttest_1samp(values, 0.0).confidence_interval()
        _, low, high, _ = estimate(values, np.arange(8), num_resamples=50_000)
        assert (low, high) == pytest.approx(tuple(oracle), rel=0.08)
        assert high - low > 1.25 * np.ptp(stats.norm.interval(0.95)) * values.std() / np.sqrt(8)

    @pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
    def test_p_turns_the_interval_round(self, level):
        rng = np.random.default_rng(3)
        values, patients = rng.exponential(size=90), np.arange(90) // 2
        resamples = clustered_bootstrap(column(values), patients, rng)
        low, high = bca_interval(column(values), patients, resamples, level=level)
        p = [bca_p(values, patients, resamples[:, 0], bound=end) for end in (low[0], high[0])]
        assert p == pytest.approx([(1 - level) / 2, (1 + level) / 2], abs=1e-6)

    def test_constant_values_and_a_single_patient_give_the_point(self):
        assert estimate([0.1, 0.1, 0.1], [1, 2, 3]) == pytest.approx((0.1,) * 4)
        assert estimate([0.2, 0.4], [1, 1]) == pytest.approx((0.3,) * 4)
        assert estimate([0.7], ["a"]) == (0.7,) * 4

    @pytest.mark.parametrize("num", [1, 2, 3])
    def test_a_single_value_that_differs(self, num):
        # Ten patients, one of them far out: ends are possible means, and the mean lies between.
        values = np.zeros(10)
        values[0] = num
        mean, low, high, _ = estimate(values, np.arange(10))
        assert 0 <= low < mean < high <= num

    def test_refuses_a_level_that_is_none(self):
        with pytest.raises(ConfigError, match=r"level: expected in \(0, 1\), found 95"):
            bca_interval(column([1, 2]), np.arange(2), column([1, 2]), level=95)


class TestEstimateColumns:
    def test_mean_and_median_are_over_images(self):
        mean, _, _, median = estimate([0.1, 0.2, 0.9, NAN], [1, 1, 2, 3])
        assert (mean, median) == (pytest.approx(0.4), 0.2)

    def test_a_column_without_values_is_left_out(self):
        values = np.array([[1.0, NAN], [2.0, NAN]])
        assert estimate_columns(values, np.arange(2), ["dsc", "hd95"]).keys() == {"dsc"}
        assert estimate_columns(np.full((2, 1), NAN), np.arange(2), ["dsc"]) == {}
        assert estimate_columns(np.zeros((0, 1)), np.arange(0), ["dsc"]) == {}

    def test_is_the_normal_interval_when_every_image_is_a_patient(self):
        dsc = np.random.default_rng(1).normal(0.8, 0.05, 400)
        half = 1.96 * dsc.std() / np.sqrt(len(dsc))
        _, low, high, _ = estimate(dsc, np.arange(400))
        assert low == pytest.approx(dsc.mean() - half, abs=0.1 * half)
        assert high == pytest.approx(dsc.mean() + half, abs=0.1 * half)

    def test_copies_within_a_patient_narrow_nothing(self):
        dsc = np.random.default_rng(2).normal(0.8, 0.05, 100)
        alone = estimate(dsc, np.arange(100))
        assert estimate(np.repeat(dsc, 4), np.repeat(np.arange(100), 4)) == pytest.approx(alone)

    def test_seed_decides(self):
        values = np.random.default_rng(3).normal(size=30)
        assert estimate(values, np.arange(30)) == estimate(values, np.arange(30), seed=0)
        assert estimate(values, np.arange(30)) != estimate(values, np.arange(30), seed=1)


@st.composite
def samples(draw):
    """Values of up to 12 images of up to 5 patients, of a size that floats add well."""
    patients = draw(st.lists(st.integers(0, 4), min_size=1, max_size=12))
    value = st.integers(-1000, 1000).map(lambda number: number / 1000)
    return [draw(value) for _ in patients], patients


@settings(deadline=None, max_examples=40)
@given(sample=samples(), shift=st.sampled_from([-2.0, 0.5]), data=st.data())
def test_estimates_follow_the_values(sample, shift, data):
    values, patients = np.array(sample[0]), np.array(sample[1])
    mean, low, high, median = found = estimate(values, patients, num_resamples=200)
    assert np.isfinite(found).all()
    assert low <= mean <= high

    order = data.draw(st.permutations(range(len(values))))
    reordered = estimate(values[order], patients[order], num_resamples=200)
    assert reordered == pytest.approx(found, abs=1e-9)

    shifted = estimate(values + shift, patients, num_resamples=200)
    assert shifted == pytest.approx(np.array(found) + shift, abs=1e-9)

    mirrored = estimate(-values, patients, num_resamples=200)
    assert mirrored == pytest.approx((-mean, -high, -low, -median), abs=1e-9)

    more = np.append(values, [NAN, NAN]), np.append(patients, [patients[0], 99])
    assert estimate(*more, num_resamples=200) == pytest.approx(found, abs=1e-12)

"""Tests of paired differences against scipy, brute force and hand counts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ultrarefiner.statistics import (
    holm,
    sign_flip_test,
    sign_test,
    signed_rank_test,
    standardised_mean,
)

NAN = float("nan")


def by_enumeration(differences, statistic) -> float:
    """Return the share of all sign flips whose statistic is at least as far out."""
    observed = abs(statistic(differences)) - 1e-12
    flips = itertools.product([1, -1], repeat=len(differences))
    return float(
        np.mean([abs(statistic(differences * np.array(flip))) >= observed for flip in flips])
    )


def signed_ranks(differences) -> float:
    """Return the sum of signed ranks, zeros ranked but of no sign (Pratt)."""
    return float((np.sign(differences) * stats.rankdata(np.abs(differences))).sum())


class TestSignFlips:
    @pytest.mark.parametrize("num", [2, 5, 9])
    def test_is_exact_for_few_patients(self, num):
        differences = np.random.default_rng(num).normal(0.4, 1.0, num)
        oracle = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_test(differences, np.arange(num)) == pytest.approx(oracle.pvalue)

    def test_agrees_with_scipy_for_many_patients(self):
        differences = np.random.default_rng(8).normal(0.15, 1.0, 120)
        oracle = stats.permutation_test(
            (differences,),
            lambda d, axis: d.mean(axis=axis),
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            rng=np.random.default_rng(0),
        )
        p = sign_flip_test(differences, np.arange(120), num_permutations=20_000)
        assert p == pytest.approx(oracle.pvalue, abs=0.01)
        assert 0.02 < p < 0.3

    def test_images_of_a_patient_flip_together(self):
        differences, patients = np.array([1.0, 2.0, -0.5, 4.0, 1.0, 0.5]), np.array([*"aabccc"])
        sums = np.array([3.0, -0.5, 5.5])
        assert sign_flip_test(differences, patients) == by_enumeration(sums, np.sum)
        assert sign_flip_test(differences, np.arange(6)) < sign_flip_test(differences, patients)

    def test_a_drawn_p_value_is_never_zero(self):
        p = sign_flip_test(np.ones(60), np.arange(60), num_permutations=999)
        assert p == 1 / 1000

    def test_patients_without_a_change_change_nothing(self):
        differences = np.array([0.3, 0.1, 0.2, -0.1])
        more = np.append(differences, np.zeros(30))
        assert sign_flip_test(more, np.arange(34)) == sign_flip_test(differences, np.arange(4))

    def test_sums_equal_but_for_rounding_are_ties(self):
        # 0.1 + 0.2 is not 0.3: without a tolerance 2 of 8 flips would reach the sum, not 4.
        assert sign_flip_test(np.array([0.1, 0.2, -0.3]), np.arange(3)) == 1.0
        assert sign_flip_test(np.array([0.1, 0.2, 0.1 + 0.2, -0.3]), np.arange(4)) == 0.75

    def test_images_that_cancel_but_for_rounding_are_no_change(self):
        differences, patients = np.tile([0.1, 0.2, -0.3], 6), np.repeat(np.arange(6), 3)
        assert differences[:3].sum() != 0
        assert sign_flip_test(differences, patients) == 1.0
        more, others = np.append(differences, [0.2] * 5), np.append(patients, np.arange(6, 11))
        assert sign_flip_test(more, others) == 2 / 2**5

    def test_no_change_and_no_pair(self):
        assert sign_flip_test(np.zeros(40), np.arange(40)) == 1.0
        assert sign_flip_test(np.array([0.4, 0.1]), np.array([1, 1])) == 1.0
        assert math.isnan(sign_flip_test(np.array([NAN]), np.array([1])))


class TestSignedRanks:
    @pytest.mark.parametrize("num", [1, 6, 30, 50])
    def test_equals_scipy_exact(self, num):
        differences = np.random.default_rng(num).normal(0.3, 1.0, num)
        assert len(np.unique(np.abs(differences))) == num
        oracle = stats.wilcoxon(differences, method="exact")
        assert signed_rank_test(differences).p == pytest.approx(oracle.pvalue, rel=1e-9)

    @pytest.mark.parametrize("num_zeros", [0, 40])
    def test_equals_scipy_with_ties_and_unchanged_pairs(self, num_zeros):
        differences = np.random.default_rng(1).normal(0.2, 1.0, 200).round(1)
        differences = np.append(differences, np.zeros(num_zeros))
        oracle = stats.wilcoxon(differences, zero_method="pratt", method="asymptotic")
        assert signed_rank_test(differences).p == pytest.approx(oracle.pvalue, rel=1e-9)

    @pytest.mark.parametrize("seed", range(8))
    def test_few_pairs_with_ties_are_counted_out(self, seed):
        differences = np.random.default_rng(seed).integers(-3, 5, size=9) / 10
        expected = by_enumeration(differences, signed_ranks)
        assert signed_rank_test(differences).p == pytest.approx(expected)

    def test_exact_and_normal_meet(self):
        differences = np.random.default_rng(4).normal(0.25, 1.0, 50)
        further = np.append(differences, [0.001, -0.0011])
        few, many = signed_rank_test(differences).p, signed_rank_test(further).p
        assert few == pytest.approx(many, rel=0.1)

    def test_effect_is_the_hand_count(self):
        # Ranks of 0, .1, .2, .2, .5 are 1, 2, 3.5, 3.5, 5; the change of -.2 is downwards.
        effect = signed_rank_test(np.array([0.0, 0.1, -0.2, 0.2, 0.5])).effect
        assert effect == (2 + 3.5 + 5 - 3.5) / (2 + 3.5 + 5 + 3.5)
        assert signed_rank_test(np.array([0.1, 0.3])).effect == 1.0

    def test_no_change_and_no_pair(self):
        assert dataclasses.astuple(signed_rank_test(np.zeros(70))) == (1.0, 0.0)
        assert all(map(math.isnan, dataclasses.astuple(signed_rank_test(np.array([NAN])))))


class TestSigns:
    @pytest.mark.parametrize(("up", "down"), [(3, 1), (5, 5), (0, 7), (200, 150)])
    def test_equals_scipy(self, up, down):
        differences = np.repeat([0.2, -0.1, 0.0, NAN], [up, down, 4, 3])
        found = sign_test(differences)
        assert found.p == pytest.approx(stats.binomtest(up, up + down).pvalue)
        assert found.effect == pytest.approx((up - down) / (up + down))

    def test_no_change_and_no_pair(self):
        assert dataclasses.astuple(sign_test(np.zeros(3))) == (1.0, 0.0)
        assert all(map(math.isnan, dataclasses.astuple(sign_test(np.array([NAN])))))
        assert all(map(math.isnan, dataclasses.astuple(sign_test(np.zeros(0)))))


class TestStandardisedMean:
    def test_is_the_t_statistic_of_patient_means(self):
        rng = np.random.default_rng(0)
        patients = np.repeat(np.arange(20), rng.integers(1, 4, size=20))
        differences = rng.normal(0.3, 1.0, len(patients))
        means = [differences[patients == patient].mean() for patient in range(20)]
        t = stats.ttest_1samp(means, 0.0).statistic
        assert standardised_mean(differences, patients) == pytest.approx(t / math.sqrt(20))

    def test_where_there_is_none(self):
        assert standardised_mean(np.zeros(4), np.arange(4)) == 0.0
        assert math.isnan(standardised_mean(np.array([0.1, 0.1, 0.1]), np.arange(3)))
        assert math.isnan(standardised_mean(np.array([0.1, 0.2]), np.array([1, 1])))
        assert math.isnan(standardised_mean(np.zeros(0), np.zeros(0)))


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=10)


@settings(deadline=None, max_examples=25)  # statsmodels is slow
@given(p_values=p_values)
def test_holm_equals_statsmodels_and_keeps_the_order(p_values):
    adjusted = np.array(holm(p_values))
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(adjusted, expected, rtol=1e-12)
    assert (adjusted >= p_values).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


@given(p_values=p_values, at=st.integers(0, 10))
def test_holm_does_not_count_what_was_not_tested(p_values, at):
    at = min(at, len(p_values))
    found = holm([*p_values[:at], NAN, *p_values[at:]])
    assert math.isnan(found.pop(at))
    assert found == holm(p_values)
    assert holm([]) == []


@settings(deadline=None, max_examples=60)
@given(
    differences=st.lists(
        st.integers(-5, 9).map(lambda tenths: tenths / 10), min_size=2, max_size=9
    ),
    data=st.data(),
)
def test_order_sign_and_missing_pairs(differences, data):
    """No test cares for the order of pairs, or for pairs that are missing; a swap mirrors it."""
    differences = np.array(differences)
    patients = np.array([data.draw(st.integers(0, 4)) for _ in differences])
    order = data.draw(st.permutations(range(len(differences))))
    rows = [
        (differences, patients, 1),
        (differences[order], patients[order], 1),
        (np.append(differences, NAN), np.append(patients, 77), 1),
        (-differences, patients, -1),
    ]
    flips = [sign_flip_test(d, c) for d, c, _ in rows]
    assert flips == pytest.approx([flips[0]] * 4)
    for test in (signed_rank_test, sign_test):
        found = [(test(d).p, sign * test(d).effect) for d, _, sign in rows]
        assert np.ravel(found) == pytest.approx(np.ravel([found[0]] * 4))
    sizes = [sign * standardised_mean(d, c) for d, c, sign in rows]
    assert sizes == pytest.approx([sizes[0]] * 4, nan_ok=True)

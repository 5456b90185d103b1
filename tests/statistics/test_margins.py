"""Equivalence and non-inferiority against two one-sided t-tests, and where nothing is shown."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from ultrarefiner.errors import ConfigError
from ultrarefiner.statistics import equivalence

NAN = float("nan")


@pytest.mark.parametrize("num", [15, 60, 300])
def test_equals_two_t_tests_on_normal_differences(num):
    # Where normal theory holds, the bootstrap has to agree with it, also for few patients.
    differences = np.random.default_rng(num).normal(0.004, 0.05, num)
    margin = 2.2 * 0.05 / math.sqrt(num)
    found = equivalence(differences, np.arange(num), margin=margin)
    oracle = DescrStatsW(differences)
    p = oracle.ttost_mean(-margin, margin)[0]
    assert found.p_equivalent == pytest.approx(p, abs=0.03)
    low, high = oracle.tconfint_mean(alpha=0.1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert found.margin == margin


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), margin=st.floats(0.01, 0.5))
def test_verdict_is_whether_the_interval_lies_within_the_margin(seed, margin):
    rng = np.random.default_rng(seed)
    differences = rng.normal(rng.uniform(-0.2, 0.2), 0.2, 30)
    found = equivalence(differences, np.arange(30) // 2, margin=margin)
    assert found.equivalent == (-margin < found.low and found.high < margin)
    assert found.non_inferior == (found.low > -margin)
    assert found.p_equivalent >= found.p_non_inferior

    swapped = equivalence(-differences, np.arange(30) // 2, margin=margin, greater_is_better=False)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert swapped.p_equivalent == pytest.approx(found.p_equivalent)
    assert swapped.non_inferior == found.non_inferior


def test_which_side_matters():
    differences = np.random.default_rng(0).normal(0.1, 0.02, 50)  # clearly above the margin
    better = equivalence(differences, np.arange(50), margin=0.05)
    assert (better.equivalent, better.non_inferior) == (False, True)
    worse = equivalence(differences, np.arange(50), margin=0.05, greater_is_better=False)
    assert (worse.equivalent, worse.non_inferior) == (False, False)


def test_images_of_a_patient_are_no_evidence_of_their_own():
    differences = np.random.default_rng(0).normal(0.0, 0.1, 12)
    copies = np.repeat(differences, 20)
    assert equivalence(copies, np.arange(240), margin=0.03).equivalent
    clustered = equivalence(copies, np.repeat(np.arange(12), 20), margin=0.03)
    assert not clustered.equivalent
    alone = equivalence(differences, np.arange(12), margin=0.03)
    assert dataclasses.astuple(clustered) == pytest.approx(dataclasses.astuple(alone))


def test_no_change_few_changes_and_missing_pairs():
    none = equivalence(np.zeros(40), np.arange(40), margin=0.02)
    assert (none.low, none.high, none.equivalent, none.non_inferior) == (0.0, 0.0, True, True)
    # Two of 213 patients changed: an interval all the same.
    few = np.zeros(213)
    few[:2] = -0.1, -0.3
    found = equivalence(few, np.arange(213), margin=0.02)
    assert found.equivalent
    assert -0.02 < found.low < few.mean() < found.high <= 0.0
    more = equivalence(np.append(few, NAN), np.append(np.arange(213), 500), margin=0.02)
    assert more == found


@pytest.mark.parametrize("differences", [[], [NAN], [0.0, 0.001]])
def test_shows_nothing_with_fewer_than_two_patients(differences):
    found = equivalence(np.array(differences), np.zeros(len(differences)), margin=0.02)
    assert not found.equivalent
    assert not found.non_inferior
    numbers = (found.low, found.high, found.p_equivalent, found.p_non_inferior)
    assert all(map(math.isnan, numbers))


def test_two_patients_are_too_few_whatever_they_say():
    found = equivalence(np.array([0.001, 0.002]), np.arange(2), margin=0.02)
    assert not found.equivalent
    assert all(math.isfinite(value) for value in dataclasses.astuple(found))
    assert found.p_equivalent > stats.norm.sf(1.645)


@pytest.mark.parametrize("margin", [0.0, -0.1, NAN, math.inf])
def test_refuses_a_margin_that_is_none(margin):
    with pytest.raises(ConfigError, match=f"margin: expected a difference above 0, found {margin}"):
        equivalence(np.zeros(3), np.arange(3), margin=margin)

"""Drift of scores: the exact test, its level, its power, and when it holds its tongue."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from ultrarefiner.errors import InputError
from ultrarefiner.statistics import score_drift

NUM_FOLDERS = 400


def test_p_value_is_the_share_of_splits_that_lie_as_far_apart():
    rng = np.random.default_rng(0)
    scores, reference = rng.normal(0.7, 1, 8), rng.normal(size=9)
    found = score_drift(scores, reference)
    pooled = np.sort(np.concatenate([scores, reference]))
    is_new = np.zeros((math.comb(17, 8), 17))
    for row, chosen in zip(is_new, combinations(range(17), 8), strict=True):
        row[list(chosen)] = 1
    distance = np.abs(np.cumsum(is_new / 8 - (1 - is_new) / 9, axis=1)).max(axis=1)
    own = np.isin(pooled, scores)
    statistic = np.abs(np.cumsum(own / 8 - ~own / 9)).max()
    assert found.statistic == pytest.approx(statistic)
    assert found.p_value == pytest.approx(np.mean(distance >= statistic - 1e-9))
    assert found.num == 8


def rejected(rng, *, shift: float, at_zero: float = 0.0, num: int = 60) -> float:
    """Return the share of folders with p below 1 % (150 images of calibration)."""
    alarms = 0
    for _ in range(NUM_FOLDERS):
        scores, reference = rng.normal(size=num) + shift, rng.normal(size=150)
        scores[rng.random(num) < at_zero] = 3.0  # unchanged images all have the greatest score
        reference[rng.random(150) < at_zero] = 3.0
        alarms += score_drift(scores, reference).p_value < 0.01
    return alarms / NUM_FOLDERS


def test_warns_seldom_without_a_shift_and_nearly_always_at_a_large_one():
    rng = np.random.default_rng(0)
    assert rejected(rng, shift=0.0) <= 0.0275  # 1 %, and chance
    assert rejected(rng, shift=0.0, at_zero=0.4) <= 0.0275  # ties do not make it warn
    assert rejected(rng, shift=-1.0) >= 0.95
    assert rejected(rng, shift=-1.0, num=8) <= 0.6  # and few images hide it


@pytest.mark.parametrize(("num", "num_reference"), [(0, 50), (7, 50), (50, 7)])
def test_does_not_test_few_images(num, num_reference):
    found = score_drift(np.full(num, -5.0), np.zeros(num_reference))
    assert math.isnan(found.p_value)
    assert math.isnan(found.statistic)
    assert found.num == num


def test_equal_and_disjoint_scores():
    same = score_drift([0.0] * 20, [0.0] * 30)
    assert (same.p_value, same.statistic) == (1.0, 0.0)
    apart = score_drift([-1.0] * 20, [0.0] * 30)
    assert apart.statistic == 1.0
    assert apart.p_value == pytest.approx(2 / math.comb(50, 20))


def test_scores_that_are_nearly_the_calibrations_give_no_warning():
    scores = np.linspace(-1.0, 0.0, 30)
    assert score_drift(scores + 1e-9, scores).p_value > 0.99


def test_refuses_scores_that_are_no_numbers():
    with pytest.raises(InputError, match="scores: expected finite numbers"):
        score_drift([math.nan] * 9, [0.0] * 9)

"""Shares: scipy's Wilson interval, and an interval over patients that does not collapse."""

import numpy as np
import pytest
from scipy import stats

from ultrarefiner.errors import InputError
from ultrarefiner.statistics import share_of, wilson_interval


@pytest.mark.parametrize(("num", "num_total"), [(0, 10), (5, 10), (10, 10), (1, 1), (37, 1875)])
def test_wilson_interval_equals_scipy(num, num_total):
    expected = stats.binomtest(num, num_total).proportion_ci(method="wilson")
    assert wilson_interval(num, num_total) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("num", "num_total"), [(0, 0), (3, 2), (-1, 2)])
def test_refuses_what_is_no_share(num, num_total):
    with pytest.raises(InputError, match=f"found {num} of {num_total}"):
        wilson_interval(num, num_total)


def test_both_intervals_agree_when_every_image_is_a_patient():
    share = share_of(np.arange(400) < 120, np.arange(400))
    assert (share.num, share.share) == (120, 0.3)
    assert share.clustered_low == pytest.approx(share.low, abs=0.005)
    assert share.clustered_high == pytest.approx(share.high, abs=0.005)


def test_copies_narrow_only_the_interval_over_images():
    holds = np.arange(200) < 40
    alone = share_of(holds, np.arange(200))
    copies = share_of(np.repeat(holds, 3), np.repeat(np.arange(200), 3))
    assert copies.high - copies.low < 0.7 * (alone.high - alone.low)
    assert copies.clustered_low == pytest.approx(alone.clustered_low)
    assert copies.clustered_high == pytest.approx(alone.clustered_high)


@pytest.mark.parametrize("holds", [True, False])
def test_all_or_none_is_one_trial_per_patient(holds):
    share = share_of(np.full(30, holds), np.arange(30) // 3)
    expected = stats.binomtest(10 * holds, 10).proportion_ci(method="wilson")
    assert (share.clustered_low, share.clustered_high) == pytest.approx(tuple(expected))
    assert share.clustered_high - share.clustered_low > share.high - share.low


def test_one_of_many_is_inside_its_intervals():
    share = share_of(np.arange(366) == 0, np.arange(366) // 2)
    assert 0 <= share.clustered_low < share.share < share.clustered_high < 0.03
    one_patient = share_of(np.array([True, False]), np.array([7, 7]))
    assert (one_patient.clustered_low, one_patient.clustered_high) == (0.5, 0.5)


def test_refuses_no_image():
    with pytest.raises(InputError, match="found 0 of 0"):
        share_of(np.zeros(0, dtype=bool), np.zeros(0))

"""Simulated studies: do intervals cover the truth, and do tests err as rarely as they say?

2,000 data sets of 200 patients with 1-3 images, alike within the patient, with a heavy left tail.
They come in batches that share numbers of images and draws of the bootstrap, but no values.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from gains import MEAN, simulated_gains

from ultrarefiner.statistics import (
    bca_interval,
    clustered_bootstrap,
    random_intercept,
    sign_flip_test,
)

NUM_SETS, NUM_BATCHES = 2000, 100


def batches(num_patients: int = 200) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed in range(NUM_BATCHES):
        rng = np.random.default_rng(seed)
        yield simulated_gains(rng, num_patients=num_patients, num_sets=NUM_SETS // NUM_BATCHES)


def without_difference() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield data sets one by one, shifted so that their true mean is 0."""
    for gains, patients in batches():
        for column in gains.T:
            yield column - MEAN, patients


@cache
def miss_rates(num_patients: int) -> dict[float, tuple[float, float]]:
    """Return per level how often an interval lies wholly below, and above, the true mean."""
    misses: dict[float, list[tuple[float, float]]] = {0.95: [], 0.9: []}
    for seed, (gains, patients) in enumerate(batches(num_patients)):
        rng = np.random.default_rng([seed, 1])
        resamples = clustered_bootstrap(gains, patients, rng, num_resamples=1000)
        for level, missed in misses.items():
            low, high = bca_interval(gains, patients, resamples, level=level)
            missed.append((float(np.mean(high < MEAN)), float(np.mean(low > MEAN))))
    return {level: tuple(np.mean(missed, axis=0)) for level, missed in misses.items()}


def test_95_percent_intervals_cover_the_mean():
    below, above = miss_rates(200)[0.95]
    assert 0.93 <= 1 - below - above <= 0.97
    assert max(below, above) <= 0.04  # both ends err, in spite of the skewness


def test_an_end_of_the_90_percent_interval_errs_in_5_percent():
    """Equivalence is claimed as often as this with the mean at the margin (see test_margins)."""
    assert max(miss_rates(200)[0.9]) <= 0.06


def test_few_patients_with_such_tails_cover_less():
    below, above = miss_rates(20)[0.95]
    assert 0.89 <= 1 - below - above <= 0.93


def test_sign_flips_reject_no_difference_in_5_percent():
    p = [sign_flip_test(*data, num_permutations=499) for data in without_difference()]
    assert 0.04 <= np.mean(np.array(p) <= 0.05) <= 0.06


def test_the_mixed_model_rejects_no_difference_in_5_percent():
    p = [random_intercept(*data).p for data in without_difference()]
    assert 0.04 <= np.mean(np.array(p) <= 0.05) <= 0.06

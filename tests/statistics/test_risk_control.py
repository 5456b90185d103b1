"""Bounds on a risk: exact oracles, exact levels, and simulated calibrations with a known risk.

In the simulations a patient has 1-4 images, alike in their scores. A score is uniform on [0, 1] and
an image is made worse with a probability that depends on its score alone, so that the true risk of
accepting scores above t is the integral of that probability from t to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln, ndtr, xlogy

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.statistics import (
    bentkus_p_value,
    binomial_p_value,
    conformal_risk_control,
    learn_then_test,
    p_value,
)

ALPHA, ETA, NUM_DRAWS = 0.05, 0.05, 2000
THRESHOLDS = np.append(np.inf, np.linspace(0.98, 0.0, 50))  # accepts nothing, ..., everything
# How far above eta a share of that many draws may be by chance (once in 1,000 correct tests).
BY_CHANCE = stats.binom.ppf(0.999, NUM_DRAWS, ETA) / NUM_DRAWS


def hoeffding_bentkus(losses: np.ndarray, alpha: float) -> float:
    """Transcribed from Bates et al. 2021, equation 11."""
    num, mean = len(losses), min(losses.mean(), alpha)
    divergence = xlogy(mean, mean / alpha) + xlogy(1 - mean, (1 - mean) / (1 - alpha))
    hoeffding = np.exp(-num * divergence)
    bentkus = np.e * stats.binom.cdf(np.ceil(num * losses.mean() - 1e-9), num, alpha)
    return float(min(1.0, hoeffding, bentkus))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("num", [1, 59, 200])
def test_binomial_equals_scipy(num, alpha):
    for num_losses in range(0, num + 1, max(1, num // 7)):
        expected = stats.binomtest(num_losses, num, alpha, alternative="less").pvalue
        assert binomial_p_value(num_losses, num, alpha) == pytest.approx(expected, rel=1e-9)
        losses = np.arange(num) < num_losses
        assert p_value(losses.astype(float), alpha, are_binary=True) == pytest.approx(
            expected, rel=1e-9
        )


@pytest.mark.parametrize(
    ("total", "num", "alpha"), [(0.0, 59, 0.05), (1.5, 100, 0.05), (7, 60, 0.2)]
)
def test_bentkus_is_the_least_of_its_bounds(total, num, alpha):
    """The expectation written out, and bounds in between: the least is at a whole number."""
    of_sum = stats.binom.pmf(np.arange(num + 1), num, alpha)
    ends = total + np.linspace(0, num - total, 20 * num + 1)[1:]
    ends = np.append(ends, np.arange(np.floor(total) + 1, num + 1))
    hinges = np.maximum(ends[:, None] - np.arange(num + 1), 0) @ of_sum
    expected = (hinges / (ends - total)).min()
    losses = np.full(num, total / num)
    assert bentkus_p_value(losses, alpha) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=200)
@given(
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=300),
    alpha=st.floats(0.01, 0.5),
)
def test_bentkus_lies_between_the_binomial_and_hoeffding_bentkus(counts, alpha):
    losses = np.array([min(harmed, num) / num for harmed, num in counts])
    p = bentkus_p_value(losses, alpha)
    assert 0 < p <= hoeffding_bentkus(losses, alpha) * (1 + 1e-9)
    at_least = binomial_p_value(int(losses.sum() + 1e-9), len(losses), alpha)
    assert p >= at_least * (1 - 1e-9)
    more = np.sort(losses)
    more[0] = 1.0
    assert bentkus_p_value(more, alpha) >= p * (1 - 1e-9)


def test_without_losses_all_say_the_same_and_with_few_bentkus_sees_more():
    none = np.zeros(59)
    assert p_value(none, ALPHA) == bentkus_p_value(none, ALPHA) == pytest.approx(0.95**59)
    few = np.zeros(100)
    few[:2] = 0.5  # two patients with one image of two made worse
    assert bentkus_p_value(few, ALPHA) < 0.05 < 0.08 < hoeffding_bentkus(few, ALPHA)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("num", [30, 93, 128])
@pytest.mark.parametrize("middle", [0.25, 0.5, 0.75])
def test_no_level_is_exceeded_when_the_risk_is_the_bound(alpha, num, middle):
    """Enumerated for losses of 0, 1 and one value between."""
    ones, halves = np.meshgrid(np.arange(20), np.arange(40), indexing="ij")
    there = (ones + halves <= num) & (ones + middle * halves <= alpha * num)
    outcomes = np.stack([ones[there], halves[there]], axis=1)
    p = np.array([p_value(_losses(*outcome, middle, num), alpha) for outcome in outcomes])
    for share in (0.0, 0.01, 0.1, 0.3, 0.7, 1.0):  # of the risk that the middle value brings
        laws = np.array([alpha * (1 - share), alpha * share / middle])
        probability = _multinomial(outcomes, num, laws)
        for level in np.unique(p[p <= 0.1]):
            assert probability[p <= level].sum() <= level * (1 + 1e-9)


def _losses(num_ones: int, num_middle: int, middle: float, num: int) -> np.ndarray:
    losses = np.zeros(num)
    losses[:num_ones], losses[num_ones : num_ones + num_middle] = 1.0, middle
    return losses


def _multinomial(outcomes: np.ndarray, num: int, laws: np.ndarray) -> np.ndarray:
    rest = num - outcomes.sum(axis=1)
    ways = gammaln(num + 1) - gammaln(outcomes + 1).sum(axis=1) - gammaln(rest + 1)
    return np.exp(ways + xlogy(outcomes, laws).sum(axis=1) + xlogy(rest, 1 - laws.sum()))


def simulate(
    rng: np.random.Generator, harm: Callable[[np.ndarray], np.ndarray], *, num_patients: int, most=4
) -> np.ndarray:
    """Return the losses "T N" of calibration patients of 1 to ``most`` images."""
    num = rng.integers(1, most + 1, num_patients)
    alike = rng.normal(size=(num_patients, 1))
    scores = ndtr((alike + rng.normal(size=(num_patients, most))) / np.sqrt(2))
    there = np.arange(most) < num[:, None]
    harmed = there & (rng.random(scores.shape) < harm(scores))
    accepted = scores >= THRESHOLDS[:, None, None]
    return (accepted & harmed).sum(axis=-1) / num


def risk(harm: Callable[[np.ndarray], np.ndarray], threshold: float) -> float:
    """Return the true risk of a threshold."""
    if np.isinf(threshold):
        return 0.0
    middles = threshold + (1 - threshold) * (np.arange(20_000) + 0.5) / 20_000
    return float(harm(middles).mean() * (1 - threshold))


def falling(scores: np.ndarray) -> np.ndarray:
    """Harm is the more probable the lower the score: 15 % on the whole."""
    return 0.6 * (1 - scores) ** 3


def cliff(scores: np.ndarray) -> np.ndarray:
    """No harm down to 0.5, and from there to 0.44 a trace more than alpha allows."""
    return np.where((scores < 0.5) & (scores >= 0.44), (ALPHA + 1e-4) / 0.06, 0.0)


def violations(harm, *, num_patients: int, most: int = 4) -> tuple[float, float]:
    """Return how often the true risk of the chosen threshold is above alpha, and its mean."""
    rng = np.random.default_rng(0)
    risks = np.array([risk(harm, threshold) for threshold in THRESHOLDS])
    chosen = [
        learn_then_test(simulate(rng, harm, num_patients=num_patients, most=most), ALPHA, ETA)
        for _ in range(NUM_DRAWS)
    ]
    found = risks[[row or 0 for row in chosen]]  # the first row accepts nothing
    return float(np.mean(found > ALPHA)), float(found.mean())


@pytest.mark.parametrize("num_patients", [80, 128])
def test_learn_then_test_is_as_rarely_wrong_as_it_says(num_patients):
    wrong, mean = violations(falling, num_patients=num_patients)
    assert wrong <= BY_CHANCE
    assert mean > 0.2 * ALPHA  # and it does accept something


def test_learn_then_test_has_no_room_to_spare_where_nothing_warns_of_a_cliff():
    """With single images and no loss before it, a cliff passes unseen in 0.95^59 = 0.0485."""
    wrong, _ = violations(cliff, num_patients=59, most=1)
    assert 0.035 < wrong <= BY_CHANCE


def test_learn_then_test_keeps_its_word_at_a_cliff_of_several_images():
    assert violations(cliff, num_patients=128)[0] <= BY_CHANCE


def test_conformal_risk_control_holds_on_average_but_not_each_time():
    rng = np.random.default_rng(1)
    risks = np.array([risk(falling, threshold) for threshold in THRESHOLDS])
    chosen = [
        conformal_risk_control(simulate(rng, falling, num_patients=80), ALPHA)
        for _ in range(NUM_DRAWS)
    ]
    found = risks[[row or 0 for row in chosen]]
    error = found.std() / np.sqrt(NUM_DRAWS)
    assert found.mean() <= ALPHA + 3 * error
    assert found.mean() > 0.7 * ALPHA  # it does not waste the bound
    assert 0.25 < np.mean(found > ALPHA) < 0.6  # a promise about one calibration it is not


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), alpha=st.floats(0.02, 0.4), num=st.integers(1, 80))
def test_both_choose_the_last_row_that_passes(seed, alpha, num):
    rng = np.random.default_rng(seed)
    losses = np.cumsum(rng.random((12, num)) < 0.02, axis=0).clip(max=4) / 4
    passes = [p_value(row, alpha) <= ETA for row in losses]
    first_failure = passes.index(False) if False in passes else len(passes)
    assert learn_then_test(losses, alpha, ETA) == (first_failure - 1 if first_failure else None)
    passes = [num / (num + 1) * row.mean() + 1 / (num + 1) <= alpha + 1e-12 for row in losses]
    assert conformal_risk_control(losses, alpha + 1e-12) == (
        sum(passes) - 1 if any(passes) else None
    )


def test_a_later_row_does_not_count_once_one_has_failed():
    losses = np.zeros((3, 60))
    losses[1] = 1.0
    assert learn_then_test(losses, ALPHA, ETA) == 0
    with pytest.raises(InputError, match="strictest to the laxest"):
        conformal_risk_control(losses, ALPHA)


def test_too_few_patients_pass_nothing():
    assert learn_then_test(np.zeros((2, 58)), ALPHA, ETA) is None
    assert learn_then_test(np.zeros((2, 59)), ALPHA, ETA) == 1
    assert conformal_risk_control(np.zeros((2, 18)), ALPHA) is None
    assert conformal_risk_control(np.zeros((2, 19)), ALPHA) == 1
    assert conformal_risk_control(np.zeros((2, 9)), ALPHA, upper=0.5) == 1


@pytest.mark.parametrize("losses", [[0.5, 1.1], [-0.1], [np.nan], []])
@pytest.mark.parametrize("test", [p_value, bentkus_p_value])
def test_refuses_losses_out_of_range(test, losses):
    with pytest.raises(InputError, match="losses: expected"):
        test(np.array(losses), ALPHA)
    with pytest.raises(InputError, match="losses: expected"):
        learn_then_test(np.array([losses]), ALPHA)


def test_refuses_levels_and_counts_that_are_none():
    row = np.zeros((1, 60))
    for level in (0.0, 1.0, np.nan):
        with pytest.raises(ConfigError, match="alpha: expected"):
            learn_then_test(row, level)
        with pytest.raises(ConfigError, match="eta: expected"):
            learn_then_test(row, ALPHA, level)
        with pytest.raises(ConfigError, match="alpha: expected"):
            conformal_risk_control(row, level)
    with pytest.raises(ConfigError, match="upper: expected"):
        conformal_risk_control(row, ALPHA, upper=2.0)
    with pytest.raises(InputError, match="found 3 of 2"):
        binomial_p_value(3, 2, ALPHA)

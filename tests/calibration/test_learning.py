"""Learned weights: what they must never do, and what they must find among few harmed images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from ultrarefiner.calibration.learning import learn_weights
from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.acceptance import SIGNS, Signs

DELTA = 0.02
PRIOR = dict.fromkeys(SIGNS, 0.1) | {"doubted": 1.0, "unsupported": 1.0}


def outcome(gain: float, *lesions: dict[str, float], changed: bool = True) -> Outcome:
    return Outcome(
        image="a",
        patient="p",
        dsc_coarse=0.5,
        dsc_refined=0.5 + gain,
        signs=tuple(Signs(**(dict.fromkeys(SIGNS, 0.0) | lesion)) for lesion in lesions),
        changed=changed,
    )


def simulated(seed: int, num: int) -> list[Outcome]:
    """Return images of which 3 % are harmed: a wrong answer is doubted, a bold one gains.

    What moves a mask is both how bad the coarse mask was and how wrong the answer is.
    """
    rng = np.random.default_rng(seed)
    room, wrong = rng.gamma(1.5, size=num), np.exp(rng.normal(-1.0, 0.9, num))
    gains = 0.02 * room - 0.03 * np.maximum(wrong - 0.6, 0) + 0.008 * rng.normal(size=num)
    scatter = np.exp(rng.normal(0, 0.4, (5, num)))
    signs = {
        "moved": 0.06 * (room + 1.2 * wrong) * scatter[0],
        "resized": 0.15 * (wrong + 0.5 * room) * np.abs(rng.normal(size=num)),
        "fragmented": (rng.random(num) < 0.05 * wrong).astype(float),
        "doubted": 0.03 + 0.06 * wrong * scatter[1],
        "pushed": 0.1 * (room + 1.2 * wrong) * scatter[2],
        "undecided": 0.1 + 0.05 * room * scatter[3],
        "strayed": 0.08 * (room + 1.5 * wrong) * scatter[4],
    }
    rows = [dict(zip(signs, row, strict=True)) for row in np.array([*signs.values()]).T]
    return [outcome(gain, row) for gain, row in zip(gains, rows, strict=True)]


def kept_gain(weights: dict[str, float], outcomes: list[Outcome], *, harmed: float) -> float:
    """Return the gain of the images that are accepted, as a share of the gain of all.

    As many are accepted, the greatest score first, as can be with that share of all harmed.
    """
    costs = [
        sum(weights[name] * getattr(item.signs[0], name) for name in SIGNS) for item in outcomes
    ]
    gains = np.array([outcomes[index].gain for index in np.argsort(costs)])
    allowed = np.cumsum(gains < -DELTA) <= harmed * len(gains)
    return float(gains[allowed].sum() / gains.sum())


def test_keeps_more_gain_than_equal_weights_and_than_the_best_looking_sign():
    new = simulated(1000, 4000)
    signs = np.array([[getattr(item.signs[0], name) for name in SIGNS] for item in new])
    spread = signs.std(axis=0)
    equal = {name: 1 / by if by > 0 else 0.0 for name, by in zip(SIGNS, spread, strict=True)}
    learned = [
        kept_gain(learn_weights(simulated(seed, 90), DELTA), new, harmed=0.015)
        for seed in range(12)
    ]
    single = [kept_gain(best_sign(simulated(seed, 90)), new, harmed=0.015) for seed in range(12)]
    assert np.mean(learned) >= kept_gain(equal, new, harmed=0.015) + 0.1
    assert np.mean(learned) >= np.mean(single)
    assert np.min(learned) >= 0.85


def best_sign(outcomes: list[Outcome]) -> dict[str, float]:
    """Return the one sign that keeps the most gain among the images it is chosen on."""
    singles = [dict.fromkeys(SIGNS, 0.0) | {name: 1.0} for name in SIGNS]
    return max(singles, key=lambda weights: kept_gain(weights, outcomes, harmed=0.015))


def test_minimises_its_formula():
    """The formula written out with loops, and another minimiser that is given no gradient."""
    outcomes = simulated(11, 40)
    names = ["moved", "doubted", "undecided"]
    rows = [{name: getattr(item.signs[0], name) for name in names} for item in outcomes]
    outcomes = [outcome(item.gain, row) for item, row in zip(outcomes, rows, strict=True)]
    signs = np.array([[row[name] for name in names] for row in rows])
    signs = signs / signs.std(axis=0)
    share = [1 / (1 + math.exp((DELTA + item.gain) / 0.01)) for item in outcomes]
    gain = [(1 - h) * max(item.gain, 0) for h, item in zip(share, outcomes, strict=True)]

    agreement = np.square(np.corrcoef(signs.T)).sum(axis=0)
    votes = np.array([PRIOR[name] for name in names]) / agreement

    def objective(point: np.ndarray) -> float:
        offset, weights = point[0], point[1:]
        along = sum(weights * votes) / sum(votes**2)
        total = sum((weights - along * votes) ** 2) + 1e-3 * sum(weights**2)
        for h, g, x in zip(share, gain, signs, strict=True):
            logit = offset + x @ weights
            total += h / sum(share) / 2 * math.log1p(math.exp(-logit))
            total += g / sum(gain) / 2 * math.log1p(math.exp(logit))
        return total

    bounds = [(-10, 10), (0, 10), (0, 10), (0, 10)]
    found = minimize(objective, [0, 1, 1, 1], bounds=bounds, method="SLSQP", tol=1e-12)
    weights = learn_weights(outcomes, DELTA)
    spread = np.array([[row[name] for name in names] for row in rows]).std(axis=0)
    standardised = np.array([weights[name] for name in names]) * spread
    expected = found.x[1:]
    assert min(expected) > 0.01 * sum(expected)  # each sign has a say
    assert standardised / standardised.sum() == pytest.approx(expected / expected.sum(), abs=0.01)


def test_no_weight_is_negative_although_a_sign_goes_with_gain():
    outcomes = [outcome(0.1, {"moved": 0.5 + 0.01 * i, "doubted": 0.1}) for i in range(20)]
    outcomes += [outcome(-0.1, {"moved": 0.01 * i, "doubted": 0.5}) for i in range(4)]
    weights = learn_weights(outcomes, DELTA)
    assert min(weights.values()) == 0
    assert weights["moved"] < 0.2 * weights["doubted"]
    assert list(weights) == list(SIGNS)


def test_order_and_units_change_no_score_and_a_mean_image_costs_1():
    outcomes = simulated(5, 80)
    weights = learn_weights(outcomes, DELTA)
    assert learn_weights(outcomes, DELTA) == weights
    assert learn_weights(outcomes[::-1], DELTA) == pytest.approx(weights, rel=1e-3, abs=1e-4)
    costs = [
        sum(weights[name] * getattr(item.signs[0], name) for name in SIGNS) for item in outcomes
    ]
    assert np.mean(costs) == pytest.approx(1)

    def stretched(item: Outcome) -> Outcome:
        row = {name: getattr(item.signs[0], name) for name in SIGNS}
        return outcome(item.gain, row | {"moved": 7 * row["moved"]})

    other = learn_weights([stretched(item) for item in outcomes], DELTA)
    expected = weights | {"moved": weights["moved"] / 7}
    assert other == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_several_lesions_count_by_the_greatest_of_each_sign():
    rng = np.random.default_rng(0)
    pairs = [
        ({"moved": a, "doubted": b}, {"moved": c, "doubted": d})
        for a, b, c, d in rng.random((60, 4))
    ]
    worst = [{name: max(one[name], two[name]) for name in one} for one, two in pairs]
    gains = [0.08 - 0.12 * row["doubted"] for row in worst]
    several = [outcome(gain, *pair) for gain, pair in zip(gains, pairs, strict=True)]
    single = [outcome(gain, row) for gain, row in zip(gains, worst, strict=True)]
    assert learn_weights(several, DELTA) == learn_weights(single, DELTA)


def test_images_left_as_they_were_are_passed_over():
    outcomes = simulated(6, 60)
    unchanged = [outcome(0.0, changed=False), outcome(0.0, {"moved": 3.0}, changed=False)] * 20
    assert learn_weights([*unchanged, *outcomes], DELTA) == learn_weights(outcomes, DELTA)


@pytest.mark.parametrize("gain", [0.05, 0.0, -0.05])
def test_votes_are_the_weights_where_nothing_can_be_learned(gain):
    """None fell, none changed its DSC, or none rose."""
    rng = np.random.default_rng(0)
    rows = rng.random((30, 2)) * [1.0, 0.1]
    outcomes = [outcome(gain, {"moved": moved, "doubted": doubted}) for moved, doubted in rows]
    weights = learn_weights(outcomes, DELTA)
    spread = rows.std(axis=0)
    moved, doubted = weights["moved"] * spread[0], weights["doubted"] * spread[1]
    assert moved / PRIOR["moved"] == pytest.approx(doubted / PRIOR["doubted"])
    assert weights["moved"] > 0
    assert weights["scattered"] == 0  # never seen to vary


def test_votes_are_the_weights_where_all_signs_go_with_gain():
    outcomes = [
        outcome(0.01 * i - 0.05, {"moved": 0.1 * i, "doubted": 0.01 * i}) for i in range(20)
    ]
    weights = learn_weights(outcomes, DELTA)
    moved, doubted = weights["moved"] * 10, weights["doubted"]
    assert moved / PRIOR["moved"] == pytest.approx(doubted / PRIOR["doubted"], rel=1e-6)
    assert weights["moved"] > 0


def test_without_any_image_all_signs_count_as_beforehand():
    assert learn_weights([], DELTA) == PRIOR
    alike = [outcome(0.1, {"moved": 0.2}), outcome(-0.1, {"moved": 0.2})]
    assert learn_weights(alike, DELTA) == PRIOR


@pytest.mark.parametrize("delta", [-0.1, 1.0, math.nan])
def test_refuses_a_delta_that_is_no_fall(delta):
    with pytest.raises(ConfigError, match="delta: expected a DSC in"):
        learn_weights([], delta)

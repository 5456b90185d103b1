"""Which threshold is chosen, against plain loops and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from outcomes_drawn import drawn, outcome

from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.rule import calibrate_rule
from ultrarefiner.calibration.threshold import (
    candidate_thresholds,
    deliver,
    patient_losses,
    search_threshold,
)
from ultrarefiner.errors import InputError
from ultrarefiner.refine.acceptance import CONFORMAL, NETWORK
from ultrarefiner.statistics import wilson_interval


def test_losses_of_patients_by_hand() -> None:
    outcomes = [
        outcome("b", -0.1, image="1"),
        outcome("a", -0.1, image="2"),
        outcome("b", 0.1, image="3"),
        outcome("a", -0.02, image="4"),  # a fall of delta is none
    ]
    accepted = np.array([[False] * 4, [True, False, True, True], [True] * 4])
    losses = patient_losses(outcomes, accepted, delta=0.0200001)
    np.testing.assert_allclose(losses, [[0, 0], [0, 0.5], [0.5, 0.5]])


def test_losses_against_a_plain_loop() -> None:
    outcomes = drawn(20, seed=1)
    rng = np.random.default_rng(0)
    accepted = rng.uniform(size=(5, len(outcomes))) < 0.6
    losses = patient_losses(outcomes, accepted, delta=0.02)
    for row, taken in zip(losses, accepted, strict=True):
        expected = []
        for patient in sorted({item.patient for item in outcomes}):
            inside = [i for i, item in enumerate(outcomes) if item.patient == patient]
            harmed = [taken[i] and outcomes[i].dsc_refined < 0.5 - 0.02 for i in inside]
            expected.append(sum(harmed) / len(harmed))
        np.testing.assert_allclose(row, expected)


def test_thresholds_accept_nothing_first_and_all_last() -> None:
    assert candidate_thresholds([]) == (math.inf, -math.inf)
    assert candidate_thresholds([-2.0, 0.0, -1.0, -2.0]) == (math.inf, 0.0, -1.0, -2.0, -math.inf)


def test_the_chosen_threshold_is_the_loosest_that_passes() -> None:
    """Of 40 patients one may be harmed at alpha 0.15: 0.85^40 + 40 0.15 0.85^39 = 0.012."""
    outcomes = [outcome(f"{n:02}", -0.1 if n >= 35 else 0.1) for n in range(40)]
    scores = [-float(n) for n in range(40)]
    found = search_threshold(
        outcomes, scores, candidate_thresholds(scores), promise=Promise(alpha=0.15)
    )
    # Two of 40: P(X <= 2) = 0.049 with X ~ Bin(40, 0.15); three of 40: 0.130.
    assert found.threshold == -36.0
    chosen, next_one = found.tried[found.chosen], found.tried[found.chosen + 1]
    assert chosen.p_value == pytest.approx(0.0486, abs=1e-4)
    assert next_one.p_value == pytest.approx(0.1302, abs=1e-4)
    assert chosen.coverage == pytest.approx(37 / 40)
    assert chosen.harmed_share == pytest.approx(2 / 40)
    assert chosen.gain == pytest.approx((35 * 0.1 - 2 * 0.1) / 40)
    assert found.tried[0].coverage == 0
    assert found.tried[-1].coverage == 1


def test_conformal_risk_control_accepts_more_and_tests_nothing() -> None:
    outcomes = [outcome(f"{n:02}", -0.1 if n >= 35 else 0.1) for n in range(40)]
    scores = [-float(n) for n in range(40)]
    promise = Promise(alpha=0.15, method=CONFORMAL)
    found = search_threshold(outcomes, scores, candidate_thresholds(scores), promise=promise)
    # (5 + 1) / 41 = 0.146: all five may be harmed.
    assert found.threshold == -math.inf
    assert {tried.p_value for tried in found.tried} == {None}


def test_too_few_patients_to_choose_on() -> None:
    with pytest.raises(InputError, match="at least 59 to choose"):
        search_threshold([outcome("a", 0.1)], [0.0], candidate_thresholds([0.0]), promise=Promise())


def test_what_is_delivered() -> None:
    outcomes = [outcome("a", 0.1, image="1"), outcome("a", -0.1, image="2"), outcome("b", 0.3)]
    found = deliver(outcomes, np.array([True, True, False]), delta=0.02)
    assert (found.images, found.patients) == (3, 2)
    assert found.accepted_share == pytest.approx(2 / 3)
    assert found.harmed_share == pytest.approx(0.25)
    assert found.gain == pytest.approx(0.0)
    nobody = deliver(outcomes, np.zeros(3, dtype=bool), delta=0.02)
    assert nobody.harmed_share == 0
    assert (nobody.harmed_low, nobody.harmed_high) == wilson_interval(0, 2)


def test_a_rule_keeps_the_gain_and_loses_the_harm() -> None:
    """Harm comes where the mask moved far: the score finds it, the threshold cuts it off."""
    found = calibrate_rule(
        drawn(60, seed=1), drawn(120, seed=2), Promise(), source=NETWORK, binding="0"
    )
    assert found.before.harmed_share > 0.1
    assert found.after.harmed_share < 0.05
    assert found.kept_gain is not None
    assert found.kept_gain > 1  # less harm is more gain
    assert not found.trusts_nothing
    assert found.rule.num_patients == 120
    scores = sorted(case.score for case in found.cases if case.split == "B")
    assert list(found.rule.scores) == scores
    tried = [step.threshold for step in found.search.tried]
    assert tried == [math.inf, *sorted(set(scores), reverse=True), -math.inf]


def test_new_patients_are_harmed_as_seldom_as_promised() -> None:
    """From learning to threshold: at most eta of the calibrations break the bound, as drawn.

    Images are harmed with probability 0.9 from a distance of 0.8 on, so that the risk of a
    threshold has a closed form.
    """
    promise, num = Promise(alpha=0.12, eta=0.1), 400
    risks = []
    for draw in range(num):
        learned, chosen = drawn(10, seed=1000 + draw), drawn(40, seed=5000 + draw)
        rule = calibrate_rule(learned, chosen, promise, source=NETWORK, binding="0").rule
        farthest = min(1.0, -rule.threshold / rule.weights["moved"])
        risks.append(0.9 * max(0.0, farthest - 0.8))
    broken = np.mean(np.array(risks) > promise.alpha)
    assert broken <= promise.eta + 2 * math.sqrt(promise.eta * (1 - promise.eta) / num)
    assert np.mean(risks) > promise.alpha / 6  # not for being timid


def test_a_harmful_refiner_is_trusted_with_nothing() -> None:
    harmful = [outcome(f"p{n}", -0.2, moved=n / 100) for n in range(100)]
    found = calibrate_rule(harmful[:30], harmful[30:], Promise(), source=NETWORK, binding="0")
    assert found.trusts_nothing
    assert found.kept_gain is None
    assert found.after.harmed_share == 0


def test_nothing_to_learn_on() -> None:
    with pytest.raises(InputError, match="no image is left to learn the score on"):
        calibrate_rule([], drawn(60, seed=1), Promise(), source=NETWORK, binding="0")

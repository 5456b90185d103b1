"""The rule: one monotone score, a threshold, plain JSON, and what it says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import rule_of, signs_of

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.acceptance import COMPLAINTS, SIGNS, AcceptanceRule, Signs

_VALUES = st.floats(0, 4)
_MANY = st.lists(_VALUES, min_size=len(SIGNS), max_size=len(SIGNS))


def _signs(values: list[float]) -> Signs:
    return Signs(**dict(zip(SIGNS, values, strict=True)))


def test_the_worst_lesion_decides() -> None:
    weights = dict.fromkeys(SIGNS, 0.0) | {"moved": 2.0, "doubted": 0.5}
    rule = rule_of(weights=weights)
    harmless, moved, doubted = signs_of(), signs_of(moved=0.25), signs_of(doubted=0.5, strayed=1.0)
    assert rule.score([harmless]) == 0
    assert rule.score([moved]) == -0.5
    assert rule.score([doubted]) == -0.25
    assert rule.score([doubted, moved, harmless]) == -0.5
    assert rule.complaint([doubted, moved, harmless]) == COMPLAINTS["moved"]
    assert rule.complaint([doubted]) == COMPLAINTS["doubted"]


def test_an_image_that_stays_as_it_was_has_the_best_score() -> None:
    score = rule_of().score([])
    assert score == 0
    assert math.copysign(1, score) == 1  # not "-0.0" in tables


@given(weights=_MANY, low=_MANY, more=_MANY, other=_MANY)
def test_a_worse_sign_never_raises_the_score(
    weights: list[float], low: list[float], more: list[float], other: list[float]
) -> None:
    rule = rule_of(weights=dict(zip(SIGNS, weights, strict=True)))
    high = [a + b for a, b in zip(low, more, strict=True)]
    score = rule.score([_signs(low)])
    assert rule.score([_signs(high)]) <= score <= 0
    assert rule.score([_signs(low), _signs(other)]) <= score


@pytest.mark.parametrize(
    ("threshold", "accepted"),
    [(-0.5, True), (math.nextafter(-0.5, 0), False), (-math.inf, True), (math.inf, False)],
)
def test_the_threshold_itself_is_accepted(threshold: float, accepted: bool) -> None:
    rule = rule_of(threshold=threshold)
    assert rule.accepts(rule.score([signs_of(moved=0.5)])) == accepted
    assert rule_of(threshold=threshold).accepts(0.0) == (threshold <= 0)


def test_every_sign_has_words_of_its_own() -> None:
    assert tuple(COMPLAINTS) == SIGNS
    assert len(set(COMPLAINTS.values())) == len(SIGNS)
    assert all(len(words) < 45 and "; " not in words for words in COMPLAINTS.values())
    assert rule_of().complaint([signs_of()]) == "nothing is trusted"
    assert rule_of().complaint([]) == "nothing is trusted"


@pytest.mark.parametrize(
    ("threshold", "stored"), [(-0.125, -0.125), (-math.inf, None), (math.inf, "none")]
)
def test_it_survives_json(threshold: float, stored: float | str | None) -> None:
    rule = rule_of(threshold=threshold, scores=(-1 / 3, 0.0))
    content = json.dumps(rule.to_json(), allow_nan=False)
    assert json.loads(content)["threshold"] == stored
    assert AcceptanceRule.from_json(json.loads(content)) == rule
    assert list(json.loads(content)["weights"]) == list(SIGNS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"moved": 1.0}}, "weights: expected moved, resized"),
        ({"weights": dict.fromkeys(SIGNS, -1.0)}, "weights: expected finite, >= 0"),
        ({"weights": dict.fromkeys(SIGNS, math.nan)}, "weights: expected finite, >= 0"),
        ({"threshold": math.nan}, "threshold: expected a number"),
        ({"alpha": 0.0}, r"alpha: expected in \(0, 1\), found 0.0"),
        ({"eta": 1.0}, r"eta: expected in \(0, 1\)"),
        ({"delta": -0.1}, r"delta: expected in \[0, 1\)"),
        ({"method": "hope"}, "method: expected learn-then-test or .*, found hope"),
        ({"source": "elsewhere"}, "source: expected network or masks"),
        ({"scores": (0.0, -1.0)}, "scores: expected finite, ascending"),
        ({"scores": (-math.inf,)}, "scores: expected finite"),
        ({"num_patients": 4}, "counts: expected .*, found 4 patients, 3 images"),
    ],
)
def test_what_cannot_be_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule_of(**changes)


def test_other_fields_are_named() -> None:
    stored = rule_of().to_json()
    stored["treshold"] = stored.pop("threshold")
    with pytest.raises(ConfigError, match=r"found threshold, treshold"):
        AcceptanceRule.from_json(stored)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_signs_are_finite_and_not_negative(value: float) -> None:
    with pytest.raises(ConfigError, match="sign resized: expected finite, >= 0"):
        signs_of(resized=value)

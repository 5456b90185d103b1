"""Risk and coverage against every image cut into pieces that enter one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.errors import InputError
from ultrarefiner.statistics import risk_coverage

PIECES = 12_000  # of all images together


def brute_force(scores, losses, patients, *, rng) -> float:
    """Return the mean risk after each piece; those of one score come in any order."""
    num_images = {name: patients.count(name) for name in patients}
    each = [PIECES // (len(num_images) * num_images[name]) for name in patients]
    scores, losses = np.repeat(scores, each), np.repeat(losses, each)
    order = np.lexsort((rng.random(len(scores)), -scores))
    return float((np.cumsum(losses[order]) / np.arange(1, len(losses) + 1)).mean())


@settings(deadline=None, max_examples=40)
@given(
    images=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from("abcd")),
        min_size=1,
        max_size=8,
    ),
)
def test_area_is_that_of_pieces_entering_one_by_one(images):
    scores, losses, patients = (list(column) for column in zip(*images, strict=True))
    found = risk_coverage(np.array(scores, float), np.array(losses), patients)
    rng = np.random.default_rng(0)
    assert found.area == pytest.approx(brute_force(scores, losses, patients, rng=rng), abs=0.02)
    best = brute_force([-loss for loss in losses], losses, patients, rng=rng)
    assert found.excess_area == pytest.approx(found.area - best, abs=0.02)
    assert found.excess_area >= 0
    assert found.coverage[-1] == 1
    assert len(found.coverage) == len(found.risk) == len(set(scores))


def test_curve_by_hand():
    scores, losses = np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.0, 1.0, 0.0, 1.0])
    found = risk_coverage(scores, losses)
    assert found.coverage == (0.25, 0.75, 1.0)
    assert found.risk == pytest.approx((0.0, 1 / 3, 0.5))
    # From 1/4 to 3/4 half a loss per image: 1/2 · 1/2 - 1/8 ln 3; then 1/4 - 1/2 ln 4/3.
    area = 0.25 - np.log(3) / 8 + 0.25 - 0.5 * np.log(4 / 3)
    assert found.area == pytest.approx(area)
    assert found.excess_area == pytest.approx(area - (0.5 - 0.5 * np.log(2)))


def test_the_best_order_has_no_excess_and_a_constant_score_the_mean_risk():
    rng = np.random.default_rng(0)
    losses = rng.random(50)
    assert risk_coverage(-losses, losses).excess_area == 0
    constant = risk_coverage(np.zeros(50), losses)
    assert (constant.coverage, constant.area) == ((1.0,), pytest.approx(losses.mean()))
    assert constant.risk == pytest.approx((losses.mean(),))
    worst = risk_coverage(losses, losses)
    assert worst.excess_area > constant.excess_area > 0


def test_ties_are_the_mean_of_all_their_orders():
    rng = np.random.default_rng(1)
    losses = (rng.random(400) < 0.1).astype(float)
    scores = rng.integers(0, 5, 400).astype(float)
    broken = [risk_coverage(scores + 0.5 * rng.random(400), losses).area for _ in range(200)]
    assert risk_coverage(scores, losses).area == pytest.approx(np.mean(broken), abs=0.002)


def test_copies_of_a_patients_image_change_nothing():
    scores, losses = np.array([3.0, 2.0, 1.0]), np.array([0.0, 1.0, 0.5])
    copied = [0, 0, 0, 1, 2, 2]
    once = risk_coverage(scores, losses)
    found = risk_coverage(scores[copied], losses[copied], [*"aaabcc"])
    assert found.area == pytest.approx(once.area)
    assert found.risk == pytest.approx(once.risk)
    assert risk_coverage(scores[copied], losses[copied]).area != pytest.approx(once.area)


def test_tends_to_the_sum_over_images():
    rng = np.random.default_rng(2)
    scores = rng.random(2000)
    losses = (rng.random(2000) > scores).astype(float)
    ordered = losses[np.argsort(-scores)]
    of_images = (np.cumsum(ordered) / np.arange(1, 2001)).mean()
    assert risk_coverage(scores, losses).area == pytest.approx(of_images, abs=0.003)


@pytest.mark.parametrize(
    ("scores", "losses", "patients", "message"),
    [
        ([], [], None, "found 0 scores"),
        ([0.0], [0.0, 1.0], None, "1 scores, 2 losses"),
        ([0.0], [0.0], ["a", "b"], "2 patients"),
        ([np.nan], [0.0], None, "scores: expected finite"),
        ([0.0], [np.inf], None, "losses: expected finite"),
    ],
)
def test_refuses_what_has_no_curve(scores, losses, patients, message):
    with pytest.raises(InputError, match=message):
        risk_coverage(np.array(scores), np.array(losses), patients)

"""The words say what was promised, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from outcomes_drawn import drawn, outcome

from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.rule import Calibration, calibrate_rule
from ultrarefiner.calibration.statement import refusal, state
from ultrarefiner.refine.acceptance import CONFORMAL, CROSS_CONFORMAL, MASKS, NETWORK


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate_rule(
        drawn(20, seed=1), drawn(70, seed=2), Promise(), source=NETWORK, binding="0"
    )


def test_with_confidence(found: Calibration) -> None:
    words = state(found.rule)
    whom = f"70 patients with {found.rule.num_images} images"
    assert words.startswith(f"With confidence 0.95 over the draw of {whom}, at most 0.05 of a ")
    for part in (
        "the network's own coarse masks by more than 0.02 DSC",
        "these weights and settings",
    ):
        assert part in words
    assert "xpect" not in words


def test_in_expectation(found: Calibration) -> None:
    words = state(replace(found.rule, method=CONFORMAL))
    assert words.startswith("In expectation over the draw of 70 patients")
    assert "it can be more" in words
    assert "onfidence" not in words


def test_across_folds(found: Calibration) -> None:
    words = state(replace(found.rule, method=CROSS_CONFORMAL))
    assert words.startswith("To be expected, not guaranteed")
    assert "nothing sure of this one" in words


def test_of_given_masks(found: Calibration) -> None:
    words = state(replace(found.rule, source=MASKS))
    assert "the given coarse masks" in words
    assert "nobody can check" in words


def test_what_could_not_be_checked(found: Calibration) -> None:
    plain = state(found.rule)
    assert "only images" not in plain
    assert "Images without" not in plain
    words = state(found.rule, num_without_patient=7, only_images=True)
    assert "Images without a patient (7) counted as patients of their own: not true if" in words
    assert "only images could be compared, and it holds only if none of these patients" in words


def test_why_there_is_no_rule() -> None:
    harmful = [outcome(f"p{n:02}", -0.2, moved=n / 100) for n in range(100)]
    harmless = [outcome(f"p{n:02}", 0.1, moved=n / 100) for n in range(20, 100)]
    words = refusal(
        calibrate_rule(harmful[:20], harmful[20:], Promise(), source=NETWORK, binding="0")
    )
    assert "80 patients' images 100.0% are made worse by more than 0.02 DSC" in words
    assert "5.0% may be" in words
    assert "Train the refiner on masks like these" in words
    assert "more alpha or delta on other patients." in words
    seldom = [replace(item, dsc_refined=0.3) if n in (0, 40) else item
              for n, item in enumerate(harmless)]  # fmt: skip
    found = calibrate_rule(harmless[:9], seldom, Promise(), source=NETWORK, binding="0")
    barely = replace(found, search=replace(found.search, chosen=0))
    assert "takes more patients to show" in refusal(barely)

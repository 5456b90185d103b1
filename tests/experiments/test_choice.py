"""Choosing settings by cross-validation, against cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.experiments.choice import (
    CaseTable,
    CriterionConfig,
    choose_variant,
    cross_validate,
    deal_patients,
)


def _table(**gains: list[list[float]]) -> CaseTable:
    """Coarse DSC 0.5 everywhere, one patient an image; ``S N`` gains of each variant."""
    refined = {name: 0.5 + np.array(values) for name, values in gains.items()}
    shape = next(iter(refined.values())).shape
    patients = [f"p{number}" for number in range(shape[1])]
    return CaseTable(patients, np.full(shape, 0.5), refined)


class TestChoose:
    def test_the_highest_gain_wins_and_the_first_of_equals(self) -> None:
        gains = np.array([[[0.1, 0.1]], [[0.2, 0.2]], [[0.2, 0.2]]])
        assert choose_variant(gains) == 1

    def test_a_variant_that_harms_too_many_is_out(self) -> None:
        gains = np.full((2, 1, 20), 0.1)
        gains[1] = 0.3
        gains[1, 0, 0] = -0.5
        assert choose_variant(gains) == 1, "one of twenty is 5 %"
        gains[1, 0, 1] = -0.5
        assert choose_variant(gains) == 0
        assert choose_variant(gains, CriterionConfig(max_harmed=0.1)) == 1

    def test_harm_is_averaged_over_sources(self) -> None:
        gains = np.full((2, 2, 10), 0.1)
        gains[1] = 0.3
        gains[1, 0, 0] = -0.5  # 10 % of one source, 5 % of both
        assert choose_variant(gains) == 1

    def test_exactly_delta_is_no_harm(self) -> None:
        table = _table(still=[[0.0] * 4], drop=[[0.3, 0.3, 0.3, -0.02]])
        assert choose_variant(table.gains(["still", "drop"])) == 1
        table = _table(still=[[0.0] * 4], drop=[[0.3, 0.3, 0.3, -0.0201]])
        assert choose_variant(table.gains(["still", "drop"])) == 0

    def test_if_all_harm_the_least_harmful_wins(self) -> None:
        gains = np.array([[[0.9, -0.1, -0.1]], [[0.1, 0.1, -0.1]], [[0.2, 0.1, -0.1]]])
        assert choose_variant(gains) == 2


class TestDeal:
    def test_patients_stay_together_and_folds_are_even(self) -> None:
        patients = [f"p{number // 3}" for number in range(36)]
        fold = deal_patients(patients, 5, seed=3)
        by_patient = {name: set() for name in patients}
        for name, number in zip(patients, fold, strict=True):
            by_patient[name].add(number)
        assert all(len(numbers) == 1 for numbers in by_patient.values())
        sizes = np.bincount([numbers.pop() for numbers in by_patient.values()])
        assert sorted(sizes) == [2, 2, 2, 3, 3]

    def test_a_function_of_the_seed_and_the_patients_alone(self) -> None:
        patients = [f"p{number}" for number in range(20)]
        first = deal_patients(patients, 5, seed=1)
        assert np.array_equal(first, deal_patients(patients, 5, seed=1))
        assert np.array_equal(first[::-1], deal_patients(patients[::-1], 5, seed=1))
        assert not np.array_equal(first, deal_patients(patients, 5, seed=2))

    def test_too_few_patients(self) -> None:
        with pytest.raises(InputError, match="expected 5 or more, found 2"):
            deal_patients(["a", "b", "a"], 5, seed=0)


class TestCrossValidation:
    def test_a_fluke_is_not_rewarded(self) -> None:
        """The variant that shines on one patient is chosen by the folds that saw him, only."""
        table = _table(
            steady=[[0.10, 0.10, 0.10, 0.10]],
            fluke=[[0.48, 0.05, 0.05, 0.05]],
        )
        choice = cross_validate(table, np.arange(4))
        assert [fold.chosen for fold in choice.folds] == ["steady", "fluke", "fluke", "fluke"]
        assert choice.best == "fluke"
        assert choice.apparent_gain == pytest.approx(0.63 / 4)
        assert choice.gain.mean == pytest.approx((0.10 + 3 * 0.05) / 4)
        assert choice.against_first.mean == pytest.approx(-3 * 0.05 / 4)
        assert choice.harmed.mean == 0
        assert [fold.gain for fold in choice.folds] == pytest.approx([0.10, 0.05, 0.05, 0.05])

    def test_sources_weigh_the_same_and_harm_is_held_out(self) -> None:
        table = _table(
            given=[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
            other=[[0.2, 0.2, 0.2, -0.1], [0.1, 0.1, 0.1, 0.1]],
        )
        choice = cross_validate(table, np.array([0, 0, 1, 1]))
        # Fold 0 is held out: the others harm 1 of 4 masks, so the given one is kept.
        assert [fold.chosen for fold in choice.folds] == ["given", "other"]
        assert choice.best == "given", "1 of 8 masks is more than 5 %"
        assert choice.gain.mean == pytest.approx((0 + 0 + 0.15 + 0.0) / 4)
        assert choice.harmed.mean == pytest.approx(0.5 / 4)
        assert [fold.harmed for fold in choice.folds] == [0, 0.25]
        assert [fold.num_images for fold in choice.folds] == [2, 2]

    def test_only_the_named_variants_are_candidates(self) -> None:
        table = _table(a=[[0.0] * 4], b=[[0.1] * 4], c=[[0.3] * 4])
        choice = cross_validate(table, np.arange(4), names=["a", "b"])
        assert choice.best == "b"
        assert choice.gain.mean == choice.against_first.mean == pytest.approx(0.1)
        assert choice.gain.low == choice.gain.high == pytest.approx(0.1)

    def test_the_interval_is_over_patients(self) -> None:
        """Ten copies of each image of a patient say no more than one."""
        gains = [0.0, 0.1, 0.2, 0.3, 0.1]
        one = CaseTable(list("abcde"), np.full((1, 5), 0.5), {"v": 0.5 + np.array([gains])})
        many = CaseTable(
            list("abcde") * 10, np.full((1, 50), 0.5), {"v": 0.5 + np.array([gains * 10])}
        )
        few, much = (
            cross_validate(table, np.arange(len(table.patients)) % 5) for table in (one, many)
        )
        assert (few.gain.low, few.gain.high) == pytest.approx((much.gain.low, much.gain.high))
        assert few.gain.low < 0.1 < few.gain.high


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"'v'.*1 sources x 3 images"):
        CaseTable(["a", "b", "c"], np.zeros((1, 3)), {"v": np.zeros((1, 2))})


@pytest.mark.parametrize("settings", [{"max_harmed": 1.5}, {"delta": -0.1}])
def test_a_criterion_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CriterionConfig(**settings)

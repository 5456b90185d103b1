"""The rough-mask experiment: a fair draw, a replayable result."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from busbra_phantoms import write_phantoms

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.rough import RoughConfig, roughen_mask
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks
from ultrarefiner.experiments.scores import choose_records
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

_ROUGH = RoughConfig(
    shift_std=0.13, log_scale_mean=0.0, log_scale_std=0.1, boundary_std=0.19, correlation=0.45
)


def _records(num_patients: int = 30) -> tuple[Record, ...]:
    """One to three images a patient, folds 1 to 3 in turn."""
    return tuple(
        Record(
            image=Path(f"{patient}-{image}.png"),
            patient=f"p{patient}",
            fold=str(1 + patient % 3),
        )
        for patient in range(num_patients)
        for image in range(1 + patient % 3 + patient % 2)
    )


def _by_patient(records: tuple[Record, ...]) -> dict[str, list[Record]]:
    patients: dict[str, list[Record]] = {}
    for record in records:
        patients.setdefault(record.patient, []).append(record)
    return patients


def test_all_images_of_the_folds_are_chosen_in_order() -> None:
    records = _records()
    chosen = choose_records(records, RoughMaskExperiment(folds=("1", "3")))
    assert chosen == tuple(record for record in records if record.fold in {"1", "3"})


@pytest.mark.parametrize("num_images", [1, 7, 20])
def test_the_draw_is_by_patient(num_images: int) -> None:
    records = _records()
    experiment = RoughMaskExperiment(folds=("2", "3"), num_images=num_images, seed=5)
    chosen = choose_records(records, experiment)
    assert len(set(chosen)) == len(chosen) <= num_images
    assert {record.fold for record in chosen} <= {"2", "3"}
    # Patients follow each other; whatever the number cuts off can only belong to the last of them.
    order = [record.patient for record in chosen]
    changes = sum(a != b for a, b in pairwise(order))
    found, everything = _by_patient(chosen), _by_patient(records)
    assert changes == len(found) - 1
    for patient in list(found)[:-1]:
        assert found[patient] == everything[patient]


def test_the_draw_is_a_pure_function_of_the_seed() -> None:
    records = _records()
    experiment = RoughMaskExperiment(folds=("1", "2", "3"), num_images=12, seed=5)
    np.random.seed(1)  # noqa: NPY002 (the global generator must not matter)
    first = choose_records(records, experiment)
    np.random.seed(2)  # noqa: NPY002
    assert choose_records(records, experiment) == first
    patients = _by_patient(records)
    in_another_order = tuple(r for name in reversed(patients) for r in patients[name])
    assert choose_records(in_another_order, experiment) == first
    assert choose_records(records, replace(experiment, seed=6)) != first


def test_a_larger_draw_starts_with_the_smaller_one() -> None:
    experiment = RoughMaskExperiment(folds=("1", "2", "3"), num_images=6, seed=5)
    small = choose_records(_records(), experiment)
    large = choose_records(_records(), replace(experiment, num_images=20))
    assert large[: len(small)] == small


def test_more_images_than_there_are_is_all_of_them() -> None:
    records = _records()
    experiment = RoughMaskExperiment(folds=("1",), num_images=10_000)
    chosen = choose_records(records, experiment)
    assert set(chosen) == {record for record in records if record.fold == "1"}


def test_an_experiment_needs_a_variant() -> None:
    with pytest.raises(ConfigError, match="variants: expected at least one, found none"):
        RoughMaskExperiment(folds=("1",), variants={})


def _variant(gate: GateConfig, min_iou: float) -> RefinerConfig:
    return RefinerConfig(
        prompts=replace(RefinerConfig().prompts, jitter=0.0),
        gate=gate,
        stabilizer=StabilizerConfig(min_iou=min_iou, min_area_ratio=0.0, max_area_ratio=1e9),
    )


_FREE = _variant(GateConfig(kind="none"), min_iou=0.0)
_FROZEN = _variant(GateConfig(kind="none"), min_iou=1.0)


def test_a_run_scores_every_variant_against_the_same_rough_masks(tmp_path: Path) -> None:
    truths = write_phantoms(tmp_path)
    experiment = RoughMaskExperiment(
        folds=("1",), seed=3, generator=_ROUGH, variants={"free": _FREE, "frozen": _FROZEN}
    )
    seen: list[int] = []

    def track(items, total):
        seen.append(total)
        return items

    result = run_rough_masks(experiment, tmp_path, command="a test", device="cpu", track=track)
    assert json.loads(json.dumps(result, allow_nan=False))["command"] == "a test"
    assert seen == [3]
    assert (result["num_images"], result["num_patients"]) == (3, 2)
    assert result["experiment"]["seed"] == 3
    assert result["experiment"]["variants"]["frozen"]["stabilizer"]["min_iou"] == 1.0
    assert set(result["versions"]) == {"ultrarefiner", "torch", "numpy"}
    assert len(result["data_sha256"]) == 64

    # The rough masks can be made again from the seed alone, and scored by hand.
    by_hand = []
    for index, truth in enumerate(truths):
        rough = roughen_mask(truth, np.random.default_rng([3, index]), _ROUGH)
        by_hand.append(2 * (rough & truth).sum() / (rough.sum() + truth.sum()))
    assert [case["coarse_dsc"] for case in result["cases"]] == pytest.approx(by_hand, abs=1e-4)
    assert result["coarse"]["dsc"]["mean"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert result["coarse"]["dsc_sd"] == pytest.approx(np.std(by_hand), abs=1e-6)

    # What is always refused is the coarse mask again; what never is, is not.
    frozen, free = result["variants"]["frozen"], result["variants"]["free"]
    assert frozen["dsc"] == result["coarse"]["dsc"]
    assert sum(frozen["reasons"].values()) == sum(free["reasons"].values()) == 3
    assert free["reasons"] == {"accepted": 3}
    assert "accepted" not in frozen["reasons"]
    cases = result["cases"]
    assert [case["image"] for case in cases] == ["bus_0001-l", "bus_0001-r", "bus_0002-l"]
    assert [case["patient"] for case in cases] == ["busbra-1", "busbra-1", "busbra-2"]
    assert all(case["refined_dsc"] != case["coarse_dsc"] for case in cases), "the first variant's"
    refined = [case["refined_dsc"] for case in cases]
    assert free["dsc"]["mean"] == pytest.approx(np.mean(refined), abs=1e-4)

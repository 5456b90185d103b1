"""The rough-mask experiment: a fair draw, a replayable result, a memory that changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.phantom import PhantomConfig, draw_phantom
from ultrarefiner.data.rough import RoughConfig, roughen_mask
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks
from ultrarefiner.experiments.scores import choose_records
from ultrarefiner.foundation import LiteMedSAM, Prompts, lite_medsam
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.predictor import RefinerConfig
from ultrarefiner.refine.prompts import BoxPromptConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

_PHANTOMS = PhantomConfig(
    height_px=(96, 120), width_px=(96, 140), lesion_count_probs=(1.0, 0.0, 0.0)
)
_ROUGH = RoughConfig(
    shift_std=0.13, log_scale_mean=0.0, log_scale_std=0.1, boundary_std=0.19, correlation=0.45
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: beside other test workers, two threads of one model take 3 times the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def _phantoms_as_busbra(root: Path) -> list[np.ndarray]:
    """Write three phantoms of two patients in the layout of BUS-BRA; return their true masks."""
    (root / "Images").mkdir(parents=True)
    (root / "Masks").mkdir()
    data, folds, truths = ["ID,Case,Pathology"], ["ID,Pathology,kFold"], []
    for index, (name, case) in enumerate((("0001-l", 1), ("0001-r", 1), ("0002-l", 2))):
        phantom = draw_phantom(seed=4, index=index, config=_PHANTOMS)
        cv2.imwrite(str(root / "Images" / f"bus_{name}.png"), phantom.image)
        cv2.imwrite(str(root / "Masks" / f"mask_{name}.png"), phantom.mask.astype(np.uint8) * 255)
        data.append(f"bus_{name},{case},{phantom.label}")
        folds.append(f"bus_{name},{phantom.label},1")
        truths.append(phantom.mask)
    (root / "bus_data.csv").write_text("\n".join(data))
    (root / "5-fold-cv.csv").write_text("\n".join(folds))
    return truths


def _variant(gate: GateConfig, min_iou: float) -> RefinerConfig:
    return RefinerConfig(
        prompts=BoxPromptConfig(
            num_stds=2.35, jitter=0.0, floor=0.05, relative=0.4, temperature=0.5
        ),
        gate=gate,
        stabilizer=StabilizerConfig(min_iou=min_iou, min_area_ratio=0.0, max_area_ratio=1e9),
    )


_FREE = _variant(GateConfig(kind="none"), min_iou=0.0)
_FROZEN = _variant(GateConfig(kind="none"), min_iou=1.0)


def test_a_run_scores_every_variant_against_the_same_rough_masks(tmp_path: Path) -> None:
    truths = _phantoms_as_busbra(tmp_path)
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


def _prompts(*boxes: tuple[float, float, float, float]) -> Prompts:
    return Prompts(boxes=torch.tensor(boxes))


def test_memory_answers_as_the_model_does_and_asks_it_once() -> None:
    model = lite_medsam()
    model.encode, model.decode = Mock(wraps=model.encode), Mock(wraps=model.decode)
    remembering = RememberingModel(model)
    assert (remembering.input_size, remembering.mask_size) == (model.input_size, model.mask_size)
    images = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    content_hw = torch.tensor([[200, 256]])
    here, there = _prompts((20, 30, 90, 100)), _prompts((40, 30, 90, 100))
    with torch.inference_mode():
        normalised = remembering.normalise(images, content_hw)
        assert torch.equal(normalised, model.normalise(images, content_hw))
        embeddings = remembering.encode(normalised)
        expected = {
            prompts: LiteMedSAM.decode(model, embeddings, prompts) for prompts in (here, there)
        }
        several = LiteMedSAM.decode(model, embeddings, here, multimask_output=True)
        for _ in range(2):
            assert torch.equal(remembering.encode(normalised), embeddings)
            for prompts, answer in expected.items():
                found = remembering.decode(embeddings, prompts)
                torch.testing.assert_close(found.logits, answer.logits)
                torch.testing.assert_close(found.iou_predictions, answer.iou_predictions)
            found = remembering.decode(embeddings, here, multimask_output=True)
            torch.testing.assert_close(found.logits, several.logits)
        assert (model.encode.call_count, model.decode.call_count) == (1, 3)
        remembering.forget()
        torch.testing.assert_close(remembering.encode(normalised), embeddings)
        remembering.decode(embeddings, here)
        assert (model.encode.call_count, model.decode.call_count) == (2, 4)
        assert not torch.equal(remembering.encode(1 - normalised), embeddings), "another image"
        assert model.encode.call_count == 3


def test_memory_refuses_what_it_could_confuse() -> None:
    remembering = RememberingModel(LiteMedSAM())
    point = Prompts(point_coords=torch.zeros(1, 1, 2), point_labels=torch.ones(1, 1))
    with pytest.raises(AssertionError, match="only box prompts"):
        remembering.decode(torch.zeros(1, 256, 64, 64), point)
    with pytest.raises(AssertionError, match="one image at a time"):
        remembering.decode(torch.zeros(2, 256, 64, 64), _prompts((1, 1, 9, 9), (1, 1, 9, 9)))

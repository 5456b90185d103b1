"""A memory that changes nothing: every kind of prompt, several items and images, never confused."""

from __future__ import annotations

from dataclasses import fields, replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.foundation import Decoded, LiteMedSAM, Prompts, lite_medsam
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.roi import RoiConfig

_BOXES = torch.tensor([[20.0, 30, 90, 100], [40, 30, 90, 100]])
_POINTS = torch.tensor([[[50.0, 60]], [[70, 80]]])
_LABELS = torch.tensor([[1], [0]])


def _rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


QUESTIONS = {
    "box": Prompts(boxes=_BOXES[:1]),
    "another box": Prompts(boxes=_BOXES[1:]),
    "two boxes": Prompts(boxes=_BOXES),
    "two boxes, swapped": Prompts(boxes=_BOXES.flip(0)),
    "point": Prompts(point_coords=_POINTS[:1], point_labels=_LABELS[:1]),
    "the same point, background": Prompts(point_coords=_POINTS[:1], point_labels=_LABELS[1:]),
    "box and point": Prompts(boxes=_BOXES[:1], point_coords=_POINTS[:1], point_labels=_LABELS[:1]),
    "box and mask": Prompts(boxes=_BOXES[:1], masks=_rand(1, 1, 256, 256)),
    "box and another mask": Prompts(boxes=_BOXES[:1], masks=_rand(1, 1, 256, 256, seed=1)),
}


@pytest.fixture
def spied() -> LiteMedSAM:
    model = lite_medsam()
    model.encode, model.decode = Mock(wraps=model.encode), Mock(wraps=model.decode)
    return model


def _equal(found: Decoded, expected: Decoded) -> bool:
    return torch.equal(found.logits, expected.logits) and torch.equal(
        found.iou_predictions, expected.iou_predictions
    )


@torch.inference_mode()
def test_every_question_is_answered_as_the_model_does_and_asked_once(spied: LiteMedSAM) -> None:
    model = RememberingModel(spied)
    assert (model.input_size, model.mask_size) == (spied.input_size, spied.mask_size)
    valid = torch.ones(1, 1, 256, 256, dtype=torch.bool)
    grey = _rand(1, 1, 256, 256)
    assert torch.equal(model.normalise(grey, valid), spied.normalise(grey, valid))
    images = {n: _rand(n, 3, 256, 256) for n in (1, 2)}
    embeddings = {n: model.encode(images[n]) for n in images}
    for name, prompts in QUESTIONS.items():
        count = 2 if name.startswith("two") else 1
        for multimask in (False, True):
            ask = {"prompts": prompts, "multimask_output": multimask}
            expected = LiteMedSAM.decode(spied, embeddings[count], **ask)
            for _ in range(2):
                assert _equal(model.decode(embeddings[count], **ask), expected), name
    assert spied.decode.call_count == 2 * len(QUESTIONS)
    assert torch.equal(model.encode(images[1].clone()), embeddings[1])
    assert spied.encode.call_count == 2


@torch.inference_mode()
def test_the_same_prompts_for_another_image_are_another_question(spied: LiteMedSAM) -> None:
    model = RememberingModel(spied)
    here, there = (model.encode(_rand(1, 3, 256, 256, seed=seed)) for seed in (0, 1))
    prompts = QUESTIONS["box"]
    assert not _equal(model.decode(here, prompts), model.decode(there, prompts))
    assert spied.encode.call_count == spied.decode.call_count == 2
    # Embeddings that someone computed elsewhere are told apart by their content.
    for _ in range(2):
        assert _equal(model.decode(there.clone(), prompts), model.decode(there, prompts))
        assert _equal(model.decode(here.clone(), prompts), model.decode(here, prompts))
    assert spied.decode.call_count == 4


@torch.inference_mode()
def test_no_field_of_the_prompts_is_overlooked(spied: LiteMedSAM) -> None:
    """Whatever prompts may hold one day, two that differ in it are two questions."""
    spied.decode = Mock(side_effect=lambda *_, **__: object())
    model = RememberingModel(spied)
    embeddings = torch.zeros(2, 256, 64, 64)
    full = {
        "boxes": _BOXES,
        "point_coords": _POINTS,
        "point_labels": _LABELS,
        "masks": _rand(2, 1, 256, 256),
    }
    rest = [field.name for field in fields(Prompts) if field.name not in full]
    full |= {name: torch.tensor([0, 1]).to(_kind(name)) for name in rest}
    model.decode(embeddings, Prompts(**full))
    for number, name in enumerate(full, start=2):
        model.decode(embeddings, Prompts(**full | {name: full[name].flip(0)}))
        assert spied.decode.call_count == number, name
    model.decode(embeddings, Prompts(**full))
    assert spied.decode.call_count == 1 + len(full)


def _kind(name: str) -> torch.dtype:
    return torch.bool if name.startswith("has_") else torch.long


@torch.inference_mode()
def test_what_is_forgotten_is_asked_again_and_saved_time_is_counted(spied: LiteMedSAM) -> None:
    model = RememberingModel(spied)
    images, prompts = _rand(1, 3, 256, 256), QUESTIONS["box"]
    first = model.decode(model.encode(images), prompts)
    assert model.seconds_saved == 0
    assert model.decode(model.encode(images), prompts) is first
    saved = model.seconds_saved
    assert saved > 0
    model.forget()
    assert _equal(model.decode(model.encode(images), prompts), first)
    assert (spied.encode.call_count, spied.decode.call_count) == (2, 2)
    assert model.seconds_saved == saved


def test_refiners_that_share_a_memory_give_what_each_gives_alone() -> None:
    """Crops, masks and points among them, on an image with two lesions."""
    image = _rand(120, 150).numpy()
    coarse = np.zeros((120, 150), dtype=np.float32)
    coarse[20:60, 20:70] = coarse[80:110, 90:140] = 1
    base = replace(RefinerConfig(), prompts=PromptConfig(jitter=0.0))
    variants = [
        base,
        replace(base, roi=RoiConfig(crop=True)),
        replace(base, roi=RoiConfig(crop=True), prompts=PromptConfig(jitter=0.0, mask="logit")),
        replace(base, prompts=PromptConfig(jitter=0.0, foreground="interior", num_points=2)),
        replace(base, gate=GateConfig(kind="none")),
    ]
    model = lite_medsam()
    remembering = RememberingModel(model)
    for config in variants:
        shared, alone = (
            Refiner(which, config, device="cpu")(image, coarse) for which in (remembering, model)
        )
        assert np.array_equal(shared.probs, alone.probs)
        assert shared.reason == alone.reason
        assert shared.predicted_iou == alone.predicted_iou
    assert remembering.seconds_saved > 0

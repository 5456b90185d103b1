"""Asking about the mirror image, too: the mean of both answers knows neither left nor right."""

from __future__ import annotations

import torch

from ultrarefiner.foundation import Mirrored, Prompts
from ultrarefiner.foundation.mirrored import mirror_prompts

WIDTH = 256


def _prompts(boxes: torch.Tensor) -> Prompts:
    num = len(boxes)
    generator = torch.Generator().manual_seed(0)
    return Prompts(
        boxes=boxes,
        has_box=torch.arange(num) < num - 1,
        point_coords=boxes.view(num, 2, 2),
        point_labels=torch.tensor([1, 0]).repeat(num, 1),
        masks=torch.randn(num, 1, WIDTH, WIDTH, generator=generator),
        image_index=torch.arange(num),
    )


def test_a_box_a_point_and_a_mask_in_the_mirror() -> None:
    masks = torch.arange(6.0).view(1, 1, 2, 3)
    prompts = Prompts(
        boxes=torch.tensor([[10.0, 20, 30, 60]]),
        has_box=torch.tensor([True]),
        point_coords=torch.tensor([[[0.5, 7.0]]]),
        point_labels=torch.tensor([[1]]),
        masks=masks,
    )
    mirrored = mirror_prompts(prompts, 100)
    assert mirrored.boxes is not None
    assert mirrored.boxes.tolist() == [[70, 20, 90, 60]]
    assert mirrored.point_coords is not None
    assert mirrored.point_coords.tolist() == [[[99.5, 7]]]
    assert mirrored.masks is not None
    assert mirrored.masks[0, 0, 0].tolist() == [2, 1, 0]
    assert mirrored.point_labels is prompts.point_labels
    assert mirrored.has_box is prompts.has_box


def test_mirroring_twice_changes_nothing(frames) -> None:
    prompts = _prompts(frames(2)[2])
    again = mirror_prompts(mirror_prompts(prompts, WIDTH), WIDTH)
    for name in ("boxes", "point_coords", "masks"):
        assert torch.allclose(getattr(again, name), getattr(prompts, name), atol=1e-4), name
    alone = Prompts(boxes=prompts.boxes)
    assert mirror_prompts(alone, WIDTH).point_coords is None
    assert mirror_prompts(alone, WIDTH).masks is None


@torch.inference_mode()
def test_it_is_the_mean_of_both_and_knows_no_side(model, frames) -> None:
    images, _, boxes = frames(2)
    prompts = _prompts(boxes)
    two = Mirrored(model)
    mirror = mirror_prompts(prompts, WIDTH)
    both, both_flipped = two.encode(images), two.encode(images.flip(-1))
    seen, seen_flipped = model.encode(images), model.encode(images.flip(-1))
    for multimask in (False, True):
        found = two.decode(both, prompts, multimask_output=multimask)
        one = model.decode(seen, prompts, multimask_output=multimask)
        other = model.decode(seen_flipped, mirror, multimask_output=multimask)
        torch.testing.assert_close(found.logits, (one.logits + other.logits.flip(-1)) / 2)
        mean_iou = (one.iou_predictions + other.iou_predictions) / 2
        torch.testing.assert_close(found.iou_predictions, mean_iou)
        assert (one.logits - other.logits.flip(-1)).abs().max() > 0.1  # there is a side to forget
        flipped = two.decode(both_flipped, mirror, multimask_output=multimask)
        torch.testing.assert_close(flipped.logits.flip(-1), found.logits, atol=1e-3, rtol=1e-3)


def test_it_asks_as_the_model_is_to_be_asked(model) -> None:
    two = Mirrored(model)
    assert (two.input_size, two.mask_size) == (model.input_size, model.mask_size)
    assert two.multimask_trained == model.multimask_trained
    assert two.weights_sha256 == model.weights_sha256
    images, valid = torch.rand(1, 1, WIDTH, WIDTH), torch.ones(1, 1, WIDTH, WIDTH, dtype=torch.bool)
    assert torch.equal(two.normalise(images, valid), model.normalise(images, valid))

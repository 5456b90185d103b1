"""The whole model: normalisation, batches, gradients, reduced precision."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ultrarefiner.foundation import Prompts
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.precision import autocast, bf16_is_fast, choose_device

CPU = torch.device("cpu")


def test_normalise_stretches_content_and_keeps_padding(model):
    images = torch.zeros(1, 1, 8, 8)
    images[..., :6, :5] = torch.linspace(0.2, 0.7, 30).view(6, 5)
    valid = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    valid[..., :6, :5] = True
    out = model.normalise(images, valid)
    assert out.shape == (1, 3, 8, 8)
    assert out[..., :6, :5].min() == 0
    torch.testing.assert_close(out[..., :6, :5].max(), torch.tensor(1.0))
    assert not out[..., 6:, :].any()
    assert not out[..., :, 5:].any()


def test_normalise_constant_image_is_zero(model):
    out = model.normalise(torch.full((1, 1, 8, 8), 0.3), torch.ones(1, 1, 8, 8) > 0)
    assert torch.equal(out, torch.zeros(1, 3, 8, 8))


def test_normalise_ignores_neighbours_in_batch(model):
    images = torch.stack([torch.rand(1, 8, 8), 0.1 * torch.rand(1, 8, 8)])
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    images[1, :, 4:], valid[1, :, 4:] = 0, False
    together = model.normalise(images, valid)
    alone = [model.normalise(images[i : i + 1], valid[i : i + 1]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))


def test_encoder_batch_equals_one_by_one(model, frames, encoded):
    images = frames(2)[0]
    with torch.no_grad():
        single = model.encode(images[1:])
    torch.testing.assert_close(encoded[0][1:], single, atol=1e-5, rtol=1e-5)


def test_decoder_batch_equals_one_by_one(model, encoded):
    """In float64: in float32 processors round batches of other sizes otherwise, by 1e-5."""
    model = copy.deepcopy(model).double()
    embeddings, boxes = (part.double() for part in encoded)
    image_index = torch.tensor([1, 0, 0, 1])
    boxes = boxes[image_index] + torch.tensor([[0.0], [0.0], [5.0], [-3.0]])
    together = model.decode(embeddings, Prompts(boxes=boxes, image_index=image_index))
    for i, image in enumerate(image_index):
        alone = model.decode(embeddings[image : image + 1], Prompts(boxes=boxes[i : i + 1]))
        torch.testing.assert_close(together.logits[i : i + 1], alone.logits, atol=1e-9, rtol=1e-9)


def test_gradients_reach_every_prompt(model, encoded):
    embeddings, boxes = encoded[0][:1], encoded[1][:1].clone().requires_grad_()
    points = boxes.detach().view(1, 2, 2).mean(dim=1, keepdim=True).requires_grad_()
    masks = torch.zeros(1, 1, 256, 256, requires_grad=True)
    labels = torch.ones(1, 1, dtype=torch.int64)
    prompts = Prompts(boxes=boxes, point_coords=points, point_labels=labels, masks=masks)
    logits = model.decode(embeddings, prompts).logits
    for gradient in torch.autograd.grad(logits.sigmoid().mean(), (boxes, points, masks)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_gradient_reaches_image(model, frames):
    images, _, boxes = frames(1)
    images = images.requires_grad_()
    logits = model.decode(model.encode(images), Prompts(boxes=boxes)).logits
    (gradient,) = torch.autograd.grad(logits.mean(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@torch.inference_mode()
def dsc_by_precision(model, images: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
    """Return ``2 B``: DSC of each image's mask in float32, then in bfloat16."""
    answers = []
    for enabled in (False, True):
        with autocast(CPU, enabled=enabled):
            logits = [
                model.decode(model.encode(image[None]), Prompts(boxes=box[None])).logits[0, 0]
                for image, box in zip(images, boxes, strict=True)
            ]
        masks = torch.stack(logits) > 0
        both = (masks & targets).sum(dim=(1, 2))
        answers.append(2 * both / (masks.sum(dim=(1, 2)) + targets.sum(dim=(1, 2))))
    return torch.stack(answers)


def test_bf16_keeps_the_mask_of_phantoms(model, frames):
    images, targets, boxes = frames(2)
    full, reduced = dsc_by_precision(model, images, boxes, targets)
    assert full.mean() > 0.8
    assert abs(reduced.mean() - full.mean()) <= 0.005


@pytest.mark.realdata
def test_bf16_keeps_the_mask_of_real_images(model, busbra):
    paths = sorted((busbra / "Images").glob("*.png"))
    cases = [busbra_case(model, path) for path in paths[:: len(paths) // 6][:6]]
    images, boxes, targets = (torch.stack(column) for column in zip(*cases, strict=True))
    full, reduced = dsc_by_precision(model, images, boxes, targets)
    assert full.mean() > 0.85
    assert abs(reduced.mean() - full.mean()) <= 0.002


def busbra_case(model, path) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, box from the true mask, and true mask, all in the model's frame."""
    mask_path = path.parents[1] / "Masks" / path.name.replace("bus_", "mask_")
    image, mask = (cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in (path, mask_path))
    frame = Letterbox(image.shape, model.input_size)
    target = torch.from_numpy(frame.shrink((mask > 0).astype(np.float32)) > 0.5)
    rows, cols = target.nonzero().T
    box = torch.stack([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]).float()
    grey = torch.from_numpy(frame.shrink(image.astype(np.float32) / 255))[None, None]
    return model.normalise(grey, frame.content_mask()[None, None])[0], box, target


def test_autocast_can_be_forced():
    for enabled in (False, True):
        with autocast(CPU, enabled=enabled):
            assert torch.is_autocast_enabled("cpu") is enabled
    with autocast(CPU):
        assert torch.is_autocast_enabled("cpu") is bf16_is_fast(CPU)


def test_chosen_device_is_taken():
    assert choose_device("cpu") == CPU
    assert choose_device().type in {"cpu", "cuda", "mps"}

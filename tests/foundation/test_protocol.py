"""What every registered foundation model must do, and the prompts it is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel, Prompts


@pytest.fixture(scope="module", params=list(FOUNDATION_MODELS))
def registered(request) -> FoundationModel:
    return FOUNDATION_MODELS[request.param]()


@pytest.fixture(scope="module")
def registered_embeddings(registered) -> Tensor:
    side = registered.input_size
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return registered.encode(registered.normalise(images, torch.ones_like(images) > 0))


def box_prompts(model: FoundationModel, num: int) -> Prompts:
    shares = torch.tensor([[0.2, 0.3, 0.6, 0.7]]).repeat(num, 1) + 0.05 * torch.arange(num)[:, None]
    return Prompts(boxes=shares * model.input_size)


def test_comes_in_evaluation_mode(registered):
    assert not any(module.training for module in registered.modules())


def test_padding_does_not_reach_the_content(registered):
    side = registered.input_size
    images = torch.rand(1, 1, side, side)
    images[..., side // 2 :, :] = 0
    valid = torch.arange(side)[:, None].expand(1, 1, side, side) < side // 2
    whole = registered.normalise(images, valid)
    shape = whole.shape
    assert shape == (1, 3, side, side)
    padding = whole[..., side // 2 :, :]
    assert torch.equal(padding, padding[..., :1, :1].expand_as(padding))


@pytest.mark.parametrize(("multimask_output", "num"), [(False, 1), (True, 3)])
def test_shapes(registered, registered_embeddings, multimask_output, num):
    decoded = registered.decode(
        registered_embeddings, box_prompts(registered, 2), multimask_output=multimask_output
    )
    side = registered.mask_size
    assert decoded.logits.shape == (2, num, side, side)
    assert decoded.iou_predictions.shape == (2, num)
    assert decoded.logits.isfinite().all()


def test_gradient_reaches_boxes(registered, registered_embeddings):
    boxes = box_prompts(registered, 2).boxes.requires_grad_()
    registered.decode(registered_embeddings, Prompts(boxes=boxes)).logits.mean().backward()
    assert (boxes.grad.abs().amax(dim=1) > 0).all()


def test_what_an_item_lacks_is_as_if_it_had_never_been_there(registered, registered_embeddings):
    """Six items that differ in kind and number of prompts, in one batch and one by one."""
    side = registered.input_size
    boxes = box_prompts(registered, 6).boxes
    centres, corner = boxes.view(6, 2, 2).mean(dim=1), torch.tensor([0.1, 0.1]) * side
    points = torch.stack([centres, corner.expand(6, 2)], dim=1)
    mask = torch.randn(1, 1, registered.mask_size, registered.mask_size)
    labels = torch.tensor([[-1, -1], [1, -1], [-1, -1], [1, 0], [1, 0], [-1, -1]])
    has_box = torch.tensor([True, False, True, True, False, False])
    has_mask = torch.tensor([False, False, True, False, True, True])
    index = torch.tensor([0, 1, 0, 1, 0, 1])
    together = registered.decode(
        registered_embeddings,
        Prompts(
            boxes=torch.where(has_box[:, None], boxes, 0.37 * side),
            has_box=has_box,
            point_coords=torch.where((labels >= 0)[..., None], points, 0.71 * side),
            point_labels=labels,
            masks=torch.where(has_mask[:, None, None, None], mask, 5.0),
            has_mask=has_mask,
            image_index=index,
        ),
    )
    given = [
        {"boxes": boxes[:1]},
        {"point_coords": points[1:2, :1], "point_labels": labels[1:2, :1]},
        {"boxes": boxes[2:3], "masks": mask},
        {"boxes": boxes[3:4], "point_coords": points[3:4], "point_labels": labels[3:4]},
        {"point_coords": points[4:5], "point_labels": labels[4:5], "masks": mask},
        {"masks": mask},
    ]
    for i, item in enumerate(given):
        prompts = Prompts(**item, image_index=index[i : i + 1])
        alone = registered.decode(registered_embeddings, prompts)
        torch.testing.assert_close(together.logits[i : i + 1], alone.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            together.iou_predictions[i : i + 1], alone.iou_predictions, atol=1e-5, rtol=1e-5
        )


def test_an_absent_point_gets_no_gradient(registered, registered_embeddings):
    boxes = box_prompts(registered, 2).boxes
    coords = boxes.view(2, 2, 2).clone().requires_grad_()
    labels = torch.tensor([[1, -1], [-1, 0]])
    prompts = Prompts(boxes=boxes, point_coords=coords, point_labels=labels)
    registered.decode(registered_embeddings, prompts).logits.mean().backward()
    assert torch.equal(coords.grad.abs().amax(dim=-1) > 0, labels >= 0)
    assert coords.grad.isfinite().all()


def test_unknown_model_names_the_near_one():
    with pytest.raises(ConfigError, match="lite-medsam"):
        FOUNDATION_MODELS["lite-medsan"]


def test_prompts_select_keeps_kinds_and_order():
    prompts = Prompts(boxes=torch.arange(12.0).view(3, 4), image_index=torch.tensor([0, 0, 1]))
    picked = prompts.select(torch.tensor([2, 0]))
    assert len(picked) == 2
    assert picked.boxes[0].tolist() == [8, 9, 10, 11]
    assert picked.image_index.tolist() == [1, 0]
    assert picked.masks is None


@pytest.mark.parametrize(
    "values",
    [
        {"point_coords": torch.zeros(1, 1, 2)},
        {"boxes": torch.zeros(2, 4), "masks": torch.zeros(1, 1, 4, 4)},
        {"masks": torch.zeros(1, 1, 4, 4), "has_box": torch.tensor([True])},
    ],
    ids=["points without labels", "different batch sizes", "which boxes"],
)
def test_inconsistent_prompts_are_refused(values):
    with pytest.raises(AssertionError):
        Prompts(**values)

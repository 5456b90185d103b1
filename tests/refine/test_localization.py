"""Localisation: boxes that follow the lesion, stay inside, never degenerate, and pass gradients."""

from __future__ import annotations

import pytest
import torch
from scenes import blob, rectangle, scene_of
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.localization import Lesions, Localizer, LocalizerConfig, clamp_boxes
from ultrarefiner.refine.scene import Scene

_SIDE = 64


def _config(**changes: object) -> LocalizerConfig:
    settings = {"box": "statistics", "margin": 0.0, "num_stds": 2.0, "relative": 0.4}
    return LocalizerConfig(**settings | changes)


def _scene(coarse: Tensor, rows: int = _SIDE, cols: int = _SIDE) -> Scene:
    """Coarse maps of which the first rows and columns hold image."""
    return scene_of(coarse, torch.rand(rows, cols))


def _locate(coarse: Tensor, rows: int = _SIDE, cols: int = _SIDE, **changes: object) -> Lesions:
    return Localizer(_config(**changes))(_scene(coarse, rows, cols))


def _boxes(coarse: Tensor, **changes: object) -> Tensor:
    return _locate(coarse, **changes).boxes


def test_a_rectangle_by_hand() -> None:
    # Rows 20..30 and columns 10..40; k = sqrt(3) is the tight box of a rectangle.
    coarse, tight = rectangle(20, 10, 30, 40), torch.tensor([[10.0, 20.0, 40.0, 30.0]])
    torch.testing.assert_close(_boxes(coarse, num_stds=3**0.5), tight)
    torch.testing.assert_close(_boxes(coarse, box="extent"), tight)
    grown = tight + torch.tensor([-3.0, -1.0, 3.0, 1.0])
    torch.testing.assert_close(_boxes(coarse, box="extent", margin=0.1), grown)
    # Statistics of 2.65 standard deviations reach 1.53 half sides; the bound keeps 1.4.
    bounded = tight + torch.tensor([-6.0, -2.0, 6.0, 2.0])
    found = _boxes(coarse, box="bounded", num_stds=2.65, max_growth=0.2)
    torch.testing.assert_close(found, bounded)


def test_boxes_follow_a_shift() -> None:
    coarse = blob()
    moved = coarse.roll((4, -3), dims=(-2, -1))
    offset = torch.tensor([-3.0, 4.0, -3.0, 4.0])
    torch.testing.assert_close(_boxes(moved), _boxes(coarse) + offset, atol=1e-3, rtol=0)


def test_boxes_stay_inside_the_content() -> None:
    coarse = torch.cat([blob(), blob((2.0, 3.0)), blob((44.0, 37.0))])
    coarse[..., 51:] = 0
    coarse[..., 41:, :] = 0
    boxes = _boxes(coarse, rows=48, cols=60, num_stds=6.0)
    assert boxes.min() == 0
    assert boxes[..., [0, 2]].max() == 64
    assert boxes[..., [1, 3]].max() == 51, "48 of 60 rows are 51 of 64"
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_clamping_is_per_item() -> None:
    boxes = torch.tensor([[-1.0, -2.0, 70.0, 80.0]]).repeat(2, 1)
    frames = Frames.letterboxed(torch.tensor([[30, 40], [50, 20]]), 40)
    content = frames.content_boxes()
    assert content.tolist() == [[0, 0, 40, 30], [0, 0, 16, 40]]
    assert clamp_boxes(boxes, content).tolist() == content.tolist()


def test_a_tiny_lesion_gets_the_least_side() -> None:
    box = _boxes(rectangle(30, 20, 31, 21), min_side_px=6.0)
    torch.testing.assert_close(box, torch.tensor([[17.5, 27.5, 23.5, 33.5]]))
    # Where the lesion is large enough along one axis, that side is left alone.
    box = _boxes(rectangle(30, 10, 31, 40), min_side_px=6.0, num_stds=3**0.5)
    torch.testing.assert_close(box, torch.tensor([[10.0, 27.5, 40.0, 33.5]]))


@pytest.mark.parametrize("box", ["bounded", "statistics", "extent"])
@pytest.mark.parametrize("faint", [0.0, 0.03], ids=["zero", "below-the-floor"])
def test_an_empty_map_gets_the_box_of_the_content(faint: float, box: str) -> None:
    coarse = torch.cat([torch.full((1, 1, _SIDE, _SIDE), faint), blob()]).requires_grad_()
    lesions = _locate(coarse, rows=40, box=box)
    assert lesions.no_lesion.tolist() == [True, False]
    assert lesions.boxes[0].tolist() == [0, 0, 64, 40]
    torch.testing.assert_close(lesions.boxes[1:], _boxes(blob(), rows=40, box=box))
    lesions.boxes.sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    assert not coarse.grad[0].any()
    assert coarse.grad[1].any()


def test_the_least_mass_decides_what_is_empty() -> None:
    coarse = rectangle(10, 10, 12, 12)  # sharpened mass 4 px
    assert not _locate(coarse, min_mass_px=3.9).no_lesion.item()
    assert _locate(coarse, min_mass_px=4.1).no_lesion.item()


def test_the_dominant_lesion_alone_is_read_if_asked_for() -> None:
    both = torch.maximum(blob(), 0.9 * blob((55.0, 8.0), (4, 4)))
    alone = _locate(blob())
    lesions = _locate(both, dominant_only=True)
    torch.testing.assert_close(lesions.boxes, alone.boxes, atol=0.2, rtol=0)
    assert lesions.probs[0, 0, 8, 55] == 0
    assert lesions.probs[0, 0, 35, 27] == both[0, 0, 35, 27]
    assert (_boxes(both)[0] - alone.boxes[0]).abs().max() > 5


@pytest.mark.parametrize("box", ["bounded", "statistics", "extent"])
def test_gradients_reach_the_coarse_map(box: str) -> None:
    coarse = blob().requires_grad_()
    _boxes(coarse, box=box)[0, 2].backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    # More mass at the right end of the lesion moves the right side to the right.
    assert coarse.grad[0, 0, 37, 38] > 0


@pytest.mark.parametrize("box", ["bounded", "statistics", "extent"])
def test_gradient_agrees_with_finite_differences(box: str) -> None:
    coarse = blob((5.0, 6.0), (4, 3)).double()[..., :11, :11].clone().requires_grad_()
    localizer = Localizer(_config(box=box, relative=0.0)).double()
    assert (coarse.detach() - 0.05).abs().min() > 1e-5, "clear of the threshold"
    assert torch.autograd.gradcheck(lambda p: localizer(scene_of(p)).boxes, coarse)


def test_a_batch_equals_one_by_one() -> None:
    coarse = torch.cat([blob(), blob((40.0, 20.0)), torch.zeros(1, 1, _SIDE, _SIDE)])
    together = _boxes(coarse, box="bounded")
    for item in range(3):
        alone = _boxes(coarse[item : item + 1], box="bounded")
        torch.testing.assert_close(together[item : item + 1], alone)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("box", "tight"),
        ("num_stds", 0.0),
        ("max_growth", -0.1),
        ("margin", -0.1),
        ("floor", 1.0),
        ("relative", -0.1),
        ("temperature", 0.0),
        ("min_side_px", 0.0),
        ("min_mass_px", 0.0),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected .*, found {value}"):
        _config(**{name: value})

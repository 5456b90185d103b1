"""Box hypotheses: equivariant, inside the image, never degenerate, and differentiable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.prompts import BoxPromptConfig, BoxPrompts, clamp_boxes, content_box

_SIDE = 64


def _config(**changes: float) -> BoxPromptConfig:
    settings = {
        "num_stds": 2.0,
        "jitter": 0.1,
        "floor": 0.05,
        "relative": 0.4,
        "temperature": 0.5,
        "min_side_px": 4.0,
        "min_mass_px": 0.5,
    }
    return BoxPromptConfig(**settings | changes)


def _lesion(
    centre_xy: tuple[float, float] = (27.0, 35.0), axes_xy: tuple[float, float] = (14, 7)
) -> Tensor:
    """Smooth tilted blob, ``1 1 64 64``, peak 0.95."""
    centres = torch.arange(_SIDE) + 0.5
    x, y = centres[None] - centre_xy[0], centres[:, None] - centre_xy[1]
    u, v = (x + 0.3 * y) / axes_xy[0], (y - 0.3 * x) / axes_xy[1]
    return (0.95 * torch.exp(-((u**2 + v**2) ** 2)))[None, None]


def _rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    probs = torch.zeros(1, 1, _SIDE, _SIDE)
    probs[..., top:bottom, left:right] = 1
    return probs


def _content(batch: int = 1, rows: float = _SIDE, cols: float = _SIDE) -> Tensor:
    return torch.tensor([[rows, cols]]).float().repeat(batch, 1)


def _boxes(coarse: Tensor, content_hw: Tensor | None = None, **changes: float) -> Tensor:
    content_hw = _content(len(coarse)) if content_hw is None else content_hw
    return BoxPrompts(_config(**changes))(coarse, content_hw).boxes


def _sorted_rows(boxes: Tensor) -> Tensor:
    """Rows in an order that does not depend on the one they came in."""
    return torch.tensor(sorted([round(x, 3) for x in row] for row in boxes.tolist()))


def _flip_x(boxes: Tensor) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([_SIDE - x1, y0, _SIDE - x0, y1], dim=-1)


def _flip_y(boxes: Tensor) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0, _SIDE - y1, x1, _SIDE - y0], dim=-1)


def _transpose(boxes: Tensor) -> Tensor:
    return boxes[..., [1, 0, 3, 2]]


@pytest.mark.parametrize(
    ("on_image", "on_boxes"),
    [
        (lambda image: image.flip(-1), _flip_x),
        (lambda image: image.flip(-2), _flip_y),
        (lambda image: image.transpose(-1, -2), _transpose),
    ],
    ids=["flip-x", "flip-y", "transpose"],
)
@pytest.mark.parametrize("centre_xy", [(27.0, 35.0), (6.0, 58.0)], ids=["inside", "at-a-corner"])
def test_hypotheses_follow_flips_and_transposition_as_a_set(
    on_image: Callable[[Tensor], Tensor],
    on_boxes: Callable[[Tensor], Tensor],
    centre_xy: tuple[float, float],
) -> None:
    coarse = _lesion(centre_xy)
    expected = _sorted_rows(on_boxes(_boxes(coarse))[0])
    found = _sorted_rows(_boxes(on_image(coarse))[0])
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_hypotheses_follow_a_shift() -> None:
    coarse = _lesion()
    moved = coarse.roll((4, -3), dims=(-2, -1))
    offset = torch.tensor([-3.0, 4.0, -3.0, 4.0])
    torch.testing.assert_close(_boxes(moved), _boxes(coarse) + offset, atol=1e-3, rtol=0)


def test_nine_different_hypotheses_or_one() -> None:
    several, one = _boxes(_lesion()), _boxes(_lesion(), jitter=0.0)
    assert several.shape == (1, 9, 4)
    assert len({tuple(row) for row in several[0].tolist()}) == 9
    assert one.shape == (1, 1, 4)
    assert torch.equal(one[:, 0], several[:, 0])


def test_the_hypotheses_of_a_rectangle_by_hand() -> None:
    # Rows 20..30 and columns 10..40; k = sqrt(3) is the tight box of a rectangle.
    boxes = _boxes(_rectangle(20, 10, 30, 40), num_stds=3**0.5, jitter=0.1)[0]
    torch.testing.assert_close(boxes[0], torch.tensor([10.0, 20.0, 40.0, 30.0]))
    moves = (boxes - boxes[0]) / torch.tensor([3.0, 1.0, 3.0, 1.0])
    torch.testing.assert_close(moves[1:].abs(), torch.ones(8, 4), atol=1e-4, rtol=0)
    to_the_right_or_down = (moves[1:] > 0).sum(dim=-1)
    assert (to_the_right_or_down % 2 == 0).all(), "the half fraction of a two-level design"
    assert moves.sum(dim=0).abs().max() < 1e-3, "no side is favoured"


def test_jitter_scales_with_the_side() -> None:
    once, twice = _boxes(_lesion(), jitter=0.05), _boxes(_lesion(), jitter=0.1)
    torch.testing.assert_close(twice - twice[:, :1], 2 * (once - once[:, :1]), atol=1e-4, rtol=0)


def test_boxes_stay_inside_the_content() -> None:
    coarse = torch.cat([_lesion(), _lesion((2.0, 3.0)), _lesion((44.0, 37.0))])
    coarse[..., 41:, :] = 0
    coarse[..., 50:] = 0
    boxes = _boxes(coarse, _content(3, rows=41, cols=50), num_stds=3.0, jitter=0.3)
    assert boxes.min() == 0
    assert boxes[..., [0, 2]].max() == 50
    assert boxes[..., [1, 3]].max() == 41
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_clamping_is_per_item() -> None:
    boxes = torch.tensor([[-1.0, -2.0, 70.0, 80.0]]).repeat(2, 1)
    content = content_box(torch.tensor([[30.0, 40.0], [50.0, 20.0]]))
    assert content.tolist() == [[0, 0, 40, 30], [0, 0, 20, 50]]
    assert clamp_boxes(boxes, content).tolist() == content.tolist()


def test_a_tiny_lesion_gets_the_least_side() -> None:
    coarse = _rectangle(30, 20, 31, 21)
    box = _boxes(coarse, min_side_px=6.0)[0, 0]
    torch.testing.assert_close(box, torch.tensor([17.5, 27.5, 23.5, 33.5]))
    # Where the lesion is large enough along one axis, that side is left alone.
    box = _boxes(_rectangle(30, 10, 31, 40), min_side_px=6.0, num_stds=3**0.5)[0, 0]
    torch.testing.assert_close(box, torch.tensor([10.0, 27.5, 40.0, 33.5]))


@pytest.mark.parametrize("faint", [0.0, 0.03], ids=["zero", "below-the-floor"])
def test_an_empty_map_gets_the_box_of_the_content(faint: float) -> None:
    coarse = torch.cat([torch.full((1, 1, _SIDE, _SIDE), faint), _lesion()])
    hypotheses = BoxPrompts(_config())(coarse, _content(2, rows=40))
    assert hypotheses.no_lesion.tolist() == [True, False]
    assert hypotheses.boxes[0].tolist() == [[0, 0, 64, 40]] * hypotheses.boxes.shape[1]
    assert hypotheses.boxes.isfinite().all()
    assert torch.equal(hypotheses.boxes[1:], _boxes(_lesion(), _content(rows=40)))


def test_the_least_mass_decides_what_is_empty() -> None:
    coarse = _rectangle(10, 10, 12, 12)  # sharpened mass 4 px
    content = _content()
    assert not BoxPrompts(_config(min_mass_px=3.9))(coarse, content).no_lesion.item()
    assert BoxPrompts(_config(min_mass_px=4.1))(coarse, content).no_lesion.item()


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_gradients_reach_the_coarse_map(jitter: float) -> None:
    coarse = _lesion().requires_grad_()
    boxes = _boxes(coarse, jitter=jitter)
    right_side = boxes[0, :, 2].sum()
    right_side.backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    # More mass at the right end of the lesion moves the right side to the right.
    assert coarse.grad[0, 0, 37, 38] > 0
    assert coarse.grad[0, 0, 33, 18] > coarse.grad[0, 0, 35, 27], "mass at the left end widens too"


def test_gradient_agrees_with_finite_differences() -> None:
    coarse = _lesion((5.0, 6.0), (4, 3)).double()[..., :10, :11].requires_grad_()
    prompts = BoxPrompts(_config(relative=0.0)).double()
    content = _content(rows=10, cols=11).double()
    clear_of_threshold = (coarse.detach() - 0.05).abs().min() > 1e-5
    assert clear_of_threshold
    assert torch.autograd.gradcheck(lambda p: prompts(p, content).boxes, coarse)


def test_an_empty_map_has_finite_gradients() -> None:
    coarse = torch.zeros(1, 1, _SIDE, _SIDE, requires_grad=True)
    _boxes(coarse).sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()


def test_a_batch_equals_one_by_one() -> None:
    coarse = torch.cat([_lesion(), _lesion((40.0, 20.0)), torch.zeros(1, 1, _SIDE, _SIDE)])
    together = _boxes(coarse)
    for item in range(3):
        torch.testing.assert_close(together[item : item + 1], _boxes(coarse[item : item + 1]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_stds", 0.0),
        ("jitter", 0.5),
        ("jitter", -0.1),
        ("floor", 1.0),
        ("relative", -0.1),
        ("temperature", 0.0),
        ("min_side_px", 0.0),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected .*, found {value}"):
        _config(**{name: value})

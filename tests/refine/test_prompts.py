"""Prompts of a lesion: box hypotheses, points, masks; what is given, where, and what flows back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from models import SizesOnly
from scenes import blob, rectangle, scene_of
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.localization import Localizer, LocalizerConfig
from ultrarefiner.refine.prompts import LesionPrompts, PromptConfig, PromptStage
from ultrarefiner.refine.roi import CropToLesion, RoiConfig, WholeFrame

_SIDE = 64


def _ask(
    coarse: Tensor,
    *,
    box: str = "statistics",
    num_stds: float = 2.0,
    mask_side: int = _SIDE,
    crop: bool = False,
    **settings: object,
) -> LesionPrompts:
    scene = scene_of(coarse)
    lesions = Localizer(LocalizerConfig(box=box, margin=0.0, num_stds=num_stds))(scene)
    roi = CropToLesion(RoiConfig(crop=True)) if crop else WholeFrame()
    view = roi.look(scene, lesions, SizesOnly(mask_side, mask_side))
    return PromptStage(PromptConfig(**settings))(lesions, view)


def _boxes(coarse: Tensor, **settings: object) -> Tensor:
    return _ask(coarse, **settings).boxes


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
    coarse = blob(centre_xy)
    expected = _sorted_rows(on_boxes(_boxes(coarse))[0])
    found = _sorted_rows(_boxes(on_image(coarse))[0])
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_nine_different_hypotheses_or_one() -> None:
    several, one = _boxes(blob()), _boxes(blob(), jitter=0.0)
    assert several.shape == (1, 9, 4)
    assert len({tuple(row) for row in several[0].tolist()}) == 9
    assert one.shape == (1, 1, 4)
    assert torch.equal(one[:, 0], several[:, 0])


def test_the_hypotheses_of_a_rectangle_by_hand() -> None:
    # Rows 20..30 and columns 10..40; k = sqrt(3) is the tight box of a rectangle.
    boxes = _boxes(rectangle(20, 10, 30, 40), num_stds=3**0.5, jitter=0.1)[0]
    torch.testing.assert_close(boxes[0], torch.tensor([10.0, 20.0, 40.0, 30.0]))
    moves = (boxes - boxes[0]) / torch.tensor([3.0, 1.0, 3.0, 1.0])
    torch.testing.assert_close(moves[1:].abs(), torch.ones(8, 4), atol=1e-4, rtol=0)
    to_the_right_or_down = (moves[1:] > 0).sum(dim=-1)
    assert (to_the_right_or_down % 2 == 0).all(), "the half fraction of a two-level design"
    assert moves.sum(dim=0).abs().max() < 1e-3, "no side is favoured"


def test_jitter_scales_with_the_side() -> None:
    once, twice = _boxes(blob(), jitter=0.05), _boxes(blob(), jitter=0.1)
    torch.testing.assert_close(twice - twice[:, :1], 2 * (once - once[:, :1]), atol=1e-4, rtol=0)


def test_an_empty_map_is_asked_about_with_the_whole_image_and_nothing_else() -> None:
    coarse = torch.cat([torch.zeros(1, 1, _SIDE, _SIDE), blob()])
    asked = _ask(coarse, foreground="interior", background="ring", mask="direct", boxes=True)
    assert asked.boxes[0].tolist() == [[0, 0, 64, 64]] * 9
    assert asked.has_box is None, "every item has its box"
    assert asked.has_mask is not None
    assert asked.has_mask.tolist() == [False, True]
    assert asked.point_labels is not None
    assert (asked.point_labels[0] == -1).all()
    assert asked.point_labels[1].tolist() == [1] + [0] * 8
    without_boxes = _ask(coarse, boxes=False, foreground="centroid")
    assert without_boxes.has_box is not None
    assert without_boxes.has_box.tolist() == [True, False]
    assert without_boxes.boxes.shape == (2, 1, 4)
    assert without_boxes.masks is None
    assert without_boxes.has_mask is None


def test_each_kind_can_be_switched_off() -> None:
    asked = _ask(blob())
    assert asked.point_coords is None
    assert asked.point_labels is None
    assert asked.masks is None
    assert _ask(blob(), foreground="interior", num_points=3).point_coords.shape == (
        1,
        3,
        2,
    )
    assert _ask(blob(), background="ring", num_sectors=5).point_labels.shape == (1, 5)
    both = _ask(blob(), foreground="centroid", background="literal")
    assert both.point_labels.tolist() == [[1, 0]]


def test_the_centroid_by_hand() -> None:
    asked = _ask(rectangle(20, 10, 30, 40), foreground="centroid", background="literal")
    # The centroid of what is not lesion in the box of a symmetric lesion is its centre again.
    expected = torch.tensor([[[25.0, 25.0], [25.0, 25.0]]])
    torch.testing.assert_close(asked.point_coords, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["direct", "logit", "gaussian", "distance"])
@pytest.mark.parametrize("mask_side", [_SIDE, 128])
def test_a_mask_prompt_lies_on_the_models_grid(kind: str, mask_side: int) -> None:
    coarse = blob()
    masks = _ask(coarse, mask=kind, mask_side=mask_side, mask_scale=8.0).masks
    assert masks is not None
    assert masks.shape == (1, 1, mask_side, mask_side)
    assert masks.abs().max() <= 8.0 + 1e-5
    upsampled = torch.nn.functional.interpolate(coarse, mask_side, mode="bilinear")
    clear = (upsampled - 0.5).abs() > 0.3
    assert torch.equal((masks > 0)[clear], (upsampled > 0.5)[clear])


def test_a_mask_prompt_follows_the_crop() -> None:
    coarse = blob(axes_xy=(6, 6))
    masks = _ask(coarse, mask="direct", crop=True, mask_side=256).masks
    assert masks is not None
    assert masks.shape == (1, 1, 256, 256)
    # A crop of 64 native px is the whole picture here, enlarged four times.
    assert (masks > 0).sum().item() == pytest.approx(16 * (coarse > 0.5).sum().item(), rel=0.05)


_KINDS = {
    "box": {"jitter": 0.0},
    "nine boxes": {"jitter": 0.1},
    "centroid": {"foreground": "centroid"},
    "interior": {"foreground": "interior"},
    "three points": {"foreground": "interior", "num_points": 3},
    "literal background": {"foreground": "centroid", "background": "literal"},
    "ring": {"foreground": "centroid", "background": "ring"},
    "direct": {"mask": "direct"},
    "logit": {"mask": "logit"},
    "gaussian": {"mask": "gaussian"},
}
_ALL_KINDS = _KINDS | {"distance": {"mask": "distance"}}  # which looks at values


@pytest.mark.parametrize("settings", _ALL_KINDS.values(), ids=_ALL_KINDS)
def test_gradients_reach_the_coarse_map_through_every_kind(settings: dict[str, object]) -> None:
    coarse = blob().requires_grad_()
    asked = _ask(coarse, **settings)
    for values in (asked.boxes, asked.point_coords, asked.masks):
        if values is not None:
            weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(1))
            (gradient,) = torch.autograd.grad((values * weights).sum(), coarse, retain_graph=True)
            assert gradient.isfinite().all()
            assert gradient.count_nonzero() > 100


@pytest.mark.parametrize("settings", _ALL_KINDS.values(), ids=_ALL_KINDS)
def test_a_batch_equals_one_by_one(settings: dict[str, object]) -> None:
    coarse = torch.cat([blob(), blob((40.0, 20.0)), torch.zeros(1, 1, _SIDE, _SIDE)])
    together = _ask(coarse, **settings)
    for item in range(3):
        alone = _ask(coarse[item : item + 1], **settings)
        for name in ("boxes", "point_coords", "point_labels", "masks"):
            values = getattr(together, name)
            if values is not None:
                expected = getattr(alone, name)
                torch.testing.assert_close(values[item : item + 1], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("settings", _KINDS.values(), ids=_KINDS)
def test_the_stage_compiles_in_one_graph_without_looking_at_values(
    settings: dict[str, object],
) -> None:
    coarse = torch.cat([blob(), torch.zeros(1, 1, _SIDE, _SIDE)])
    scene = scene_of(coarse)
    localizer, roi, stage = Localizer(), WholeFrame(), PromptStage(PromptConfig(**settings))
    model = SizesOnly(_SIDE, _SIDE)

    def ask(coarse: Tensor) -> tuple[Tensor | None, ...]:
        there = replace(scene, coarse=coarse)
        lesions = localizer(there)
        asked = stage(lesions, roi.look(there, lesions, model))
        return asked.boxes, asked.point_coords, asked.point_labels, asked.masks

    torch._dynamo.reset()
    compiled = torch.compile(ask, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(coarse), ask(coarse), strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("settings", _KINDS.values(), ids=_KINDS)
def test_autocast_does_not_round_a_prompt(settings: dict[str, object]) -> None:
    exact = _ask(blob(), **settings)
    with torch.autocast("cpu", torch.bfloat16):
        hurried = _ask(blob(), **settings)
    for name in ("boxes", "point_coords", "masks"):
        if getattr(exact, name) is not None:
            assert getattr(hurried, name).dtype == torch.float32
            torch.testing.assert_close(getattr(hurried, name), getattr(exact, name))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"jitter": 0.5}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"foreground": "centre"}, "foreground"),
        ({"background": "box"}, "background"),
        ({"mask": "soft"}, "mask"),
        ({"num_points": 0}, "num_points"),
        ({"num_sectors": 0}, "num_sectors"),
        ({"ring_expand": 0.0}, "ring_expand"),
        ({"mask_scale": 0.0}, "mask_scale"),
        ({"boxes": False}, "boxes"),
        ({"boxes": False, "background": "ring"}, "boxes"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=f"prompt setting {name}: expected"):
        PromptConfig(**settings)

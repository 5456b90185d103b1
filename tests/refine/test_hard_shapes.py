"""Every prompt of the default settings on the shapes that break naive ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import SizesOnly
from scenes import scene_of
from torch import Tensor

from fakes.shapes import NOISY_FLOORS, crescent, hard_shapes, over
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.refine.assembly import PRESETS
from ultrarefiner.refine.localization import Lesions, Localizer
from ultrarefiner.refine.prompts import LesionPrompts, PromptConfig, PromptStage
from ultrarefiner.refine.roi import WholeFrame
from ultrarefiner.refine.softening import SofteningConfig, split_lesions

_EVERYTHING = PromptConfig(foreground="interior", num_points=3, background="ring", mask="gaussian")
_SIDES = (96, 224)
_SHAPES = tuple(hard_shapes(96))
_LESIONS = tuple(name for name in _SHAPES if name not in ("empty", "full"))
_COMPACT = tuple(name for name in _LESIONS if name not in ("two_blobs", "one_pixel"))


def _ask(
    coarse: Tensor, *, prompts: PromptConfig = _EVERYTHING, preset: str = "default"
) -> tuple[Lesions, LesionPrompts]:
    scene, side = scene_of(coarse), coarse.shape[-1]
    lesions = Localizer(PRESETS[preset].localizer)(scene)
    view = WholeFrame().look(scene, lesions, SizesOnly(side, side))
    return lesions, PromptStage(prompts)(lesions, view)


def _values_at(coarse: Tensor, points: Tensor) -> Tensor:
    columns, rows = points.detach().floor().long().unbind(-1)
    return coarse[0, 0, rows, columns]


def _extent(mask: Tensor) -> tuple[float, float, float, float]:
    rows, columns = mask.nonzero(as_tuple=True)
    top, left = rows.min().item(), columns.min().item()
    return left, top, columns.max().item() + 1, rows.max().item() + 1


def _covered_and_growth(coarse: Tensor, box: Tensor) -> tuple[float, float]:
    """Return the share of the lesion in the box, and the largest side relative to the lesion's."""
    mask = coarse[0, 0] > 0.5
    x0, y0, x1, y1 = box.tolist()
    rows, columns = mask.nonzero(as_tuple=True)
    x, y = columns + 0.5, rows + 0.5
    inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    left, top, right, bottom = _extent(mask)
    growth = max((x1 - x0) / (right - left), (y1 - y0) / (bottom - top))
    return inside.float().mean().item(), growth


@pytest.mark.parametrize("side", _SIDES)
@pytest.mark.parametrize("name", _LESIONS)
def test_points_lie_where_they_say(name: str, side: int) -> None:
    coarse = hard_shapes(side)[name]
    lesions, asked = _ask(coarse)
    assert not lesions.no_lesion.item()
    assert asked.point_coords is not None
    assert asked.point_labels is not None
    positive, negative = (asked.point_coords[0, asked.point_labels[0] == kind] for kind in (1, 0))
    assert len(positive) == 3
    assert (_values_at(coarse, positive) > 0.5).all()
    assert len(negative) >= 2
    assert (_values_at(coarse, negative) < 0.25).all()


@pytest.mark.parametrize("side", _SIDES)
@pytest.mark.parametrize("name", _COMPACT)
def test_the_default_box_covers_the_lesion_and_little_more(name: str, side: int) -> None:
    coarse = hard_shapes(side)[name]
    lesions, _ = _ask(coarse)
    covered, growth = _covered_and_growth(coarse, lesions.boxes[0])
    assert covered >= 0.95
    assert growth <= 1.5


@pytest.mark.parametrize("floor", NOISY_FLOORS)
@pytest.mark.parametrize("radius_px", [25.0, 50.0])
def test_noise_does_not_blow_up_the_box_of_a_crescent(radius_px: float, floor: float) -> None:
    noise = torch.rand(224, 224, generator=torch.Generator().manual_seed(0))
    coarse = over(crescent(224, radius_px), 2 * floor * noise)
    covered, growth = _covered_and_growth(coarse, _ask(coarse)[0].boxes[0])
    assert covered >= 0.95
    assert growth <= 1.5


def test_two_lesions_have_a_set_of_prompts_each() -> None:
    coarse = hard_shapes(224)["two_blobs"]
    parts = split_lesions(
        coarse[0, 0].numpy(),
        is_hard=False,
        frame=Letterbox((224, 224), 224),
        config=SofteningConfig(),
    )
    maps = torch.from_numpy(parts.probs)[:, None]
    assert len(maps) == 2
    for part in maps.split(1):
        lesions, asked = _ask(part)
        covered, growth = _covered_and_growth(part, lesions.boxes[0])
        assert covered >= 0.95
        assert growth <= 1.5
        assert asked.point_coords is not None
        assert (_values_at(part, asked.point_coords[0, :3]) > 0.5).all()
        found = asked.point_labels[0] == 0
        assert (_values_at(part, asked.point_coords[0, found]) < 0.25).all()


@pytest.mark.parametrize("name", ["one_pixel", *[n for n in _SHAPES if n.startswith("disc_floor")]])
def test_the_literal_box_is_what_it_is(name: str) -> None:
    """Good on a clean map; several times the lesion as soon as the map has a floor."""
    coarse = hard_shapes(224)[name]
    _, growth = _covered_and_growth(coarse, _ask(coarse, preset="literal")[0].boxes[0])
    if name in ("one_pixel", "disc_floor_0.005", "disc_floor_0.01", "disc_floor_0.1"):
        assert growth > 2
    else:
        assert 1.2 < growth < 3


def test_the_literal_points_of_a_crescent_and_a_disc_are_what_they_are() -> None:
    literal = PRESETS["literal"].prompts
    shapes = hard_shapes(224)
    _, asked = _ask(shapes["ring"], prompts=literal, preset="literal")
    assert asked.point_coords is not None
    assert _values_at(shapes["ring"], asked.point_coords[0, :1]) < 0.5, "the centre of the hole"
    _, asked = _ask(shapes["ellipse"], prompts=literal, preset="literal")
    assert asked.point_coords is not None
    assert _values_at(shapes["ellipse"], asked.point_coords[0, 1:]) > 0.5, "background, on lesion"


def test_an_empty_map_has_no_lesion_and_a_full_one_nothing_beside_it() -> None:
    shapes = hard_shapes(224)
    lesions, asked = _ask(shapes["empty"])
    assert lesions.no_lesion.item()
    assert (asked.point_labels == -1).all()
    lesions, asked = _ask(shapes["full"])
    assert not lesions.no_lesion.item()
    assert not (asked.point_labels == 0).any()
    assert (asked.point_labels == 1).sum() == 3
    assert lesions.boxes[0].tolist() == pytest.approx([0, 0, 224, 224], abs=1)


@pytest.mark.parametrize("name", _SHAPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_is_nan_and_gradients_are_finite(name: str, preset: str) -> None:
    coarse = hard_shapes(96)[name].requires_grad_()
    prompts = _EVERYTHING if preset == "default" else PRESETS["literal"].prompts
    for mask in ("gaussian", "direct", "logit"):
        lesions, asked = _ask(coarse, prompts=replace(prompts, mask=mask), preset=preset)
        total = lesions.boxes.sum()
        for values in (asked.boxes, asked.point_coords, asked.masks):
            assert values is not None
            assert values.isfinite().all()
            total = total + (values * torch.linspace(-1, 1, values.shape[-1])).sum()
        (gradient,) = torch.autograd.grad(total, coarse)
        assert gradient.isfinite().all()


def test_shapes_are_what_their_names_say() -> None:
    shapes = hard_shapes(224)
    ring = shapes["ring"][0, 0].numpy() > 0.5
    assert not ring[112, 112]
    rows, columns = np.nonzero(shapes["crescent_50"][0, 0].numpy() > 0.5)
    assert not shapes["crescent_50"][0, 0, int(rows.mean()), int(columns.mean())] > 0.5

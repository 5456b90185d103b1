"""The region of interest: where it lies, what is seen, and the way back without a loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import SizesOnly
from scenes import scene_of
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FoundationModel
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.localization import Localizer
from ultrarefiner.refine.roi import CropToLesion, RoiConfig, View, WholeFrame, square_windows
from ultrarefiner.refine.scene import Scene


def _lesion(
    side: int = 256, centre_xy: tuple[float, float] = (110.0, 140.0), radius_px: float = 30.0
) -> Tensor:
    centres = torch.arange(side) + 0.5
    distance = ((centres - centre_xy[0]) ** 2 + (centres[:, None] - centre_xy[1]) ** 2).sqrt()
    return torch.sigmoid((radius_px - distance) / (0.09 * radius_px))[None, None]


def _look(scene: Scene, model: FoundationModel | None = None, **settings: object) -> View:
    roi = CropToLesion(RoiConfig(crop=True, **settings))
    return roi.look(scene, Localizer()(scene), model or SizesOnly())


@given(
    st.tuples(st.floats(-0.2, 1.0), st.floats(-0.2, 1.0), st.floats(0.01, 1), st.floats(0.01, 1)),
    st.tuples(st.integers(20, 900), st.integers(20, 900)),
    st.floats(0, 1.5),
)
@settings(max_examples=150, deadline=None)
def test_the_square_is_shifted_not_cut(
    place: tuple[float, ...], native_hw: tuple[int, int], expand: float
) -> None:
    height, width = native_hw
    x0, y0 = place[0] * width, place[1] * height
    box = torch.tensor([[x0, y0, x0 + place[2] * width, y0 + place[3] * height]])
    window = square_windows(box, torch.tensor([native_hw]), expand=expand, min_side_px=64)[0]
    side_x, side_y = (window[2:] - window[:2]).tolist()
    longer = max(place[2] * width, place[3] * height)
    assert side_x == pytest.approx(side_y, rel=1e-4)
    wanted = min(max(64, longer * (1 + 2 * expand)), max(native_hw))
    assert side_x == pytest.approx(wanted, rel=1e-4)
    for low, high, length in ((window[0], window[2], width), (window[1], window[3], height)):
        slack = 1e-3 * (1 + side_x)
        if side_x <= length:
            assert -slack <= low <= high <= length + slack, "inside the image"
        else:
            assert low <= slack and high >= length - slack, "all of the image"  # noqa: PT018


def test_a_lesion_well_inside_is_in_the_middle_with_context() -> None:
    box = torch.tensor([[100.0, 120.0, 180.0, 160.0]])
    window = square_windows(box, torch.tensor([[400, 500]]), expand=0.3, min_side_px=64)
    assert window[0].tolist() == pytest.approx([76, 76, 204, 204])


def test_one_view_per_lesion_and_the_whole_image_without_one() -> None:
    scene = scene_of(torch.cat([_lesion(), torch.zeros(1, 1, 256, 256)]))
    view = _look(scene)
    assert view.view_index.tolist() == [0, 1]
    assert view.frames.windows[1].tolist() == [0, 0, 256, 256]
    assert view.embeddings is None
    x0, y0, x1, y1 = view.frames.windows[0].tolist()
    assert (x0 + x1) / 2 == pytest.approx(110, abs=0.5)
    assert (y0 + y1) / 2 == pytest.approx(140, abs=0.5)
    # The box reaches 1.16 radii of a softened disc, and 0.3 of its side are added on each side.
    assert x1 - x0 == pytest.approx(2 * 30 * 1.16 * 1.6, rel=0.02)


def test_pixels_come_straight_from_the_native_image() -> None:
    """A pattern of single native px, gone on the coarse grid, is seen in full in the view."""
    native = (torch.arange(1024) % 2).float().expand(1024, 1024)
    scene = scene_of(_lesion(radius_px=8.0), native)
    view = _look(scene, expand=0.3)
    images, valid = view.images()
    side_px = view.frames.windows[0, 2] - view.frames.windows[0, 0]
    assert side_px < 256 * 0.6
    assert valid.all()
    assert images.max() - images.min() > 0.9
    coarse_grid = scene.images_on(scene.frames, scene.image_index)[0]
    assert coarse_grid.max() - coarse_grid.min() < 0.01


def test_beyond_the_image_there_is_padding() -> None:
    scene = scene_of(_lesion(radius_px=100.0), torch.full((256, 180), 0.7))
    images, valid = _look(scene, expand=0.6).images()
    assert 0.1 < valid.float().mean() < 0.9
    assert torch.equal(images > 0, valid)
    torch.testing.assert_close(images[valid], torch.full_like(images[valid], 0.7))


@pytest.mark.parametrize("grid_px", [224, 256])
@pytest.mark.parametrize("expand", [0.2, 0.3, 0.6, 1.2])
@pytest.mark.parametrize("centre_xy", [(110, 140), (20, 30), (250, 128), (128, 252)])
def test_crop_and_paste_of_a_smooth_map_returns_it(
    expand: float, centre_xy: tuple[float, float], grid_px: int
) -> None:
    scale = grid_px / 256
    coarse = _lesion(grid_px, (centre_xy[0] * scale, centre_xy[1] * scale), 30 * scale)
    view = _look(scene_of(coarse, torch.rand(480, 480)), expand=expand)
    pasted = view.paste(view.to_mask_grid(coarse))
    error = (pasted - coarse).abs()
    assert error[coarse < 0.1].max() < 0.01
    assert error.max() < 0.02, "the outline itself is smoothed a little"


@pytest.mark.parametrize("expand", [0.2, 0.5, 0.8, 1.2])
@pytest.mark.parametrize("floor", [0.0, 0.005])
def test_a_perfect_answer_in_the_square_has_no_dice_loss(expand: float, floor: float) -> None:
    truth = _lesion()
    coarse = (0.6 * _lesion(centre_xy=(118.0, 132.0), radius_px=27.0) + 0.2 * truth) + floor
    view = _look(scene_of(coarse), expand=expand)
    answer = view.to_mask_grid(truth)
    pasted = view.paste(answer)
    window = view.frames.windows[0].tolist()
    outside = torch.ones_like(coarse, dtype=torch.bool)
    outside[..., int(window[1]) : int(window[3]) + 1, int(window[0]) : int(window[2]) + 1] = False
    assert torch.equal(pasted[outside], coarse[outside])
    assert pasted[outside].max() < 0.03, "never 0.5 around the square"
    overlap = 2 * (pasted * truth).sum() / (pasted.square().sum() + truth.square().sum())
    assert 1 - overlap < 0.01


def test_the_whole_frame_is_the_identity_on_the_models_own_grid() -> None:
    scene = scene_of(_lesion())
    roi = WholeFrame()
    view = roi.look(scene, Localizer()(scene), SizesOnly())
    refined = torch.rand(1, 1, 256, 256)
    assert view.to_mask_grid(refined) is refined
    assert torch.equal(view.paste(refined), refined)
    assert torch.equal(view.grid_images()[0], scene.grid_images()[0])


@pytest.mark.parametrize(
    ("native_hw", "tolerance"), [((300, 400), 0.01), ((411, 203), 0.01), ((120, 700), 0.04)]
)
def test_a_squashed_coarse_grid_finds_its_way(native_hw: tuple[int, int], tolerance: float) -> None:
    """A network's own 224 grid, aspect not kept, against the model's letterboxed frame."""
    height, width = native_hw
    sizes = torch.tensor([native_hw])
    natives = Frames.native(sizes, native_hw)
    squashed = Frames.filling(natives.windows, (224, 224))
    coarse = _lesion(224, (100.0, 120.0), 40.0)
    scene = Scene(
        images=torch.rand(1, 1, height, width),
        native_hw=sizes,
        coarse=coarse,
        frames=squashed,
        image_index=torch.tensor([0]),
    )
    view = WholeFrame().look(scene, Localizer()(scene), SizesOnly(1024, 256))
    assert view.images()[0].shape == (1, 1, 1024, 1024)
    back = view.paste(view.to_mask_grid(coarse))
    assert (back - coarse).abs().max() < tolerance
    x, y = 100 / 224 * width, 120 / 224 * height
    expected = torch.tensor([x, y]) * 1024 / max(native_hw)
    found = view.frames.from_native(squashed.to_native(torch.tensor([[[100.0, 120.0]]])))
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1.0)


def _pixels_of(view: View) -> Tensor:
    return view.images()[0]


def test_the_image_path_has_no_gradient_unless_asked_for() -> None:
    for gradient in ("prompts", "full"):
        coarse = _lesion().requires_grad_()
        view = _look(scene_of(coarse, torch.rand(300, 300)), gradient=gradient)
        assert _pixels_of(view).requires_grad == (gradient == "full")
        assert view.frames.windows.requires_grad == (gradient == "full")
    _pixels_of(view).square().mean().backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    assert coarse.grad.count_nonzero() > 100


def test_a_frozen_encoder_builds_no_graph_unless_asked_for() -> None:
    """Tensors that autograd keeps: none by default."""
    encoder = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3))
    encoder.requires_grad_(False)
    for gradient, expected in (("prompts", 0), ("full", 2)):
        view = _look(scene_of(_lesion().requires_grad_()), gradient=gradient)
        images = _pixels_of(view)
        saved: list[int] = []

        def keep(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            encoder(images)
        assert sum(numel >= 8 * 252**2 for numel in saved) >= expected
        assert (gradient == "full") or not saved


def test_the_paste_alone_passes_gradients_to_the_windows() -> None:
    coarse = _lesion().requires_grad_()
    scene = scene_of(coarse)
    view = _look(scene, gradient="full")
    answer = view.to_mask_grid(coarse).detach()
    only_windows = replace(view, scene=replace(scene, coarse=coarse.detach()))
    weights = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    pasted = only_windows.paste(answer)
    (pasted * weights).sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    assert coarse.grad.count_nonzero() > 100


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"expand": -0.1}, "expand"), ({"min_side_px": 0}, "min_side_px"), ({"gradient": "x"}, "gra")],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=f"roi {name}"):
        RoiConfig(**settings)


def test_crop_and_paste_compile_in_one_graph_without_looking_at_values() -> None:
    scene = scene_of(torch.cat([_lesion(), torch.zeros(1, 1, 256, 256)]), torch.rand(300, 280))
    roi, localizer, model = CropToLesion(RoiConfig(crop=True)), Localizer(), SizesOnly()

    def there_and_back(coarse: Tensor) -> tuple[Tensor, Tensor]:
        here = replace(scene, coarse=coarse)
        view = roi.look(here, localizer(here), model)
        images, _ = view.images()
        return images, view.paste(images.mean(dim=1, keepdim=True))

    torch._dynamo.reset()
    compiled = torch.compile(there_and_back, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(scene.coarse), there_and_back(scene.coarse), strict=True):
        torch.testing.assert_close(found, expected)

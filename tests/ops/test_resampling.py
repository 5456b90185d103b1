"""Resampling: cv2, PyTorch and direct integrals as oracles; adjoint, round trips, mirrors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.resampling import overlap_matrix, resample, resample_between


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _windows(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)


def _smooth_map(side: int) -> Tensor:
    centres = torch.arange(side) + 0.5
    x, y = (centres - 0.45 * side) / side, (centres - 0.55 * side) / side
    return torch.sigmoid((0.15 - (x**2 + 1.7 * y[:, None] ** 2).sqrt()) / 0.04)[None, None]


@pytest.mark.parametrize("hw", [(480, 640), (333, 481), (257, 256), (700, 300)])
def test_shrinking_is_area_averaging(hw: tuple[int, int]) -> None:
    images, native_hw = _random(1, 1, *hw), torch.tensor([hw])
    frames = Frames.letterboxed(native_hw, 256)
    found = resample_between(Frames.native(native_hw, hw), frames)(images)[0, 0].numpy()
    cols, rows = map(int, frames.content_wh[0])
    expected = cv2.resize(images[0, 0].numpy(), (cols, rows), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found[:rows, :cols], expected, atol=2e-5)
    assert not found[rows + 1 :].any()
    assert not found[:, cols + 1 :].any()


@pytest.mark.parametrize("out_hw", [(64, 96), (100, 53), (40, 30)])
def test_enlarging_is_bilinear(out_hw: tuple[int, int]) -> None:
    images, native_hw = _random(2, 3, 40, 30), torch.tensor([[40, 30]] * 2)
    windows = _windows((0, 0, 30, 40), (0, 0, 30, 40))
    found = resample_between(Frames.native(native_hw, (40, 30)), Frames.filling(windows, out_hw))
    expected = F.interpolate(images, out_hw, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found(images), expected, atol=1e-5, rtol=0)


def test_a_window_is_cut_as_grid_sample_does() -> None:
    images, native_hw = _random(1, 1, 60, 80), torch.tensor([[60, 80]])
    x0, y0, x1, y1 = 13.3, 7.9, 41.1, 48.2
    view = Frames.filling(_windows((x0, y0, x1, y1)), (64, 64))
    found = resample_between(Frames.native(native_hw, (60, 80)), view)(images)
    centres = (torch.arange(64) + 0.5) / 64
    x, y = (x0 + centres * (x1 - x0)) / 40 - 1, (y0 + centres * (y1 - y0)) / 30 - 1
    grid = torch.stack(torch.broadcast_tensors(x[None], y[:, None]), dim=-1)[None]
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@given(st.floats(-20, 60), st.floats(-4, 4).filter(lambda s: abs(s) > 0.05), st.floats(1, 40))
@settings(max_examples=60, deadline=None)
def test_weights_are_shares_of_the_footprint(start: float, step: float, length: float) -> None:
    """Against integrals by 400 samples of each footprint."""
    tensors = (torch.tensor([value], dtype=torch.float64) for value in (start, step, length))
    weights, coverage = overlap_matrix(*tensors, num_in=40, num_out=12)
    for i in range(12):
        centre, width = start + (i + 0.5) * step, max(1.0, abs(step))
        samples = centre + width * ((np.arange(400) + 0.5) / 400 - 0.5)
        inside = samples[(samples >= 0) & (samples < length)]
        assert coverage[0, i].item() == pytest.approx(len(inside) / 400, abs=0.006)
        if len(inside) > 40:
            counts = np.bincount(inside.astype(int), minlength=40)[:40] / len(inside)
            np.testing.assert_allclose(weights[0, i].numpy(), counts, atol=0.04)
            assert weights[0, i].sum().item() == pytest.approx(1)


def test_the_padding_of_the_source_is_never_mixed_in() -> None:
    native_hw = torch.tensor([[30, 50]])
    source = Frames.letterboxed(native_hw, 64)
    maps = torch.where(source.content(), 0.8, 123.0)
    out = resample_between(source, Frames.letterboxed(native_hw, 100))
    inside = Frames.letterboxed(native_hw, 100).content()
    values = out(maps)[inside]
    torch.testing.assert_close(values, torch.full_like(values, 0.8))


def test_mirrored_frames_mirror() -> None:
    images, native_hw = _random(1, 1, 20, 30), torch.tensor([[20, 30]])
    natives = Frames.native(native_hw, (20, 30))
    view = Frames.filling(_windows((3.5, 2.0, 22.5, 17.0)), (16, 16))
    straight = resample_between(natives, view)(images)
    mirrored = resample_between(natives, view.mirrored())(images)
    torch.testing.assert_close(mirrored, straight.flip(-1))


def test_the_adjoint_is_the_adjoint() -> None:
    native_hw = torch.tensor([[37, 51], [51, 22]])
    view = Frames.filling(_windows((5, -4, 30, 21), (10.5, 3, 60, 50)), (24, 19))
    resampling = resample_between(Frames.native(native_hw, (51, 51)), view)
    x, y = _random(2, 1, 51, 51).double(), _random(2, 1, 24, 19, seed=1).double()
    forth = (resampling(x.float()).double() * y).sum()
    back = (x * resampling.adjoint(y.float()).double()).sum()
    assert forth.item() == pytest.approx(back.item(), rel=1e-5)


def test_the_gradient_of_the_taps_is_the_adjoint() -> None:
    native_hw = torch.tensor([[37, 51], [51, 22]])
    view = Frames.filling(_windows((5, -4, 30, 21), (10.5, 3, 60, 50)), (24, 19))
    natives = Frames.native(native_hw, (51, 51))
    maps = _random(2, 1, 51, 51).requires_grad_()
    outwards = _random(2, 1, 24, 19, seed=1)
    (resample(maps, natives, view, max_shrinkage=4.0)[0] * outwards).sum().backward()
    assert maps.grad is not None
    expected = resample_between(natives, view).adjoint(outwards)
    torch.testing.assert_close(maps.grad, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [224, 256])
@pytest.mark.parametrize("window", [(40, 60, 200, 220), (90, 100, 154, 164), (0, 0, 256, 256)])
def test_a_smooth_map_survives_crop_and_paste(window: tuple[float, ...], side: int) -> None:
    coarse = _smooth_map(256)
    frames = Frames.filling(_windows((0, 0, 256, 256)), (256, 256))
    view = Frames.filling(_windows(window), (side, side))
    there, back = resample_between(frames, view), resample_between(view, frames)
    pasted = torch.lerp(coarse, back(there(coarse)), back.coverage())
    assert (pasted - coarse).abs().max() < 0.01


def test_nothing_is_seen_beyond_the_source() -> None:
    native_hw = torch.tensor([[20, 20]])
    view = Frames.filling(_windows((10, 10, 50, 50)), (40, 40))
    resampling = resample_between(Frames.native(native_hw, (20, 20)), view)
    coverage = resampling.coverage()[0, 0]
    assert (coverage[:10, :10] == 1).all()
    assert not coverage[10:].any()
    assert not resampling(torch.ones(1, 1, 20, 20))[0, 0, 10:].any()


def test_gradients_reach_maps_and_windows() -> None:
    maps = _random(1, 1, 6, 7).double().requires_grad_()
    windows = torch.tensor([[0.83, 1.21, 5.47, 5.18]], dtype=torch.float64, requires_grad=True)
    whole = torch.tensor([[0.0, 0.0, 7.0, 6.0]], dtype=torch.float64)

    def cut(maps: Tensor, windows: Tensor) -> Tensor:
        view = Frames.filling(windows, (5, 4))
        return resample_between(Frames.filling(whole, (6, 7)), view)(maps)

    def paste(values: Tensor, windows: Tensor) -> Tensor:
        back = resample_between(Frames.filling(windows, (6, 7)), Frames.filling(whole, (6, 7)))
        return torch.lerp(torch.zeros_like(values), back(values), back.coverage())

    assert torch.autograd.gradcheck(cut, (maps, windows))
    assert torch.autograd.gradcheck(paste, (maps, windows))


def test_autocast_does_not_round() -> None:
    images, native_hw = _random(1, 1, 60, 80), torch.tensor([[60, 80]])
    natives, frames = Frames.native(native_hw, (60, 80)), Frames.letterboxed(native_hw, 32)
    exact = resample_between(natives, frames)(images)
    with torch.autocast("cpu", torch.bfloat16):
        hurried = resample_between(natives, frames)(images)
    assert torch.equal(hurried, exact)


def test_items_are_resampled_one_by_one() -> None:
    native_hw = torch.tensor([[30, 50], [50, 30]])
    images = _random(2, 1, 50, 50)
    natives, frames = Frames.native(native_hw, (50, 50)), Frames.letterboxed(native_hw, 16)
    together = resample_between(natives, frames)(images)
    for item in range(2):
        index = torch.tensor([item])
        alone = resample_between(natives.select(index), frames.select(index))(images[index])
        torch.testing.assert_close(together[index], alone)


@pytest.mark.parametrize(
    ("window", "grid_hw"),
    [
        ((5, -4, 30, 21), (24, 19)),
        ((10.5, 3, 60, 50), (7, 19)),
        ((0, 0, 51, 37), (100, 90)),
        ((-20, -30, 90, 70), (16, 16)),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_images_by_taps_equal_images_by_matrices(
    window: tuple[float, ...], grid_hw: tuple[int, int], mirrored: bool
) -> None:
    native_hw = torch.tensor([[37, 51], [51, 22]])
    images = _random(2, 3, 51, 51)
    natives, view = Frames.native(native_hw, (51, 51)), Frames.filling(_windows(window), grid_hw)
    view = (view.mirrored() if mirrored else view).select(torch.tensor([0, 0]))
    largest = float((view.px_per_native() ** -1).max())
    found, coverage = resample(images, natives, view, max_shrinkage=largest)
    expected = resample_between(natives, view)
    torch.testing.assert_close(found, expected(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(coverage, expected.coverage())


def test_gradients_reach_windows_through_taps() -> None:
    images = _random(1, 2, 6, 7).double()
    windows = torch.tensor([[0.83, 1.21, 5.47, 5.18]], dtype=torch.float64, requires_grad=True)
    whole = Frames.filling(torch.tensor([[0.0, 0.0, 7.0, 6.0]], dtype=torch.float64), (6, 7))

    def cut(windows: Tensor) -> Tensor:
        view = Frames.filling(windows, (5, 4))
        return resample(images, whole, view, max_shrinkage=2.0)[0]

    assert torch.autograd.gradcheck(cut, windows)


@pytest.mark.parametrize("native_hw", [(11, 2000), (19, 2000), (83, 2048)])
def test_thin_images_lose_nothing(native_hw: tuple[int, int]) -> None:
    """Their short side shrinks more than the long one, by the rounding of the content."""
    sizes = torch.tensor([native_hw])
    frames = Frames.letterboxed(sizes, 256)
    shrinkage = max(native_hw) / 256
    natives = Frames.native(sizes, native_hw)
    found, _ = resample(torch.ones(1, 1, *native_hw), natives, frames, max_shrinkage=shrinkage)
    inside = found[frames.content()]
    torch.testing.assert_close(inside, torch.ones_like(inside))

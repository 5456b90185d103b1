"""Focus on one lesion: the heaviest component stays, the others go, a single one is untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from ultrarefiner.ops.extents import extent_box
from ultrarefiner.ops.focus import dominant_component
from ultrarefiner.ops.moments import sharpen

_EIGHT = np.ones((3, 3))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _focus(probs: Tensor) -> Tensor:
    return dominant_component(probs, _sharpened(probs))


def _sharpened(probs: Tensor) -> Tensor:
    return sharpen(probs, floor=0.05, relative=0.4, temperature=0.5)


def _blobs(
    *blobs: tuple[float, float, float, float], hw: tuple[int, int] = (224, 224), floor: float = 0.0
) -> Tensor:
    """Soft discs of (x, y, radius, peak) over a noisy floor, ``1 1 h w``."""
    ys, xs = (torch.arange(length) + 0.5 for length in hw)
    probs = floor * (0.5 + torch.rand(hw, generator=_generator(0)))
    for x, y, radius_px, peak in blobs:
        distance = torch.hypot(xs[None] - x, ys[:, None] - y)
        probs = torch.maximum(probs, peak * torch.sigmoid((radius_px - distance) / 2))
    return probs[None, None]


def _spiral(side: int) -> np.ndarray:
    """One 8-connected line that fills the grid, turns one cell apart."""
    mask = np.zeros((side, side), dtype=bool)
    row, col, step = 0, 0, (0, 1)
    mask[0, 0] = True
    turned = 0
    while turned < 2:
        ahead = row + step[0], col + step[1]
        beyond = row + 2 * step[0], col + 2 * step[1]
        free = all(0 <= place < side for place in ahead) and not mask[ahead]
        crossing = all(0 <= place < side for place in beyond) and mask[beyond]
        if free and not crossing:
            row, col = ahead
            mask[row, col] = True
            turned = 0
        else:
            step = step[1], -step[0]
            turned += 1
    return mask


def _serpentine(side: int) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.1])
def test_of_two_blobs_the_heavier_remains(floor: float) -> None:
    heavy, light = (70.0, 80.0, 30.0, 0.9), (160.0, 150.0, 20.0, 0.99)
    both, alone = _blobs(heavy, light, floor=floor), _blobs(heavy, floor=floor)
    factor, weights = _focus(both), _sharpened(both)
    mine = (_sharpened(alone) > 0) & (weights > 0)
    assert (factor[mine] == 1).all()
    assert (factor[(weights > 0) & ~mine] == 0).all()
    # The light one's blurred edge goes with it, the heavy one's stays.
    assert (both * factor - alone).abs().max() < max(0.06, 1.5 * floor)


@pytest.mark.parametrize("peak", [0.6, 0.9])
def test_sharpened_again_the_other_does_not_come_back(peak: float) -> None:
    """Without a surer lesion the threshold falls, below the blurred edge of the one that went."""
    heavy, sure = (70.0, 110.0, 50.0, peak), (160.0, 110.0, 25.0, 1.0)
    probs, alone = _blobs(heavy, sure), _blobs(heavy)
    box = extent_box(_sharpened(probs * _focus(probs)))
    assert (box - extent_box(_sharpened(alone))).abs().max() < 0.5


def test_a_cut_without_the_fade_would_leave_its_edge_standing() -> None:
    probs = _blobs((70.0, 110.0, 50.0, 0.6), (160.0, 110.0, 25.0, 1.0))
    factor = _focus(probs)
    cut = torch.where(_sharpened(probs) > 0, factor, 1)
    box, cut_box = (extent_box(_sharpened(probs * part)) for part in (factor, cut))
    assert (cut_box - box).abs().max() > 20


def test_weight_is_expected_area_not_the_peak() -> None:
    small_and_sure, large = (60.0, 60.0, 15.0, 1.0), (150.0, 150.0, 30.0, 0.7)
    factor = _focus(_blobs(small_and_sure, large))
    assert factor[0, 0, 150, 150] == 1
    assert factor[0, 0, 60, 60] == 0


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_a_single_lesion_stays_exactly_as_it_is(floor: float) -> None:
    assert torch.equal(_focus(_blobs((70, 80, 30, 0.9), floor=floor)), torch.ones(1, 1, 224, 224))


@pytest.mark.parametrize("value", [0.0, 0.03, 0.5, 1.0])
def test_constant_maps_stay_as_they_are(value: float) -> None:
    probs = torch.full((2, 1, 50, 31), value)
    assert torch.equal(_focus(probs), torch.ones_like(probs))


def test_one_pixel_stays() -> None:
    probs = torch.zeros(1, 1, 100, 90)
    probs[..., 99, 89] = 0.8
    assert torch.equal(_focus(probs), torch.ones_like(probs))


@pytest.mark.parametrize("hw", [(64, 64), (37, 64), (5, 9), (1, 1)])
@pytest.mark.parametrize("density", [0.1, 0.25, 0.4, 0.55])
def test_agrees_with_scipy_where_cells_are_pixels(hw: tuple[int, int], density: float) -> None:
    draws = torch.rand(6, 1, *hw, generator=_generator(1), dtype=torch.float64)
    probs = torch.where(draws < density, 0.2 + 0.8 * draws, 0)
    factors = dominant_component(probs, probs)
    for factor, mask in zip(factors[:, 0].numpy(), probs[:, 0].numpy(), strict=True):
        labels, num = ndimage.label(mask > 0, _EIGHT)
        if num == 0:
            assert (factor == 1).all()
            continue
        heaviest = 1 + np.argmax(ndimage.sum(mask, labels, range(1, num + 1)))
        np.testing.assert_array_equal(factor[mask > 0], (labels == heaviest)[mask > 0])


@pytest.mark.parametrize("shape", [_spiral, _serpentine])
@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("side", [40, 63, 64])
def test_the_most_winding_shapes_stay_whole(shape, quarter_turns: int, side: int) -> None:  # type: ignore[no-untyped-def]
    mask = np.rot90(shape(side), quarter_turns).copy()
    assert ndimage.label(mask, _EIGHT)[1] == 1
    probs = torch.from_numpy(mask).float()[None, None]
    assert torch.equal(dominant_component(probs, probs), torch.ones_like(probs))


def test_lesions_are_told_apart_by_a_gap_of_two_cells() -> None:
    for gap_px, are_apart in ((3, False), (8, True)):
        for shift_px in range(4):  # wherever they lie on the grid of 4 px cells
            probs = torch.zeros(1, 1, 224, 224)
            edge = 80 + shift_px
            probs[..., 50:100, 50:edge] = 1
            probs[..., 50:100, edge + gap_px : edge + gap_px + 10] = 1
            second = _focus(probs)[0, 0, 75, edge + gap_px + 5]
            assert second == (0 if are_apart else 1)


def test_lesions_that_touch_at_a_corner_are_one() -> None:
    probs = torch.zeros(1, 1, 60, 60)
    probs[..., 10:20, 10:20] = 1
    probs[..., 20:40, 20:40] = 1
    assert torch.equal(_focus(probs), torch.ones_like(probs))


def test_the_factor_is_detached_and_passes_gradients_to_one_lesion() -> None:
    probs = _blobs((70, 80, 30, 0.9), (160, 150, 20, 0.9)).requires_grad_()
    factor = _focus(probs)
    assert not factor.requires_grad
    (probs * factor).sum().backward()
    assert probs.grad is not None
    assert torch.equal(probs.grad, factor)


@pytest.mark.parametrize("hw", [(224, 224), (97, 130), (223, 64)])
def test_a_batch_equals_one_by_one(hw: tuple[int, int]) -> None:
    probs = torch.cat(
        [
            _blobs((20, 30, 12, 0.9), (50, 75, 9, 1.0), hw=hw),
            _blobs((50, 75, 12, 0.9), (20, 30, 9, 1.0), hw=hw, floor=0.05),
            torch.zeros(1, 1, *hw),
        ]
    )
    factors = _focus(probs)
    assert factors.shape == probs.shape
    for item in range(3):
        torch.testing.assert_close(factors[item], _focus(probs[item : item + 1])[0])
    assert [factors[k, 0, 30, 20].item() for k in range(3)] == [1, 0, 1]


def test_flips_and_transposes_of_whole_cells() -> None:
    probs = _blobs((70, 80, 30, 0.9), (160, 150, 20, 0.9), (180, 50, 12, 0.8))
    factor = _focus(probs)
    torch.testing.assert_close(_focus(probs.flip(-1)), factor.flip(-1))
    torch.testing.assert_close(_focus(probs.flip(-2)), factor.flip(-2))
    torch.testing.assert_close(_focus(probs.mT), factor.mT)


def test_types_and_autocast() -> None:
    probs = _blobs((70, 80, 30, 0.9), (160, 150, 20, 0.9))
    factor = _focus(probs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(_focus(probs), factor)
    assert _focus(probs.bfloat16()).dtype == torch.bfloat16
    assert _focus(probs.double()).dtype == torch.float64


def test_it_compiles_without_a_break() -> None:
    probs = _blobs((20, 30, 12, 0.9), (50, 75, 9, 1.0), hw=(97, 130))
    compiled = torch.compile(_focus, backend="eager", fullgraph=True)
    assert torch.equal(compiled(probs), _focus(probs))

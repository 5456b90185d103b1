"""Letterboxed images: upstream's rounding, and no half-pixel shift in either direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.ops.letterbox import Letterbox

_SIDES = st.integers(1, 2000)

# Shrinking, enlarging, mixed, odd, thin; (native rows and columns, side of the frame).
_SIZES = [
    ((480, 640), 256),
    ((481, 333), 256),
    ((120, 97), 256),
    ((256, 256), 256),
    ((257, 256), 256),
    ((90, 300), 64),
    ((61, 40), 224),
]


def _blob(hw: tuple[int, int], centre_xy: tuple[float, float], sigma_px: float) -> np.ndarray:
    """Gaussian sampled at pixel centres i + 0.5."""
    ys, xs = np.indices(hw) + 0.5
    squared = (xs - centre_xy[0]) ** 2 + (ys - centre_xy[1]) ** 2
    return np.exp(-squared / (2 * sigma_px**2)).astype(np.float32)


def _centroid_xy(image: np.ndarray) -> np.ndarray:
    ys, xs = np.indices(image.shape) + 0.5
    mass = image.astype(np.float64)
    return np.array([(mass * xs).sum(), (mass * ys).sum()]) / mass.sum()


def _native_blob(hw: tuple[int, int]) -> np.ndarray:
    """Blob well inside the image, off its centre and off the pixel grid."""
    return _blob(hw, (0.43 * hw[1] + 0.21, 0.55 * hw[0] + 0.37), 0.08 * min(hw))


@given(_SIDES, _SIDES, st.sampled_from([256, 1024]))
@settings(max_examples=150, deadline=None)
def test_content_is_rounded_as_upstream_does(rows: int, cols: int, side: int) -> None:
    # segment-anything's ResizeLongestSide.get_preprocess_shape; a thin image keeps one pixel.
    scale = side * 1.0 / max(rows, cols)
    upstream = int(rows * scale + 0.5), int(cols * scale + 0.5)
    assert Letterbox((rows, cols), side).content_hw == tuple(max(1, n) for n in upstream)


@pytest.mark.parametrize(
    ("native_hw", "expected"),
    [((512, 1), (256, 1)), ((300, 500), (154, 256)), ((1, 1), (256, 256))],
)
def test_content_by_hand(native_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Letterbox(native_hw, 256).content_hw == expected


@pytest.mark.parametrize(("hw", "side"), _SIZES)
def test_shrink_moves_no_centroid(hw: tuple[int, int], side: int) -> None:
    frame = Letterbox(hw, side)
    native = _native_blob(hw)
    expected = _centroid_xy(native) * frame.scale_xy
    np.testing.assert_allclose(_centroid_xy(frame.shrink(native)), expected, atol=0.1)


@pytest.mark.parametrize(("hw", "side"), _SIZES)
def test_enlarge_moves_no_centroid(hw: tuple[int, int], side: int) -> None:
    frame = Letterbox(hw, side)
    rows, cols = frame.content_hw
    centre_xy = 0.43 * cols + 0.21, 0.55 * rows + 0.37
    inside = _blob((side, side), centre_xy, 0.08 * min(rows, cols))
    enlarged = frame.enlarge(torch.from_numpy(inside)[None])[0].numpy()
    expected = _centroid_xy(inside) / frame.scale_xy
    assert enlarged.shape == hw
    np.testing.assert_allclose(_centroid_xy(enlarged), expected, atol=0.1)


@pytest.mark.parametrize(("hw", "side"), _SIZES)
def test_a_smooth_image_survives_the_round_trip(hw: tuple[int, int], side: int) -> None:
    frame = Letterbox(hw, side)
    sigma_px = 3 / min(1.0, *frame.scale_xy)  # smooth on both grids
    native = _blob(hw, (0.43 * hw[1], 0.55 * hw[0]), sigma_px)
    back = frame.enlarge(torch.from_numpy(frame.shrink(native))).numpy()
    # Each way may blur by 1/4 px^2 of variance, which takes 0.5 / 9 off the peak.
    assert np.abs(back - native).max() < 0.06
    assert np.abs(back - native).mean() < 0.005


@pytest.mark.parametrize(("hw", "side"), _SIZES)
def test_padding_stays_zero_and_constants_stay_constant(hw: tuple[int, int], side: int) -> None:
    frame = Letterbox(hw, side)
    shrunk = frame.shrink(np.full(hw, 0.7, dtype=np.float32))
    inside = frame.content_mask().numpy()
    assert shrunk.shape == (side, side)
    assert shrunk.dtype == np.float32
    assert (shrunk[~inside] == 0).all()
    np.testing.assert_allclose(shrunk[inside], 0.7, atol=1e-6)
    back = frame.enlarge(torch.from_numpy(shrunk)).numpy()
    np.testing.assert_allclose(back, 0.7, atol=1e-6)


def test_shrinking_averages_areas() -> None:
    native = np.arange(16, dtype=np.float32).reshape(4, 4)
    expected = native.reshape(2, 2, 2, 2).mean(axis=(1, 3))
    assert np.array_equal(Letterbox((4, 4), 2).shrink(native), expected)


def test_enlarge_keeps_batch_dimensions_and_each_map() -> None:
    frame = Letterbox((30, 50), 16)
    maps = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together = frame.enlarge(maps)
    assert together.shape == (2, 3, 30, 50)
    torch.testing.assert_close(together[1, 2], frame.enlarge(maps[1, 2]))


def test_enlarge_is_differentiable() -> None:
    frame = Letterbox((5, 3), 4)
    maps = torch.rand(1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(frame.enlarge, maps)


@pytest.mark.parametrize("hw", [(1, 1), (1, 40), (700, 1), (3, 2)])
def test_thin_images_survive(hw: tuple[int, int]) -> None:
    frame = Letterbox(hw, 32)
    back = frame.enlarge(torch.from_numpy(frame.shrink(np.ones(hw, dtype=np.float32))))
    assert back.shape == hw
    torch.testing.assert_close(back, torch.ones(hw))


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(AssertionError, match="empty image"):
        Letterbox((0, 4), 8)
    with pytest.raises(AssertionError, match="empty frame"):
        Letterbox((4, 4), 0)

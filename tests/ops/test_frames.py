"""Frames: exact inverses, mirrors, odd sizes, and the content of letterboxed and cut grids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.letterbox import Letterbox

_SIDES = st.integers(1, 2000)
_GRIDS = st.sampled_from([1, 63, 64, 224, 256, 1024])


def _points(seed: int, high: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return high * torch.rand(2, 5, 2, dtype=dtype, generator=generator)


@given(_SIDES, _SIDES, _GRIDS, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_letterboxed_coordinates_return(rows: int, cols: int, side: int, seed: int) -> None:
    frames = Frames.letterboxed(torch.tensor([[rows, cols], [cols, rows]]), side)
    native = _points(seed, max(rows, cols))
    back = frames.to_native(frames.from_native(native))
    torch.testing.assert_close(back, native, rtol=1e-14, atol=0)


@given(
    st.tuples(*[st.floats(-300, 900)] * 2, *[st.floats(1, 700)] * 2),
    st.booleans(),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_cut_coordinates_return_mirrored_or_not(
    window: tuple[float, ...], mirrored: bool, grid_hw: tuple[int, int], seed: int
) -> None:
    x, y, width, height = window
    frames = Frames.filling(torch.tensor([[x, y, x + width, y + height]]).repeat(2, 1), grid_hw)
    frames = frames.mirrored() if mirrored else frames
    grid = _points(seed, max(grid_hw))
    back = frames.from_native(frames.to_native(grid))
    torch.testing.assert_close(back, grid, rtol=1e-9, atol=1e-9)
    single = frames.from_native(frames.to_native(grid.float()))
    torch.testing.assert_close(single, grid.float(), rtol=0, atol=0.02 * max(1, 400 / width))


@given(_SIDES, _SIDES, _GRIDS)
@example(90, 640, 224)
@settings(max_examples=100, deadline=None)
def test_the_letterbox_is_that_of_files(rows: int, cols: int, side: int) -> None:
    frames = Frames.letterboxed(torch.tensor([[rows, cols]]), side)
    box = Letterbox((rows, cols), side)
    assert frames.content_wh[0].tolist() == list(box.content_hw[::-1])
    assert torch.equal(frames.content()[0, 0], box.content_mask())
    scale_x, scale_y = frames.px_per_native()[0].tolist()
    assert (scale_x, scale_y) == pytest.approx(box.scale_xy, rel=1e-6)


def test_corners_go_to_corners() -> None:
    frames = Frames.letterboxed(torch.tensor([[30, 50], [50, 30]]), 16)
    corners = torch.tensor([[[50.0, 30.0]], [[30.0, 50.0]]])
    assert frames.from_native(corners).tolist() == [[[16.0, 10.0]], [[10.0, 16.0]]]
    assert frames.content_boxes().tolist() == [[0, 0, 16, 10], [0, 0, 10, 16]]
    assert frames.content().sum(dim=(1, 2, 3)).tolist() == [160, 160]


def test_a_window_by_hand() -> None:
    frames = Frames.filling(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), (8, 4))
    points = torch.tensor([[[10.0, 20.0], [30.0, 60.0], [15.0, 25.0]]])
    assert frames.from_native(points).tolist() == [[[0, 0], [4, 8], [1, 1]]]
    assert frames.mirrored().from_native(points).tolist() == [[[4, 0], [0, 8], [3, 1]]]
    boxes = torch.tensor([[[10.0, 20.0, 15.0, 25.0]]])
    assert frames.boxes_from_native(boxes).tolist() == [[[0, 0, 1, 1]]]
    assert frames.mirrored().boxes_from_native(boxes).tolist() == [[[3, 0, 4, 1]]]
    mirrored = frames.mirrored()
    assert torch.equal(mirrored.boxes_to_native(mirrored.boxes_from_native(boxes)), boxes)


def test_resizing_keeps_the_window_and_may_end_within_a_pixel() -> None:
    frames = Frames.letterboxed(torch.tensor([[600, 1000]]), 1024)
    assert frames.content_wh.tolist() == [[1024, 614]]
    small = frames.resized((256, 256))
    assert small.content_wh.tolist() == [[256, 153.5]]
    assert torch.equal(small.windows, frames.windows)
    assert int(small.content()[0, 0, :, 0].sum()) == 153, "pixel 153 has its centre outside"


def test_only_letterboxes_of_one_size_are_known_to_be_the_same() -> None:
    native_hw = torch.tensor([[600, 1000]])
    frames = Frames.letterboxed(native_hw, 256)
    assert frames.same_as(frames)
    assert frames.same_as(Frames.letterboxed(native_hw, 256))
    assert frames.same_as(frames.resized((256, 256)))
    assert not frames.same_as(Frames.letterboxed(native_hw, 224))
    assert not frames.same_as(Frames.letterboxed(native_hw, 1024).resized((256, 256)))
    assert not frames.same_as(Frames.filling(frames.windows, (256, 256)))


def test_select_and_move() -> None:
    frames = Frames.letterboxed(torch.tensor([[30, 50], [50, 30], [20, 20]]), 16)
    picked = frames.select(torch.tensor([2, 0, 0])).to(torch.device("cpu"))
    assert len(picked) == 3
    assert picked.windows.tolist() == [[0, 0, 20, 20], [0, 0, 50, 30], [0, 0, 50, 30]]
    assert picked.letterbox


def test_gradients_reach_points_and_windows() -> None:
    windows = torch.tensor([[3.0, 4.0, 20.0, 31.0]], dtype=torch.float64, requires_grad=True)
    points = _points(3, 20)[:1].requires_grad_()

    def there(windows: Tensor, points: Tensor) -> Tensor:
        return Frames.filling(windows, (7, 9)).from_native(points)

    def back(windows: Tensor, points: Tensor) -> Tensor:
        return Frames.filling(windows, (7, 9)).to_native(points)

    assert torch.autograd.gradcheck(there, (windows, points))
    assert torch.autograd.gradcheck(back, (windows, points))

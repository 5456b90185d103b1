"""Where grids lie on native images: the one map between native px and the px of any grid.

Coordinates are continuous: index i covers [i, i + 1) and has its centre at i + 0.5, so that a
change of frame is one scale and one offset per axis, with no half-pixel terms
(``align_corners=False``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.shapes import Boxes, Points


@dataclass(frozen=True, kw_only=True)
class Frames:
    r"""The frames of B grids, each showing a window of its own native image.

    .. math:: g = (p - w_0) \cdot \frac{c}{w_1 - w_0}

    maps native px p to grid px g, with the window from :math:`w_0` to :math:`w_1` and its extent c
    on the grid; the inverse is exact. A window whose ends are swapped shows the image mirrored.

    Attributes:
        windows: ``B 4`` what the grid shows, xyxy [native px]; may reach beyond the image.
        content_wh: ``B 2`` columns and rows that the window fills, from the grid's first pixel on
            [grid px]; what lies behind is padding.
        grid_hw: rows and columns of every grid.
        letterbox: whether these are whole images as :meth:`letterboxed` puts them; two such frames
            of the same images on grids of one size are the same.
    """

    windows: Float[Tensor, "B 4"]
    content_wh: Float[Tensor, "B 2"]
    grid_hw: tuple[int, int]
    letterbox: bool = False

    def __len__(self) -> int:
        return len(self.windows)

    @classmethod
    def letterboxed(cls, native_hw: Int[Tensor, "B 2"], side: int) -> Frames:
        """Return whole images scaled to fit a square grid, aspect kept, padded below and right.

        The content is rounded to whole px, as the SAM family does.
        """
        whole_wh = native_hw.flip(-1)
        longest = whole_wh.amax(dim=-1, keepdim=True)
        rounded = torch.div(2 * whole_wh * side + longest, 2 * longest, rounding_mode="floor")
        sizes_wh, content_wh = whole_wh.float(), rounded.clamp_min(1).float()
        windows = torch.cat([torch.zeros_like(sizes_wh), sizes_wh], dim=-1)
        return cls(windows=windows, content_wh=content_wh, grid_hw=(side, side), letterbox=True)

    @classmethod
    def filling(cls, windows: Boxes, grid_hw: tuple[int, int]) -> Frames:
        """Return windows that fill their grids, whatever their aspect."""
        content_wh = windows.new_tensor(grid_hw[::-1]).expand(len(windows), 2)
        return cls(windows=windows, content_wh=content_wh, grid_hw=grid_hw)

    @classmethod
    def native(cls, native_hw: Int[Tensor, "B 2"], grid_hw: tuple[int, int]) -> Frames:
        """Return the frames of native images themselves, padded below and right to one size."""
        sizes_wh = native_hw.flip(-1).float()
        windows = torch.cat([torch.zeros_like(sizes_wh), sizes_wh], dim=-1)
        return cls(windows=windows, content_wh=sizes_wh, grid_hw=grid_hw)

    def from_native(self, points: Points) -> Points:
        """Map ``B N 2`` xy from native px to grid px."""
        return (points - self._origin(points)) * self._scale(points)

    def to_native(self, points: Points) -> Points:
        """Map ``B N 2`` xy from grid px to native px; the exact inverse."""
        return points / self._scale(points) + self._origin(points)

    def boxes_from_native(self, boxes: Float[Tensor, "B M 4"]) -> Float[Tensor, "B M 4"]:
        """Map ``B M 4`` xyxy from native px to grid px; a mirrored box keeps x0 below x1."""
        return _sorted_corners(self.from_native(_corners(boxes)))

    def boxes_to_native(self, boxes: Float[Tensor, "B M 4"]) -> Float[Tensor, "B M 4"]:
        """Map ``B M 4`` xyxy from grid px to native px; a mirrored box keeps x0 below x1."""
        return _sorted_corners(self.to_native(_corners(boxes)))

    def resized(self, grid_hw: tuple[int, int]) -> Frames:
        """Return the same windows on a finer or coarser grid (its content may end within a px)."""
        if grid_hw == self.grid_hw:
            return self
        ratio = [new / old for new, old in zip(grid_hw[::-1], self.grid_hw[::-1], strict=True)]
        content_wh = self.content_wh * self.content_wh.new_tensor(ratio)
        return Frames(windows=self.windows, content_wh=content_wh, grid_hw=grid_hw)

    def mirrored(self) -> Frames:
        """Return the frames of the same grids showing their windows left to right."""
        return Frames(
            windows=self.windows[:, [2, 1, 0, 3]], content_wh=self.content_wh, grid_hw=self.grid_hw
        )

    def select(self, index: Int[Tensor, "b"]) -> Frames:
        """Return some of the frames."""
        return replace(self, windows=self.windows[index], content_wh=self.content_wh[index])

    def to(self, device: torch.device) -> Frames:
        """Return the frames on a device."""
        return replace(self, windows=self.windows.to(device), content_wh=self.content_wh.to(device))

    def same_as(self, other: Frames) -> bool:
        """Tell, without looking at values, whether two frames of the same images are the same."""
        same_grid = self.grid_hw == other.grid_hw
        return self is other or (self.letterbox and other.letterbox and same_grid)

    def px_per_native(self) -> Float[Tensor, "B 2"]:
        """Return the size of a native px in x and y [grid px]; positive also if mirrored."""
        return self.content_wh / (self.windows[:, 2:] - self.windows[:, :2]).abs()

    def content(self) -> Bool[Tensor, "B 1 H W"]:
        """Return which pixels of the grids have their centre in the window, not in the padding."""
        rows, cols = (
            torch.arange(length, device=self.windows.device) + 0.5 for length in self.grid_hw
        )
        inside = (rows < self.content_wh[:, 1:])[:, :, None] & (cols < self.content_wh[:, :1])[
            :, None
        ]
        return inside[:, None]

    def content_boxes(self) -> Boxes:
        """Return the box of the content of each grid, ``B 4`` [grid px]."""
        return torch.cat([torch.zeros_like(self.content_wh), self.content_wh], dim=-1)

    def _origin(self, points: Points) -> Float[Tensor, "B 1 2"]:
        return self.windows[:, None, :2].to(points.dtype)

    def _scale(self, points: Points) -> Float[Tensor, "B 1 2"]:
        windows = self.windows.to(points.dtype)
        return (self.content_wh.to(points.dtype) / (windows[:, 2:] - windows[:, :2]))[:, None]


def _corners(boxes: Float[Tensor, "B M 4"]) -> Points:
    return boxes.reshape(len(boxes), -1, 2)


def _sorted_corners(corners: Points) -> Float[Tensor, "B M 4"]:
    first, second = corners[:, 0::2], corners[:, 1::2]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)

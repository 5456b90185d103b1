"""A native image in the square frame of a network: aspect kept, padded below and right.

This is the numpy side, for files on their way in and out; maps between frames of whole batches are
:class:`~ultrarefiner.ops.frames.Frames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor


@dataclass(frozen=True)
class Letterbox:
    """Native image scaled to fit a square frame, aspect kept, padded below and right.

    Attributes:
        native_hw: rows and columns of the native image [px].
        side: side of the square frame [px].
    """

    native_hw: tuple[int, int]
    side: int

    def __post_init__(self) -> None:
        assert min(self.native_hw) > 0, f"empty image: {self.native_hw}"
        assert self.side > 0, f"empty frame: {self.side}"

    @cached_property
    def content_hw(self) -> tuple[int, int]:
        """Rows and columns of the frame that hold image; the rest is padding [px]."""
        longest = max(self.native_hw)
        height, width = (
            max(1, (2 * length * self.side + longest) // (2 * longest)) for length in self.native_hw
        )
        return height, width

    @cached_property
    def scale_xy(self) -> tuple[float, float]:
        """Frame px per native px; the axes differ by the rounding of ``content_hw``."""
        (height, width), (rows, cols) = self.native_hw, self.content_hw
        return cols / width, rows / height

    def shrink(self, image: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "side side"]:
        """Resample a native image to the frame (area average when shrinking), padding 0."""
        rows, cols = self.content_hw
        smaller = rows < self.native_hw[0] or cols < self.native_hw[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        frame = np.zeros((self.side, self.side), dtype=np.float32)
        frame[:rows, :cols] = cv2.resize(image, (cols, rows), interpolation=how)
        return frame

    def enlarge(self, maps: Float[Tensor, "*B side side"]) -> Float[Tensor, "*B H W"]:
        """Resample maps from the frame to the native grid (bilinear, antialiased)."""
        rows, cols = self.content_hw
        content = maps[..., :rows, :cols].reshape(-1, 1, rows, cols)
        if self.native_hw != (rows, cols):
            shrinking = self.native_hw[0] < rows or self.native_hw[1] < cols
            content = F.interpolate(
                content, self.native_hw, mode="bilinear", align_corners=False, antialias=shrinking
            )
        return content.reshape(*maps.shape[:-2], *self.native_hw)

    def content_mask(self) -> Tensor:
        """Return ``side side`` booleans, true inside the content."""
        rows, cols = self.content_hw
        inside = torch.zeros(self.side, self.side, dtype=torch.bool)
        inside[:rows, :cols] = True
        return inside

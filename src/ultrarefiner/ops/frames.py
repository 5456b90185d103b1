"""The map between a native image and the square frame that a foundation model sees.

Coordinates are continuous: index i covers [i, i + 1) and has its centre at i + 0.5, so that a
change of frame is one scale per axis, with no half-pixel terms (``align_corners=False``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
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
        scale = self.side / max(self.native_hw)
        height, width = (max(1, int(length * scale + 0.5)) for length in self.native_hw)
        return height, width

    @cached_property
    def scale_xy(self) -> tuple[float, float]:
        """Frame px per native px; the axes differ by the rounding of ``content_hw``."""
        (height, width), (rows, cols) = self.native_hw, self.content_hw
        return cols / width, rows / height

    def to_frame(self, coords_xy: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
        """Map xy from native px to frame px."""
        return coords_xy * coords_xy.new_tensor(self.scale_xy)

    def to_native(self, coords_xy: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
        """Map xy from frame px to native px; the exact inverse of :meth:`to_frame`."""
        return coords_xy / coords_xy.new_tensor(self.scale_xy)

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


def stretch(image: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Stretch an image to [0, 1], as scanners and exports differ; a constant one becomes 0."""
    low, high = float(image.min()), float(image.max())
    stretched: Float32[np.ndarray, "H W"] = (image - low) / np.float32(max(high - low, 1e-8))
    return stretched


def content_mask(
    images: Float[Tensor, "B C H W"], content_hw: Float[Tensor, "B 2"] | Int[Tensor, "B 2"]
) -> Bool[Tensor, "B 1 H W"]:
    """Return where letterboxed images hold image rather than padding."""
    rows = torch.arange(images.shape[-2], device=images.device)
    cols = torch.arange(images.shape[-1], device=images.device)
    content_hw = content_hw.to(images.device)
    inside = (rows < content_hw[:, :1])[:, :, None] & (cols < content_hw[:, 1:])[:, None]
    return inside[:, None]


def stretch_content(
    images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B 1 H W"]
) -> Float[Tensor, "B C H W"]:
    """Stretch each image's content to [0, 1]; the padding is 0, a constant image too."""
    low = images.masked_fill(~valid, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    high = images.masked_fill(~valid, -torch.inf).amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-8) * valid

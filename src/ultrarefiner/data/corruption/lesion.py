"""A mask and what the corruption types ask of it, each found once and in a box around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ultrarefiner.ops.distance import distance_to_zero
from ultrarefiner.shapes import Mask

_PART_OF_FRAME = 0.02  # of the frame is the area that stands in for that of an empty mask


@dataclass(frozen=True)
class Window:
    """Rows and columns of a frame [px], the last ones excluded."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def hw(self) -> tuple[int, int]:
        """Its rows and columns [px]."""
        return self.y1 - self.y0, self.x1 - self.x0

    def coordinates(self) -> tuple[Float32[np.ndarray, "h 1"], Float32[np.ndarray, "1 w"]]:
        """Return its rows and columns [index of the frame]."""
        y = np.arange(self.y0, self.y1, dtype=np.float32)[:, None]
        return y, np.arange(self.x0, self.x1, dtype=np.float32)[None]

    def grown(self, margin_px: float, frame_hw: tuple[int, int]) -> Window:
        """Return it with a margin on each side, cut where the frame ends."""
        margin, (height, width) = int(np.ceil(margin_px)), frame_hw
        return Window(
            max(self.y0 - margin, 0),
            max(self.x0 - margin, 0),
            min(self.y1 + margin, height),
            min(self.x1 + margin, width),
        )


class Lesion:
    """A mask to be corrupted.

    Args:
        mask: ``H W``, not to be changed while this is in use. It may be empty or fill the frame.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.frame_hw: tuple[int, int] = (mask.shape[0], mask.shape[1])
        self.area_px = int(np.count_nonzero(mask))
        self.box = _box(mask)

    @property
    def is_empty(self) -> bool:
        """Whether there is no lesion."""
        return self.area_px == 0

    @property
    def reference_px(self) -> float:
        """Area that shares refer to [px]: the mask's, or 2 % of the frame if it is empty."""
        return float(self.area_px or _PART_OF_FRAME * self.mask.size)

    @property
    def radius_px(self) -> float:
        """Radius of a disc of the reference area [px]."""
        return float(np.sqrt(self.reference_px / np.pi))

    @cached_property
    def centre_yx(self) -> tuple[float, float]:
        """Mean row and column of the mask [index]; the frame's centre if it is empty."""
        if self.is_empty:
            return (self.frame_hw[0] - 1) / 2, (self.frame_hw[1] - 1) / 2
        inside = self.mask[self.box.slices]
        rows, cols = inside.sum(axis=1), inside.sum(axis=0)
        return (
            float(rows @ np.arange(self.box.y0, self.box.y1)) / self.area_px,
            float(cols @ np.arange(self.box.x0, self.box.x1)) / self.area_px,
        )

    def edge_yx(self) -> np.ndarray:
        """Return ``N 2`` rows and columns of the mask's outermost pixels."""
        window = self.box.grown(1, self.frame_hw)
        inside = self.mask[window.slices].astype(np.uint8)
        # Beyond the frame nothing is known: pixels along it are no edge, unless all are there.
        beyond = 0 if self.mask.all() else 1
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        eroded = cv2.erode(inside, cross, borderType=cv2.BORDER_CONSTANT, borderValue=beyond)
        edge: np.ndarray = np.argwhere(inside != eroded) + np.array([window.y0, window.x0])
        return edge

    def distance(self, margin_px: float) -> tuple[Float32[np.ndarray, "h w"], Window]:
        """Return the signed distance around the lesion, and where; see :func:`distance_around`."""
        window = self.box.grown(max(margin_px, 1.0), self.frame_hw)
        return distance_around(self.mask, self.box, window), window


def distance_around(mask: Mask, box: Window, window: Window) -> Float32[np.ndarray, "h w"]:
    """Return the signed distance of :func:`ultrarefiner.ops.distance.signed_distance` in a window.

    It is that of the whole frame: all of the lesion is in the window, and of the pixels beside it
    the nearest to one inside are in its box or right next to it. A mask that fills the frame is
    taken to end there, so that it can be made smaller.

    Args:
        mask: ``H W``, not empty.
        box: its bounding box.
        window: around the box, by at least 1 px where the frame has it.
    """
    inside = mask[window.slices].astype(np.uint8)
    near = box.grown(1, (mask.shape[0], mask.shape[1]))
    top, left = near.y0 - window.y0, near.x0 - window.x0
    core = inside[top : top + near.hw[0], left : left + near.hw[1]]
    if core.all():
        return distance_to_zero(np.pad(core, 1))[1:-1, 1:-1] - np.float32(0.5)
    distance = np.float32(0.5) - distance_to_zero(1 - inside)
    depth = distance_to_zero(core)
    part = distance[top : top + near.hw[0], left : left + near.hw[1]]
    np.copyto(part, depth - np.float32(0.5), where=core.astype(bool))
    return distance


def choose_lowest(
    score: Float32[np.ndarray, "h w"], num_px: int, allowed: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Return the ``num_px`` allowed pixels with the lowest score, or all if there are fewer.

    All are allowed if it is not said which. Exactly that many: of those that tie, a share spread
    evenly over the rows.

    Example:
        >>> choose_lowest(np.float32([[3, 1, 1, 2]]), 2, np.array([[True, True, False, True]]))
        array([[False,  True, False,  True]])
    """
    values = score.ravel() if allowed is None else score[allowed]
    if num_px >= values.size:
        return np.ones(score.shape, dtype=bool) if allowed is None else allowed.copy()
    if num_px <= 0:
        return np.zeros(score.shape, dtype=bool)
    threshold = np.partition(values, num_px - 1)[num_px - 1]
    chosen: Bool[np.ndarray, "h w"] = score < threshold
    tied = score == threshold
    if allowed is not None:
        chosen &= allowed
        tied &= allowed
    missing = num_px - int(np.count_nonzero(chosen))
    ties = np.flatnonzero(tied)
    chosen.flat[ties[np.arange(missing) * len(ties) // missing]] = True
    return chosen


def _box(mask: Mask) -> Window:
    """Return the bounding box of a mask; that of an empty one is the whole frame."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return Window(0, 0, *mask.shape)
    return Window(int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)

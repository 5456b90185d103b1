"""Four tiny ultrasound-like pictures: speckle, a dark lesion, the truth known to the pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NUM_SCENES = 4
HEIGHT_PX, WIDTH_PX = 40, 56

# Centre and half axes (x, y) of each lesion. They are rectangles in the third, so that outlines
# can be exact, and two in the second.
_ELLIPSES = {
    0: (((27.0, 19.0), (12.0, 8.0)),),
    1: (((16.0, 14.0), (8.0, 6.0)), ((40.0, 27.0), (9.0, 7.0))),
    3: (((30.0, 22.0), (14.0, 9.0)),),
}
RECTANGLE_XYXY_PX = (12, 9, 41, 30)


@dataclass(frozen=True)
class FakeScene:
    """An image (H, W) uint8 and its lesions (H, W) bool, apart and together."""

    image: np.ndarray
    lesions: tuple[np.ndarray, ...]

    @property
    def mask(self) -> np.ndarray:
        empty = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.bool_)
        return np.logical_or.reduce([empty, *self.lesions])


def draw_scene(index: int) -> FakeScene:
    """Draw scene 0 to 3; the same bytes each time."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    if index in _ELLIPSES:
        lesions = tuple(
            ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1
            for centre, half in _ELLIPSES[index]
        )
    else:
        left, top, right, bottom = RECTANGLE_XYXY_PX
        lesions = ((left < x) & (x < right) & (top < y) & (y < bottom),)
    rng = np.random.default_rng([7, index])
    echo = np.where(np.logical_or.reduce(lesions), 35.0, 110.0) * rng.rayleigh(0.8, x.shape)
    return FakeScene(np.clip(echo, 0, 255).astype(np.uint8), lesions)


def save_png(path: Path, values: np.ndarray, **options: object) -> Path:
    """Write grey, colour or, for bool, a mask of 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = values.astype(np.uint8) * 255 if values.dtype == np.bool_ else values
    Image.fromarray(levels).save(path, **options)
    return path

"""Lesions to corrupt, and settings that make one error of one type."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from ultrarefiner.data.corruption import Corrupted, CorruptionConfig

HW = (192, 256)
SHARES = (0.002, 0.02, 0.10, 0.30)
SHAPES = ("round", "thin", "border", "parts")


def ellipse(centre_xy: tuple[float, float], half_axes_px: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: HW[0], : HW[1]] + 0.5
    (cx, cy), (a, b) = centre_xy, half_axes_px
    return ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1


def lesion(shape: str, share: float) -> np.ndarray:
    """A lesion that covers about this share of the frame."""
    r = float(np.sqrt(share * HW[0] * HW[1] / np.pi))
    if shape == "thin":
        return ellipse((128, 96), (min(4 * r, 126), max(r / 4, share * HW[0] * HW[1] / 396)))
    if shape == "border":
        return ellipse((0, 96), (r * 1.41, r * 1.41))
    if shape == "parts":
        return ellipse((80, 96), (0.71 * r, 0.71 * r)) | ellipse((190, 96), (0.71 * r, 0.71 * r))
    return ellipse((130, 90), (r, r))


def only(kind: str, **more: object) -> CorruptionConfig:
    """Settings that make hard masks with one error of one type."""
    plain: dict[str, object] = {"secondary_probability": 0.0, "soft_probability": 0.0}
    return CorruptionConfig(probabilities={kind: 1.0}, **{**plain, **more})  # type: ignore[arg-type]


def num_parts(mask: np.ndarray) -> int:
    return int(label(mask, structure=np.ones((3, 3)))[1])


def drawn(made: Corrupted) -> dict[str, float]:
    return made.parameters["steps"][0]["settings"]

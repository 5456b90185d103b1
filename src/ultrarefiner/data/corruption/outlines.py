"""Errors of the outline: identity, over-, giant and under-segmentation, shift."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float32

from ultrarefiner.data.corruption.lesion import Lesion, choose_lowest
from ultrarefiner.data.corruption.softening import pixels_per_grid_px
from ultrarefiner.data.rough import smooth_noise
from ultrarefiner.shapes import Mask

Settings = Mapping[str, float]

_CORRELATION = 0.5  # of the boundary's displacement, in radii of the result
_MOST_STDS = 2.5  # that the boundary is displaced by at most
_LEAST_INSIDE = 0.6  # of a shifted lesion; with less the shift goes the other way


def perturb(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Displace the boundary by smooth noise, nowhere by more than ``distance_px``.

    Settings: ``distance_px`` [px of a grid whose longer side is 224].
    """
    limit_px = settings["distance_px"] * pixels_per_grid_px(lesion.mask)
    if lesion.is_empty or limit_px == 0:
        return lesion.mask.copy()
    distance, window = lesion.distance(limit_px + 1)
    noise = smooth_noise(window.hw, _correlation(lesion.radius_px), rng)
    noise *= limit_px / max(float(np.abs(noise).max()), 1e-6)
    result = lesion.mask.copy()
    result[window.slices] = distance + noise > 0
    return result if result.any() else lesion.mask.copy()


def resize(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    r"""Move the level of the signed distance until the area is what was drawn.

    .. math:: M' = \{x : \phi(x) + \epsilon(x) > t\}, \quad |M'| = \rho |M|

    No level is searched for: the pixels are ranked. Settings: ``area_ratio`` and ``roughness``
    (standard deviation of the smooth noise, in radii of the result). A ratio that the frame does
    not hold fills it.
    """
    if lesion.is_empty:
        return lesion.mask.copy()
    ratio = settings["area_ratio"]
    num_px = min(max(round(ratio * lesion.area_px), 1), lesion.mask.size)
    radius_px = lesion.radius_px * float(np.sqrt(ratio))
    most_px = _MOST_STDS * settings["roughness"] * radius_px
    # A disc grows least in area for how far it grows: nothing whole needs a wider margin.
    margin_px = max(radius_px - lesion.radius_px, 0.0) + most_px + 3
    state = rng.bit_generator.state
    while True:
        rng.bit_generator.state = state
        distance, window = lesion.distance(margin_px)
        level = distance + _noise(window.hw, radius_px, most_px, rng)
        chosen = choose_lowest(-level, num_px)
        is_enough = np.count_nonzero(chosen) == num_px
        if window.hw == lesion.frame_hw or (
            # Beyond the window the level is lower than this.
            is_enough and level[chosen].min() > most_px - margin_px
        ):
            break
        margin_px *= 1.5  # the frame has cut some of the lesion's growth off
    result = np.zeros_like(lesion.mask)
    result[window.slices] = chosen
    return result


def shift(lesion: Lesion, settings: Settings, _: np.random.Generator) -> Mask:
    """Move the mask by whole pixels, at least one; what leaves the frame is lost.

    A lesion that the frame cuts is taken to go on beyond it.

    Settings: ``distance`` [diameters] and ``angle`` [rad]. Where more than 40 % would be lost, it
    goes the opposite way if that loses less.
    """
    length_px = max(2 * settings["distance"] * lesion.radius_px, 1.0)
    direction = np.array([np.sin(settings["angle"]), np.cos(settings["angle"])])
    step = np.rint(length_px * direction / np.abs(direction).max()).astype(int)
    if length_px >= 2:
        step = np.rint(length_px * direction).astype(int)
    there = _translate(lesion.mask, step)
    if np.count_nonzero(there) >= _LEAST_INSIDE * lesion.area_px:
        return there
    back = _translate(lesion.mask, -step)
    return there if np.count_nonzero(there) >= np.count_nonzero(back) else back


def _translate(mask: Mask, step_yx: np.ndarray) -> Mask:
    dy, dx = (float(step) for step in step_yx)
    size_wh = (mask.shape[1], mask.shape[0])
    moved = cv2.warpAffine(
        mask.astype(np.uint8),
        np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]]),
        size_wh,
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,  # a lesion that the frame cuts goes on beyond it
    )
    return moved.astype(bool)


def _noise(
    hw: tuple[int, int], radius_px: float, most_px: float, rng: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """Return smooth noise that is nowhere larger than ``most_px``."""
    if most_px == 0:
        return np.zeros(hw, dtype=np.float32)
    noise = smooth_noise(hw, _correlation(radius_px), rng)
    limited: Float32[np.ndarray, "h w"] = np.clip(
        noise * np.float32(most_px / _MOST_STDS), -most_px, most_px
    )
    return limited


def _correlation(radius_px: float) -> tuple[float, float]:
    length_px = max(_CORRELATION * radius_px, 1.0)
    return length_px, length_px

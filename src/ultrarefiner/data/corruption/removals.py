"""Errors that take away: missing chunk, internal holes, fragmentation, complete miss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from ultrarefiner.data.corruption.lesion import Lesion, Window, choose_lowest
from ultrarefiner.data.rough import smooth_noise
from ultrarefiner.shapes import Mask

Settings = Mapping[str, float]

_RIM_PX = 1.0  # that stays around a hole, so that it is one
_MOST_CUT = 0.5  # of the area that cuts may take
_LEAST_CUT_PX = 2.0
_WAVE = 0.12  # of a cut, in radii
_TURN = 0.3  # standard deviation of how cuts are turned against each other [rad]


def cut_chunk(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Take a wedge or a blob away at the edge, exactly as large as was drawn.

    Settings: ``area_ratio`` (what is left), ``is_wedge`` (else a blob), ``angle`` [rad].
    """
    num_px = _num_removed(lesion, settings["area_ratio"])
    if num_px == 0:
        return lesion.mask.copy()
    window = lesion.box
    y, x = window.coordinates()
    inside = lesion.mask[window.slices]
    radius_px = lesion.radius_px
    noise = smooth_noise(window.hw, (0.35 * radius_px, 0.35 * radius_px), rng)
    towards = np.array([np.sin(settings["angle"]), np.cos(settings["angle"])])
    edge_yx = lesion.edge_yx()
    edge = edge_yx[np.argmax((edge_yx - lesion.centre_yx) @ towards)]
    if settings["is_wedge"]:
        # Its tip lies on the far side of the centre: a sector of the lesion, not a slit.
        tip = np.asarray(lesion.centre_yx) - 0.3 * radius_px * towards
        along = (y - tip[0]) * towards[0] + (x - tip[1]) * towards[1]
        across = (x - tip[1]) * towards[0] - (y - tip[0]) * towards[1]
        score = np.abs(np.arctan2(across, along)) + 0.12 * noise
    else:
        score = np.hypot(y - edge[0], x - edge[1]) + 0.12 * radius_px * noise
    return _without(lesion, choose_lowest(score.astype(np.float32), num_px, inside), window)


def dig_holes(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Dig holes that do not reach the edge, together as large as was drawn if there is room.

    Settings: ``area_ratio`` (what is left) and ``num``; the sizes differ.
    """
    num_px = _num_removed(lesion, settings["area_ratio"])
    if num_px == 0:
        return lesion.mask.copy()
    distance, window = lesion.distance(1)
    free = distance > _RIM_PX
    shares = rng.dirichlet(np.full(int(settings["num"]), 6.0))
    sizes_px = np.diff(np.rint(num_px * np.r_[0.0, np.cumsum(shares)])).astype(int)
    holes = np.zeros_like(free)
    noise = smooth_noise(window.hw, (0.2 * lesion.radius_px,) * 2, rng)
    y, x = window.coordinates()
    short_px = 0
    for size_px in np.sort(sizes_px)[::-1]:
        size_px += short_px  # what one hole has no room for the next one gets
        radius_px = float(np.sqrt(size_px / np.pi))
        places = np.argwhere(free & (distance > min(radius_px, 0.7 * float(distance.max()))))
        if not len(places):
            places = np.argwhere(free)
        if not len(places):
            break
        row, col = places[rng.integers(len(places))]
        away = np.hypot(y - y[row, 0], x - x[0, col]) + 0.15 * radius_px * noise
        hole = choose_lowest(away.astype(np.float32), int(size_px), free)
        short_px = int(size_px) - int(np.count_nonzero(hole))
        holes |= hole
        free &= ~hole
    return _without(lesion, holes, window)


def cut_through(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Cut the mask into parts with wavy, uneven gaps, side by side.

    Settings: ``num`` cuts at most, ``width`` [radii] and ``angle`` across which they are spread
    [rad]. A cut that would take what is left below half of the area is not made.
    """
    if lesion.is_empty:
        return lesion.mask.copy()
    window = lesion.box
    y, x = window.coordinates()
    inside = lesion.mask[window.slices]
    radius_px, num = lesion.radius_px, int(settings["num"])
    width_px = max(settings["width"] * radius_px, _LEAST_CUT_PX)
    noise = smooth_noise(window.hw, (0.4 * radius_px, 0.4 * radius_px), rng)
    rows, cols = np.nonzero(inside)
    along = np.cos(settings["angle"]) * rows + np.sin(settings["angle"]) * cols
    # Between them lie parts of like area, give or take.
    levels = (np.arange(num) + 1 + rng.uniform(-0.3, 0.3, size=num)) / (num + 1)
    places = np.quantile(along, levels)
    taken = np.zeros_like(inside)
    for place in rng.permutation(places):
        middle = np.argmin(np.abs(along - place))
        angle = settings["angle"] + rng.normal(0, _TURN)
        away = (y - y[rows[middle], 0]) * np.cos(angle) + (x - x[0, cols[middle]]) * np.sin(angle)
        bent = np.abs(away + _WAVE * radius_px * noise)
        half_px = np.maximum(width_px / 2 * (1 + 0.4 * noise), _LEAST_CUT_PX / 2)
        cut = taken | (inside & (bent < half_px))
        if np.count_nonzero(cut) <= _MOST_CUT * lesion.area_px:
            taken = cut
    return _without(lesion, taken, window)


def miss(lesion: Lesion, _: Settings, __: np.random.Generator) -> Mask:
    """Return nothing: the lesion is not seen."""
    return np.zeros_like(lesion.mask)


def _num_removed(lesion: Lesion, area_ratio: float) -> int:
    """Return how many pixels to take; at least one stays."""
    return max(min(round((1 - area_ratio) * lesion.area_px), lesion.area_px - 1), 0)


def _without(lesion: Lesion, taken: Bool[np.ndarray, "h w"], window: Window) -> Mask:
    result = lesion.mask.copy()
    result[window.slices] &= ~taken
    return result

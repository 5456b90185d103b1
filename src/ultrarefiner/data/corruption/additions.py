"""Errors that add: adhesions on a bridge, false-positive islands, a scatter of noise instead."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ultrarefiner.data.corruption.lesion import Lesion, Window, choose_lowest
from ultrarefiner.data.rough import smooth_noise
from ultrarefiner.ops.components import label_components
from ultrarefiner.ops.distance import distance_to_zero
from ultrarefiner.shapes import Mask

Settings = Mapping[str, float]

_LEAST_BRIDGE_PX = 2.0
_GAP_PX = 2  # between a lesion and its islands
_NEARBY = 4.0  # radii within which half of the islands lie
_ROOM = 2.2  # of an island's patch, in its radii: enough for more than four times its area


def build_bridge(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Add a band to another part of the mask, or from the edge to a blob beside it.

    Settings: ``length``, ``width`` and ``blob`` (radius of the blob) [radii].
    """
    if lesion.is_empty:
        return lesion.mask.copy()
    radius_px = lesion.radius_px
    half_px = max(settings["width"] * radius_px, _LEAST_BRIDGE_PX) / 2
    blob_px = settings["blob"] * radius_px
    ends = _between_parts(lesion, rng)
    if ends is None:
        ends = _outwards(lesion, settings["length"] * radius_px, blob_px, rng)
    else:
        blob_px = 0.0
    (start, end) = ends
    # A short band bends less: it would come apart.
    bent_px = 0.15 * min(radius_px, float(np.hypot(*(end - start))))
    reach = Window(
        *np.floor(np.minimum(start, end)).astype(int),
        *(np.ceil(np.maximum(start, end)).astype(int) + 1),
    )
    window = reach.grown(max(half_px, 1.5 * blob_px) + 3 * bent_px + 2, lesion.frame_hw)
    y, x = window.coordinates()
    noise = smooth_noise(window.hw, (0.4 * radius_px, 0.4 * radius_px), rng)
    along, away = _along_segment(y, x, start, end)
    fine = smooth_noise(window.hw, (0.2 * radius_px, 0.2 * radius_px), rng)
    # Fixed at both ends, so that it still connects what it should.
    bend = bent_px * noise * np.sin(np.pi * along)
    band = np.abs(away + bend) < np.maximum(half_px * (1 + 0.3 * fine), _LEAST_BRIDGE_PX / 2)
    blob = np.hypot(y - end[0], x - end[1]) < blob_px * (1 + 0.3 * fine)
    result = lesion.mask.copy()
    result[window.slices] |= (band & (along > 0) & (along < 1)) | blob
    return result


def add_islands(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Add blobs beside the lesion, together exactly as large as was drawn if there is room.

    Half of them lie within a few radii, the others anywhere; none touches the lesion. Settings:
    ``area_ratio`` (lesion and islands) and ``num``. An empty mask gets shares of 2 % of the frame.
    """
    num = int(settings["num"])
    total_px = max(round((settings["area_ratio"] - 1) * lesion.reference_px), 1)
    shares = rng.dirichlet(np.full(num, 1.5))
    radii_px = np.maximum(np.sqrt(total_px * shares / np.pi), 0.7)
    score = np.full(lesion.frame_hw, np.inf, dtype=np.float32)
    for radius_px, centre in zip(radii_px, _places(lesion, num, rng), strict=True):
        _lay_blob(score, centre, float(radius_px), rng)
    free = _beside(lesion)
    # Islands drawn onto the lesion have no room there: what is short lies anywhere beside it.
    while (short_px := total_px - np.count_nonzero(free & (score < np.inf))) > 0:
        places = np.argwhere(free & (score == np.inf))
        if not len(places):
            break
        _lay_blob(score, rng.choice(places), max(float(np.sqrt(short_px / np.pi)), 0.7), rng)
    result = lesion.mask.copy()
    result |= choose_lowest(score, total_px, free & (score < np.inf))
    return result


def scatter(lesion: Lesion, settings: Settings, rng: np.random.Generator) -> Mask:
    """Return specks of noise anywhere in the frame instead of the mask, as large as was drawn.

    Settings: ``area_ratio`` and ``grain`` (their correlation length) [radii].
    """
    num_px = max(round(settings["area_ratio"] * lesion.reference_px), 1)
    length_px = max(settings["grain"] * lesion.radius_px, 1.0)
    noise = smooth_noise(lesion.frame_hw, (length_px, length_px), rng)
    return choose_lowest(-noise, num_px)


def _between_parts(
    lesion: Lesion, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the nearest pixels of two of the mask's parts, or nothing if there is one part."""
    labels, areas = label_components(lesion.mask[lesion.box.slices])
    if len(areas) < 2:
        return None
    corner = (lesion.box.y0, lesion.box.x0)
    part = int(rng.integers(1, len(areas) + 1))
    pixels = np.argwhere(labels == part)
    others = ((labels == 0) | (labels == part)).astype(np.uint8)
    away = distance_to_zero(others)
    start = pixels[np.argmin(away[pixels[:, 0], pixels[:, 1]])]
    rest = np.argwhere(others == 0)
    end = rest[np.argmin(np.hypot(*(rest - start).T))]
    return (start + corner).astype(float), (end + corner).astype(float)


def _outwards(
    lesion: Lesion, length_px: float, blob_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a place on the edge and one beside the lesion, in the frame if there is any."""
    edge = lesion.edge_yx()
    outwards = edge - lesion.centre_yx
    outwards /= np.maximum(np.hypot(*outwards.T), 1e-6)[:, None]
    turn = rng.normal(0, 0.35, size=len(edge))
    turned = np.stack(
        [
            outwards[:, 0] * np.cos(turn) + outwards[:, 1] * np.sin(turn),
            outwards[:, 1] * np.cos(turn) - outwards[:, 0] * np.sin(turn),
        ],
        axis=1,
    )
    ends = edge + turned * length_px
    limits = np.array(lesion.frame_hw) - 1
    fits = np.flatnonzero(((ends >= blob_px) & (ends <= limits - blob_px)).all(axis=1))
    k = int(rng.choice(fits)) if len(fits) else int(rng.integers(len(edge)))
    # From a little inside, so that the band is one with the lesion.
    return edge[k] - outwards[k], np.clip(ends[k], 0, limits)


def _along_segment(
    y: Float32[np.ndarray, "h 1"],
    x: Float32[np.ndarray, "1 w"],
    start: np.ndarray,
    end: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far along a segment each pixel lies, 0 to 1, and its distance to the line [px]."""
    dy, dx = end - start
    length_px = max(float(np.hypot(dy, dx)), 1e-6)
    along = ((y - start[0]) * dy + (x - start[1]) * dx) / length_px**2
    away = ((x - start[1]) * dy - (y - start[0]) * dx) / length_px
    return along, away


def _places(lesion: Lesion, num: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``num 2`` rows and columns in the frame, every other one near the lesion."""
    frame = np.array(lesion.frame_hw)
    anywhere = rng.uniform(0, 1, size=(num, 2)) * frame
    angle = rng.uniform(0, 2 * np.pi, size=num)
    far_px = lesion.radius_px * rng.uniform(1.2, _NEARBY, size=num)
    near = lesion.centre_yx + far_px[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    is_near = (np.arange(num) % 2 == 0) & ((near >= 0) & (near < frame)).all(axis=1)
    places: np.ndarray = np.where(is_near[:, None], near, anywhere)
    return places


def _lay_blob(
    score: Float32[np.ndarray, "H W"],
    centre_yx: np.ndarray,
    radius_px: float,
    rng: np.random.Generator,
) -> None:
    """Lower the score around a centre: to below 1 inside an uneven ellipse of that size."""
    stretch = float(np.exp(rng.uniform(-0.35, 0.35)))
    turn, *phases = rng.uniform(0, 2 * np.pi, size=3)
    row, col = (int(place) for place in centre_yx)
    patch = Window(row, col, row + 1, col + 1).grown(_ROOM * radius_px, score.shape)
    y, x = patch.coordinates()
    y, x = y - np.float32(centre_yx[0]), x - np.float32(centre_yx[1])
    u = (np.cos(turn) * x + np.sin(turn) * y) * np.float32(stretch)
    v = (np.cos(turn) * y - np.sin(turn) * x) / np.float32(stretch)
    angle = np.arctan2(v, u)
    uneven = 1 + 0.2 * np.cos(2 * angle + phases[0]) + 0.12 * np.cos(3 * angle + phases[1])
    part = score[patch.slices]
    np.minimum(part, (np.hypot(u, v) / (radius_px * uneven)).astype(np.float32), out=part)


def _beside(lesion: Lesion) -> Bool[np.ndarray, "H W"]:
    """Return the pixels that are neither in the lesion nor in a gap around it."""
    free = np.ones(lesion.frame_hw, dtype=bool)
    window = lesion.box.grown(_GAP_PX, lesion.frame_hw)
    square = np.ones((2 * _GAP_PX + 1,) * 2, dtype=np.uint8)
    free[window.slices] = cv2.dilate(lesion.mask[window.slices].astype(np.uint8), square) == 0
    return free

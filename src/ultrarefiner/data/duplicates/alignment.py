"""Lay one image over another and say how alike they are, speckle by speckle.

Matched features give the map between the images (random sample consensus over scale, turn and
shift; then least squares). On it the local correlation of the two evened images is taken in
windows; the score is its median, so that neither calipers nor text nor a shadow decides.
Speckle is a fingerprint: one frame, however saved, correlates above 0.7 with itself and two
frames of neighbouring planes hardly at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from ultrarefiner.data.duplicates.fingerprint import (
    LEVEL,
    MIDDLE,
    MIRROR_SIGNS,
    Evened,
    Fingerprint,
    inner_products,
)

__all__ = ["Likeness", "compare"]

_LEAST_SIMILARITY, _LEAST_GUIDED_SIMILARITY = 0.8, 0.7
_LEAST_INLIERS = 4
_AFFINE_INLIERS = 8
_ROUNDS = 3
_REACH_PX = 5.0
_MOST_TURN_DEG = 12.0
_MOST_ZOOM, _MOST_STRETCH = 4.0, 1.35
_MARGIN_PX = 9
_BLUR_PX, _WINDOW_PX = 1.2, 25
_LEAST_DEVIATION = 0.18 * LEVEL
_LEAST_COMMON_PX = 3000

Points = Float32[np.ndarray, "N 2"]
Map = Float64[np.ndarray, "2 3"]
Levels = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Likeness:
    """How alike two images are where they overlap.

    Attributes:
        score: median of the local correlation over the common texture, in [-1, 1].
        overlap: share of the texture of the one with less of it that the other has too, in [0, 1].
    """

    score: float
    overlap: float


_UNLIKE = Likeness(0.0, 0.0)


def compare(first: Fingerprint, second: Fingerprint, *, is_mirrored: bool) -> Likeness:
    """Align two images and return how alike they are.

    Args:
        first: one image.
        second: another.
        is_mirrored: the second is to be mirrored left and right before.

    Returns:
        Likeness; zeros where no plausible map between the two is found.
    """
    mirrored = _mirrored(second) if is_mirrored else second
    transform = _register(first, mirrored)
    if transform is None:
        return _UNLIKE
    return _overlaid(first.evened, mirrored.evened, transform)


def _mirrored(fingerprint: Fingerprint) -> Fingerprint:
    xy_px = fingerprint.xy_px.copy()
    xy_px[:, 0] = fingerprint.evened.shape[1] - 1 - xy_px[:, 0]
    return Fingerprint(
        digest=fingerprint.digest,
        shape_hw=fingerprint.shape_hw,
        evened=np.ascontiguousarray(fingerprint.evened[:, ::-1]),
        xy_px=xy_px,
        descriptors=fingerprint.descriptors * MIRROR_SIGNS,
    )


def _register(first: Fingerprint, second: Fingerprint) -> Map | None:
    """Return the map from px of the first to px of the second, None if there is none."""
    if len(first.xy_px) == 0 or len(second.xy_px) == 0:
        return None
    similarity = inner_products(first.descriptors, second.descriptors)
    partner = similarity.argmax(axis=1)
    each = np.arange(len(partner))
    mutual = similarity.argmax(axis=0)[partner] == each
    chosen = mutual & (similarity[each, partner] > _LEAST_SIMILARITY)
    if np.count_nonzero(chosen) < _LEAST_INLIERS:
        return None
    source, target = first.xy_px[chosen], second.xy_px[partner[chosen]]
    # OpenCV seeds its own generator anew at every call: the same points give the same map.
    rough, inliers = cv2.estimateAffinePartial2D(
        source,
        target,
        method=cv2.RANSAC,
        ransacReprojThreshold=_REACH_PX,
        maxIters=500,
        confidence=0.99,
    )
    if rough is None or inliers.sum() < _LEAST_INLIERS or not _is_plausible(rough):
        return None
    fine = rough
    for _ in range(_ROUNDS):
        fine = _refit(fine, first.xy_px, second.xy_px, similarity)
    return fine if _is_plausible(fine) else None


def _refit(
    rough: Map, source: Points, target: Points, similarity: Float32[np.ndarray, "N M"]
) -> Map:
    """Match the features anew where the rough map puts them, and fit all of them."""
    mapped = source @ rough[:, :2].T + rough[:, 2]
    distance_px = np.linalg.norm(mapped[:, None] - target[None], axis=-1)
    near = np.where(distance_px < _REACH_PX, similarity, -1.0)
    partner = near.argmax(axis=1)
    found = near[np.arange(len(near)), partner] > _LEAST_GUIDED_SIMILARITY
    source, target = source[found], target[partner[found]]
    if len(source) < _AFFINE_INLIERS:
        return rough
    design = np.column_stack([source, np.ones(len(source))]).astype(np.float64)
    fine: Map = np.linalg.lstsq(design, target.astype(np.float64), rcond=None)[0].T
    return fine


def _is_plausible(transform: Map) -> bool:
    """Whether a map is one between two savings of an image: no turn, hardly sheared."""
    (a, b), (c, d) = transform[:, :2]
    turns_deg = np.degrees([np.arctan2(c, a), np.arctan2(-b, d)])
    stretches = np.linalg.svd(transform[:, :2], compute_uv=False)
    return bool(
        np.abs(turns_deg).max() < _MOST_TURN_DEG
        and stretches[1] > 1 / _MOST_ZOOM
        and stretches[0] < _MOST_ZOOM
        and stretches[0] < _MOST_STRETCH * stretches[1]
    )


def _overlaid(first: Evened, second: Evened, transform: Map) -> Likeness:
    """Compare on the grid of the first."""
    size = first.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(second, transform, size, flags=flags)
    inside = cv2.warpAffine(np.full_like(second, 255), transform, size, flags=flags) == 255
    kernel = np.ones((_MARGIN_PX, _MARGIN_PX), np.uint8)
    inside = cv2.erode(
        inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    x, y = _smooth(first), _smooth(laid)
    deviation_x, deviation_y = _deviation(x), _deviation(y)
    texture_x, texture_y = deviation_x > _LEAST_DEVIATION, deviation_y > _LEAST_DEVIATION
    common = (inside > 0) & texture_x & texture_y
    num_common = np.count_nonzero(common)
    if num_common < _LEAST_COMMON_PX:
        return _UNLIKE
    covariance = _window(x * y) - _window(x) * _window(y)
    correlation = covariance[common] / (deviation_x[common] * deviation_y[common])
    num_second = _num_textured(second) / abs(np.linalg.det(transform[:, :2]))
    fewer = min(np.count_nonzero(texture_x), num_second)
    return Likeness(float(np.median(correlation)), min(1.0, num_common / max(fewer, 1.0)))


def _num_textured(evened: Evened) -> int:
    textured: Bool[np.ndarray, "h w"] = _deviation(_smooth(evened)) > _LEAST_DEVIATION
    return int(np.count_nonzero(textured))


def _smooth(evened: Evened) -> Levels:
    """Leave out the finest grain, which compression and shrinking take first."""
    smooth: Levels = cv2.GaussianBlur(
        evened.astype(np.float32) - np.float32(MIDDLE), (0, 0), _BLUR_PX
    )
    return smooth


def _deviation(x: Levels) -> Levels:
    deviation: Levels = np.sqrt(np.maximum(_window(x * x) - _window(x) ** 2, 1e-3))
    return deviation


def _window(x: Levels) -> Levels:
    mean: Levels = cv2.blur(x, (_WINDOW_PX, _WINDOW_PX))
    return mean

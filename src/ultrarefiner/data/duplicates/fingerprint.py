"""What is kept of an image to find it again: a small evened-out copy and its local features.

Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 60 (2004); the patent has
expired. We change three things. Keypoints are upright, because duplicates are never turned. The
image is evened out first (local mean 0, local deviation 1, clipped), so that burnt-in text is no
stronger than speckle and tone curves do not matter. The descriptor keeps the lowest frequencies of
its square root (cosines over the 4 x 4 cells, Fourier over the 8 directions), 44 numbers of 128:
without training they separate as well as principal components do, and mirroring the image
only changes signs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from ultrarefiner.data.readers import read_image
from ultrarefiner.shapes import GreyImage

__all__ = ["LEVEL", "MIDDLE", "MIRROR_SIGNS", "Fingerprint", "inner_products", "take_fingerprint"]

LONG_SIDE_PX = 256
MIDDLE, LEVEL = 128.0, 42.0  # of an evened image: its local mean, and its local deviation
_WINDOW_PX = 12.0
_NOISE_FLOOR = 0.012
_BORDER_LEVEL = 0.04
_DARK = 0.1
_LEAST_SIDE_PX = 32
_CONTRAST, _EDGE = 0.01, 20.0
_GRID = 4
_NUM_CELLS, _NUM_DIRECTIONS = 4, 8

Evened = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprint:
    """What is kept of one image.

    Attributes:
        digest: of shape and grey levels; equal for images of equal pixels in any lossless format.
        shape_hw: rows and columns of the file.
        evened: the trimmed image, long side 256 px, local mean 128 and local deviation 42.
        xy_px: features in ``evened``, pixel i centred at i (OpenCV's frame), best spread first.
        descriptors: unit vectors, one a feature.
    """

    digest: str
    shape_hw: tuple[int, int]
    evened: Evened
    xy_px: Float32[np.ndarray, "N 2"]
    descriptors: Float32[np.ndarray, "N D"]


def take_fingerprint(path: Path, *, num_features: int) -> Fingerprint:
    """Read an image and return what is needed to find it again.

    Args:
        path: any format of :func:`ultrarefiner.data.readers.read_image`.
        num_features: at most this many features, the most salient of each part of the image.

    Returns:
        Fingerprint; an image without structure has no features.

    Raises:
        InputError: the file cannot be used; the message names it.
    """
    image = read_image(path)
    white = float(image.max())
    # 12 bits in a file of 16 are dark throughout: what 8 bits would lose is stretched before.
    stretch = 1 / white if 0 < white < _DARK else 1.0
    levels = np.rint(image * np.float32(255 * stretch)).astype(np.uint8)
    evened = _even_out(_shrink(_trim(levels)))
    xy_px, descriptors = _features(evened, num_features)
    return Fingerprint(
        digest=_digest(image),
        shape_hw=(image.shape[0], image.shape[1]),
        evened=evened,
        xy_px=xy_px,
        descriptors=descriptors,
    )


def inner_products(
    rows: Float32[np.ndarray, "N D"],
    columns: Float32[np.ndarray, "M D"],
    offset: Float32[np.ndarray, "N M"] | None = None,
) -> Float32[np.ndarray, "N M"]:
    """Return the inner product of every row with every column vector, plus an offset.

    By OpenCV, in the calling thread: NumPy's BLAS wakes threads of its own for every small product,
    which wait for each other when the machine is busy (16 ms instead of 0.02 were seen).
    """
    third, weight = (rows, 0.0) if offset is None else (offset, 1.0)
    products: Float32[np.ndarray, "N M"] = cv2.gemm(
        rows, columns, 1.0, third, weight, flags=cv2.GEMM_2_T
    )
    return products


def _digest(image: GreyImage) -> str:
    shape = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()


def _trim(levels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Cut off black borders, as far as something worth looking at is left."""
    bright = levels > _BORDER_LEVEL * 255
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.1) for axis in (1, 0))
    if len(rows) == 0 or len(columns) == 0:
        return levels
    trimmed = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return trimmed if min(trimmed.shape) >= _LEAST_SIDE_PX else levels


def _shrink(levels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
    """Scale the long side to 256 px."""
    factor = LONG_SIDE_PX / max(levels.shape)
    height, width = (max(_LEAST_SIDE_PX, round(side * factor)) for side in levels.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    small: UInt8[np.ndarray, "h w"] = cv2.resize(levels, (width, height), interpolation=method)
    return small


def _even_out(levels: UInt8[np.ndarray, "h w"]) -> Evened:
    """Return 128 + 42 (x - local mean) / local deviation; flat places come out flat."""
    x = levels.astype(np.float32) / np.float32(255)
    x -= cv2.GaussianBlur(x, (0, 0), _WINDOW_PX)
    deviation = np.sqrt(cv2.GaussianBlur(x * x, (0, 0), _WINDOW_PX) + np.float32(_NOISE_FLOOR**2))
    scaled = np.clip(np.rint(MIDDLE + LEVEL * x / deviation), 0, 255)
    evened: Evened = scaled.astype(np.uint8)
    return evened


def _features(
    evened: Evened, number: int
) -> tuple[Float32[np.ndarray, "N 2"], Float32[np.ndarray, "N D"]]:
    sift = cv2.SIFT.create(nfeatures=0, contrastThreshold=_CONTRAST, edgeThreshold=_EDGE)
    chosen = _spread(sift.detect(evened, None), evened.shape, number)
    if not chosen:
        none = np.zeros((0, 2), np.float32)
        return none, np.zeros((0, len(MIRROR_SIGNS)), np.float32)
    kept, raw = sift.compute(evened, chosen)
    xy_px = np.array([point.pt for point in kept], np.float32)
    return xy_px, _low_frequencies(raw)


def _spread(
    points: Sequence[cv2.KeyPoint], shape: tuple[int, ...], number: int
) -> list[cv2.KeyPoint]:
    """Return the strongest points of each cell of a grid, upright and each once.

    The strongest of every cell come first, then the second of every cell, and so on: the first
    part of the features is spread over the image as well as the whole.
    """
    height, width = shape
    cells: dict[tuple[int, int], list[cv2.KeyPoint]] = {}
    seen: set[tuple[float, float, float]] = set()
    for point in sorted(points, key=lambda p: (-p.response, p.pt, p.size)):
        x, y = point.pt
        if (x, y, point.size) in seen:
            continue  # SIFT lists a point once for each of its directions
        seen.add((x, y, point.size))
        point.angle = 0.0
        cells.setdefault((int(y * _GRID / height), int(x * _GRID / width)), []).append(point)
    ranked = [
        (rank, cell, point)
        for cell, found in cells.items()
        for rank, point in enumerate(found[: -(-number // _GRID**2)])
    ]
    ranked.sort(key=lambda entry: entry[:2])
    return [point for _, _, point in ranked[:number]]


def _unit_rows(basis: Float[np.ndarray, "N M"]) -> Float32[np.ndarray, "N M"]:
    """Scale each row to length 1; a row of zeros stays."""
    norm = np.linalg.norm(basis, axis=1, keepdims=True)
    unit: Float32[np.ndarray, "N M"] = (basis / np.maximum(norm, 1e-6)).astype(np.float32)
    return unit


def _cosines(num: int) -> Float32[np.ndarray, "num 4"]:
    cell = (np.arange(_NUM_CELLS) + 0.5) / _NUM_CELLS
    return _unit_rows(np.cos(np.pi * np.arange(num)[:, None] * cell))


def _waves() -> Float32[np.ndarray, "5 8"]:
    angle = 2 * np.pi * np.arange(_NUM_DIRECTIONS) / _NUM_DIRECTIONS
    pairs = [wave(order * angle) for order in (1, 2) for wave in (np.cos, np.sin)]
    return _unit_rows(np.stack([np.ones_like(angle), *pairs]))


def _projection() -> Float32[np.ndarray, "D 128"]:
    """Return the basis of low frequencies, without the first: it is the same for all."""
    across, direction = _cosines(3), _waves()
    basis = np.einsum("ai,bj,co->ijoabc", across, across, direction)
    rows: Float32[np.ndarray, "D 128"] = np.ascontiguousarray(
        basis.reshape(_NUM_CELLS**2 * _NUM_DIRECTIONS, -1)[:, 1:].T
    )
    return rows


_PROJECTION = _projection()


def _low_frequencies(raw: Float32[np.ndarray, "N 128"]) -> Float32[np.ndarray, "N D"]:
    total = np.maximum(raw.sum(axis=1, keepdims=True), 1e-6)
    return _unit_rows(inner_products(np.sqrt(raw / total), _PROJECTION))


def _mirror_signs() -> Float32[np.ndarray, " D"]:
    """Mirroring left and right: odd cosines across turn, and directions a become pi - a.

    cos(m a) gains (-1)^m and sin(m a) gains -(-1)^m.
    """
    across = np.array([1, -1, 1])
    direction = np.array([1, -1, 1, 1, -1])
    signs = np.ones(3)[:, None, None] * across[:, None] * direction
    flat: Float32[np.ndarray, " D"] = signs.reshape(-1)[1:].astype(np.float32)
    return flat


MIRROR_SIGNS = _mirror_signs()

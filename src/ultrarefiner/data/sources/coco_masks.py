"""Outlines and run lengths of COCO annotations, as masks.

A polygon is in continuous coordinates, the picture spans [0, W] x [0, H], and a pixel belongs to it
if its centre (i + 0.5) is inside by the even-odd rule: COCO's own convention, and ours. Run lengths
go down the columns and start with background. Compressed ones are COCO's strings: base 32 digits
from the lowest, in characters from ``0``, with one bit for "more follow", the last digit signed,
and from the fourth number on the difference to the one two places before.

Reference: Lin et al., "Microsoft COCO", ECCV 2014; the string format is that of ``rleToString`` in
the COCO API (maskApi.c, BSD). This is a new implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from ultrarefiner.errors import InputError
from ultrarefiner.shapes import Mask

_FIRST_CHARACTER = 48
_MORE, _SIGN, _DIGIT, _BITS_PER_DIGIT = 32, 16, 31, 5
_MAX_DIGITS = 7
_MIN_POINTS = 3
_MAX_PX = 1e8


def draw_segmentation(segmentation: object, height_px: int, width_px: int) -> Mask:
    """Draw the ``segmentation`` of one annotation.

    Args:
        segmentation: list of polygons ``[x1, y1, x2, y2, ...]`` in px, of which the union is drawn,
            clipped to the picture; or ``{"size": [H, W], "counts": [...] or "..."}``.
        height_px: rows of the picture.
        width_px: columns of the picture.

    Returns:
        Mask (H, W). A polygon that contains no pixel centre gives an empty one.

    Raises:
        InputError: another kind of value, run lengths of another size, or a damaged string.

    Example:
        >>> draw_segmentation([[1, 0, 3, 0, 3, 2, 1, 2]], 3, 4).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    if isinstance(segmentation, dict):
        return _draw_runs(segmentation, height_px, width_px)
    if not isinstance(segmentation, list) or not segmentation:
        raise _unknown("no outline" if not segmentation else "something else")
    mask = np.zeros((height_px, width_px), dtype=np.bool_)
    for polygon in segmentation:
        draw_polygon(_points(polygon), mask)
    return mask


def draw_polygon(points_xy: Float64[np.ndarray, "N 2"], mask: Mask) -> None:
    """Add a closed polygon to a mask, clipped to it.

    Each edge is followed down the rows; where it passes the height of a row's centres, the pixels
    from there to the right change sides. What is left of the picture changes all of the row, what
    is right of it nothing, which is the clipping.

    Args:
        points_xy: corners in px; the last is joined with the first.
        mask: (H, W), changed in place.
    """
    height, width = mask.shape
    first = max(int(np.floor(points_xy[:, 1].min())), 0)
    last = min(int(np.ceil(points_xy[:, 1].max())), height)
    if first >= last:
        return
    changes = np.zeros((last - first, width + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in pairwise([*points_xy, points_xy[0]]):
        (x0, y0), (x1, y1) = sorted([(x0, y0), (x1, y1)], key=lambda point: point[1])
        top = max(int(np.ceil(y0 - 0.5)), first)
        bottom = min(int(np.ceil(y1 - 0.5)), last)
        rows = np.arange(top, bottom)
        crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else rows
        columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
        changes[rows - first, columns] += 1
    inside = np.cumsum(changes[:, :width], axis=1) % 2 == 1
    mask[first:last] |= inside


def decode_counts(text: str) -> list[int]:
    """Return the run lengths of a compressed string.

    Raises:
        InputError: a character outside the format, a number without end, or a negative length.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 2 * _MORE or shift >= _MAX_DIGITS * _BITS_PER_DIGIT:
            raise _unknown("a compressed string that is damaged")
        value |= (code & _DIGIT) << shift
        shift += _BITS_PER_DIGIT
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift or min(counts, default=0) < 0:
        raise _unknown("a compressed string that is damaged")
    return counts


def _draw_runs(runs: dict[str, object], height_px: int, width_px: int) -> Mask:
    size, counts = runs.get("size"), runs.get("counts")
    if size != [height_px, width_px]:
        raise _unknown(f"run lengths of another size than {height_px} rows, {width_px} columns")
    lengths = decode_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(
        isinstance(length, int) and length >= 0 for length in lengths
    ):
        raise _unknown("run lengths that are no whole numbers")
    if sum(lengths) != height_px * width_px:
        raise _unknown(f"run lengths that add up to {sum(lengths)}, not {height_px * width_px}")
    values = np.arange(len(lengths)) % 2 == 1
    mask: Mask = np.repeat(values, lengths).reshape(width_px, height_px).T
    return np.ascontiguousarray(mask)


def _points(polygon: object) -> Float64[np.ndarray, "N 2"]:
    if not isinstance(polygon, Sequence) or isinstance(polygon, str):
        raise _unknown("a polygon that is no list of numbers")
    try:
        values = np.array(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.array([np.nan])
    if values.ndim != 1 or values.size % 2 or not (np.abs(values) <= _MAX_PX).all():
        raise _unknown("a polygon that is no list of x, y, x, y, ...")
    if values.size < 2 * _MIN_POINTS:
        raise _unknown(f"a polygon of {values.size // 2} points")
    return values.reshape(-1, 2)


def _unknown(found: str) -> InputError:
    return InputError(
        "an annotation cannot be drawn",
        expected="polygons [[x1, y1, x2, y2, ...], ...] or run lengths {'size', 'counts'}",
        found=found,
    )

"""What the numbers of a mask file mean: a binary mask, a probability, or something to refuse.

Masks come from everywhere and seldom say how they are coded. The rules, first match wins:

===================================================  ==========================================
values                                               read as
===================================================  ==========================================
palette of greys                                     those greys, by the rules below
palette of colours                                   its indices, by the rules below (noted)
red, green, blue, not all equal                      refused: a picture or an overlay
``label`` is given                                   binary: values equal to it
JPEG, hard edges under the compression noise         binary: at least half of 255 (noted)
JPEG, soft edges                                     probability x / 255 (noted)
JPEG, nothing above 31 but not black                 refused: labels do not survive JPEG
0 and at most one other value                        binary (noted unless 1, 255 or 65535)
only 1, only 255 or only 65535                       binary, the whole image
whole numbers below 32, at most 20 of them           refused: several labels
16 bit, nothing above 255                            refused: 8-bit levels on an unknown scale
8 or 16 bit, anything else                           probability x / 255 or x / 65535 (noted)
float in [0, 1]                                      probability
anything else, negative or above 1                   refused: logits or an unknown scale
===================================================  ==========================================

Floats that are all whole numbers above 1 (label maps that some tool saved as float) count as
whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from ultrarefiner.data.formats import Raster
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.shapes import ProbMap

_MAX_LABEL = 31
_MAX_NUM_LABELS = 20
_FULL_RANGE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_USUAL_ONES = (1, 255, 65535)
_JPEG_CHANNEL_SPREAD = 16
_FLOAT_SLACK = 1e-4
_MAX_WHOLE = np.float64(2**31)

Levels = Shaped[np.ndarray, "H W"]


@dataclass(frozen=True)
class CoarseMask:
    """A coarse segmentation as it was given, on its own grid.

    Attributes:
        values: probability of lesion in [0, 1]; only 0 and 1 if ``is_hard``.
        is_hard: True if the file held a binary mask, in whatever coding.
        notes: how the values were understood, where that is not plain.
    """

    values: ProbMap
    is_hard: bool
    notes: tuple[str, ...] = ()


def interpret_mask(path: Path, raster: Raster, *, label: int | None = None) -> CoarseMask:
    """Return the mask that a decoded file holds, by the rules of this module.

    Args:
        path: the file, for messages.
        raster: its decoded content.
        label: take the pixels of this value (at least 1) as the lesion.

    Returns:
        Mask on the grid of the file. A label that does not occur gives an empty mask and a note.

    Raises:
        InputError: the values have no safe meaning; the message says which and what to do.
        ConfigError: ``label`` is below 1.
    """
    if label is not None and label < 1:
        raise ConfigError(f"label {label} is no lesion", expected="1 or more: 0 is background")
    levels, notes = _single_channel(path, raster)
    levels = _whole_numbers(levels)
    if label is not None:
        mask = _from_label(path, raster, levels, label)
    elif levels.dtype.kind == "f":
        mask = _from_float(path, levels)
    elif raster.is_lossy:
        mask = _from_jpeg(path, levels)
    else:
        mask = _from_integers(path, levels)
    return CoarseMask(mask.values, mask.is_hard, raster.notes + notes + mask.notes)


def _single_channel(path: Path, raster: Raster) -> tuple[Levels, tuple[str, ...]]:
    """Reduce palette and colour to one channel, or refuse."""
    values = raster.values
    if raster.palette is not None:
        if _channel_spread(raster.palette[np.unique(values)]) == 0:
            return raster.palette[values][..., 0], ()
        return values, ("the palette's colours are ignored: its indices are the labels",)
    if values.ndim == 2:
        return values, ()
    spread = _channel_spread(values)
    if spread > (_JPEG_CHANNEL_SPREAD if raster.is_lossy else 0):
        raise InputError(
            f"{path} is no mask",
            expected="one channel, or red = green = blue",
            found=f"colours, up to {spread} levels between channels",
            fix="If it is an image or an overlay, give the mask itself as a grey PNG.",
        )
    return values[..., 1], ()


def _channel_spread(colours: UInt8[np.ndarray, "*extent 3"]) -> int:
    return int((colours.max(axis=-1) - colours.min(axis=-1)).max())


def _whole_numbers(levels: Levels) -> Levels:
    """Return floats that are all whole numbers as integers, and bools as 0 and 1."""
    if levels.dtype.kind == "b":
        return levels.astype(np.uint8)
    if levels.dtype.kind != "f" or np.abs(levels).max() >= _MAX_WHOLE:
        return levels
    return levels.astype(np.int64) if (levels % 1 == 0).all() else levels


def _hard(lesion: Levels, *notes: str) -> CoarseMask:
    return CoarseMask(lesion.astype(np.float32), True, notes)


def _from_label(path: Path, raster: Raster, levels: Levels, label: int) -> CoarseMask:
    if levels.dtype.kind == "f" or raster.is_lossy:
        raise InputError(
            f"cannot take label {label} from {path}",
            expected="whole numbers in a lossless file",
            found="a JPEG" if raster.is_lossy else "probabilities",
            fix="Leave out the label, or give a label map as PNG or NIfTI.",
        )
    lesion = levels == label
    if lesion.any():
        return _hard(lesion)
    return _hard(lesion, f"label {label} does not occur: {_listed(np.unique(levels))}")


def _from_float(path: Path, levels: Levels) -> CoarseMask:
    if levels.min() < -_FLOAT_SLACK or levels.max() > 1 + _FLOAT_SLACK:
        raise _no_probability(path, levels)
    return CoarseMask(np.clip(levels, 0, 1).astype(np.float32), False)


def _from_jpeg(path: Path, levels: Levels) -> CoarseMask:
    """Tell a hard mask from a soft one by how much of its outline is half-way grey."""
    peak = int(levels.max())
    if 0 < peak <= _MAX_LABEL:
        raise InputError(
            f"cannot use {path}",
            expected="a mask of 0 and 255",
            found=f"a JPEG with nothing above {peak}",
            fix="Labels do not survive JPEG: save the mask as PNG.",
        )
    lesion = levels >= 128
    outline = lesion & (cv2.erode(lesion.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    num_between = np.count_nonzero((levels > 64) & (levels < 192))
    if peak == 0 or (lesion.any() and 2 * num_between <= np.count_nonzero(outline)):
        return _hard(lesion, "JPEG mask cut at half of 255: its edge is not exact")
    return _scaled(levels, 255, "JPEG")


def _from_integers(path: Path, levels: Levels) -> CoarseMask:
    distinct = np.unique(levels)
    low, high = int(distinct[0]), int(distinct[-1])
    if low == 0 and len(distinct) <= 2:
        usual = high == 0 or high in _USUAL_ONES
        return _hard(levels > 0, *([] if usual else [f"value {high} is taken as the lesion"]))
    if len(distinct) == 1 and high in _USUAL_ONES:
        return _hard(levels > 0)
    if low >= 0 and high <= _MAX_LABEL and len(distinct) <= _MAX_NUM_LABELS:
        raise InputError(
            f"{path} is a map of several labels",
            expected="one binary mask per lesion class",
            found=_listed(distinct),
            fix="Choose the lesion's label with --label N, or split the map.",
        )
    full = _FULL_RANGE.get(levels.dtype)
    if full is None or (full > 255 >= high):
        raise _no_probability(path, levels)
    return _scaled(levels, full, f"{8 * levels.dtype.itemsize} bit")


def _scaled(levels: Levels, full: int, kind: str) -> CoarseMask:
    values = levels.astype(np.float32) / np.float32(full)
    return CoarseMask(values, False, (f"{kind} grey levels are read as probability x / {full}",))


def _no_probability(path: Path, levels: Levels) -> InputError:
    return InputError(
        f"{path} is neither a mask nor a probability",
        expected="two values, 8 or 16 bit grey levels, or floats in [0, 1]",
        found=f"{levels.dtype} values from {levels.min():.6g} to {levels.max():.6g}",
        fix="Apply a sigmoid to logits; divide other scales by their maximum.",
    )


def _listed(distinct: Shaped[np.ndarray, " N"]) -> str:
    shown = ", ".join(str(value) for value in distinct[:_MAX_NUM_LABELS])
    return f"labels {shown}" + (", ..." if len(distinct) > _MAX_NUM_LABELS else "")

"""BUSI: breast ultrasound images of 600 women, ``Dataset_BUSI_with_GT``.

Al-Dhabyani, Gomaa, Khaled, Fahmy, "Dataset of breast ultrasound images", Data in Brief 28 (2020).
Licence: CC0 in its public copies; cite the article.

780 images in ``benign``, ``malignant`` and ``normal``. Some have several masks, one per lesion:
their union is the truth. The masks of ``normal`` are black. The set names no patients although
many have several images, and it holds many duplicates, some of them with other labels: audit it
before splitting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from ultrarefiner.data.formats import decode
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.data.sources.source import (
    SOURCES,
    Draw,
    Found,
    Remark,
    list_images,
    wrong_layout,
)
from ultrarefiner.errors import InputError
from ultrarefiner.shapes import Mask

_LAYOUT = "folders benign, malignant and normal with 'benign (1).png', 'benign (1)_mask.png', ..."
_FOLDER = "Dataset_BUSI_with_GT"
_CLASSES = ("benign", "malignant", "normal")
_WITHOUT_LESION = "normal"
_MASK = re.compile(r"^(?P<case>.+)_mask(?:_\d+)?$")
_AUDIT = "it holds duplicates, some with two labels: run 'ultrarefiner data audit' next"


@SOURCES.register("busi")
def read_busi(src: Path) -> Found:
    """Read the original layout; parts of the set are allowed.

    Args:
        src: folder that holds ``benign``, ``malignant`` or ``normal``, or the one above it.

    Returns:
        One record per image with its class as label and no patient. Several masks are merged; a
        mask that is neither binary nor white on black is cut at half of its range; an image of
        class ``normal`` without a mask gets an empty one.

    Raises:
        InputError: no such folder, or none of the three classes in it.
    """
    root = src / _FOLDER if (src / _FOLDER).is_dir() else src
    folders = [root / name for name in _CLASSES if (root / name).is_dir()]
    if not folders:
        raise wrong_layout(src, _LAYOUT)
    records: list[Record] = []
    drawings: dict[Path, Draw] = {}
    skipped: list[Remark] = []
    notes: list[Remark] = [("BUSI", _AUDIT)]
    for folder in folders:
        images, masks, lost = _cases(folder)
        notes += [(str(path), "a mask without its image") for path in lost]
        for stem, image in images.items():
            own = masks[stem]
            if not own and folder.name != _WITHOUT_LESION:
                skipped.append((str(image), "it has no mask"))
                continue
            mask = own[0] if len(own) == 1 and _is_binary(own[0]) else None
            if mask is None:
                drawings[image] = partial(_union, image, tuple(own))
            records.append(Record(image=image, mask=mask, label=folder.name, dataset="BUSI"))
    return Found(
        records=tuple(records), drawings=drawings, notes=tuple(notes), skipped=tuple(skipped)
    )


def _cases(folder: Path) -> tuple[dict[str, Path], defaultdict[str, list[Path]], list[Path]]:
    """Return the images and the masks of each by the image's stem, and masks without image."""
    files = list_images(folder, _LAYOUT)
    images = {path.stem: path for path in files if not _MASK.match(path.stem)}
    masks: defaultdict[str, list[Path]] = defaultdict(list)
    lost: list[Path] = []
    for path in files:
        if found := _MASK.match(path.stem):
            (masks[found["case"]] if found["case"] in images else lost).append(path)
    return images, masks, lost


def _is_binary(path: Path) -> bool:
    try:
        return read_coarse(path).is_hard
    except InputError:
        return False


def _union(image: Path, masks: tuple[Path, ...]) -> Mask:
    """Return the pixels that are white in any of the masks; empty without masks.

    Raises:
        InputError: a mask cannot be read, or is not of the image's size.
    """
    height, width = read_image(image).shape
    union = np.zeros((height, width), dtype=np.bool_)
    for path in masks:
        white = _white(path)
        if white.shape != (height, width):
            raise InputError(
                f"cannot merge {path}",
                expected=f"the size of its image, {width}x{height}",
                found="x".join(str(side) for side in reversed(white.shape)),
            )
        union |= white
    return union


def _white(path: Path) -> Mask:
    raster = decode(path)
    values = raster.values if raster.palette is None else raster.palette[raster.values]
    brightest = values.max(axis=2) if values.ndim == 3 else values
    white: Mask = brightest > (0 if brightest.max() <= 1 else 127)
    return white

"""What is wrong with the mask of one image, before any network meets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultrarefiner.data.coding import interpret_mask
from ultrarefiner.data.formats import Raster, decode
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError
from ultrarefiner.shapes import Mask

__all__ = ["Fault", "FaultKind", "check_mask", "masks_iou", "read_hard_mask", "unreadable_file"]

FaultKind = Literal[
    "unreadable",
    "missing_masks",
    "size_mismatch",
    "empty_masks",
    "full_masks",
    "non_binary_masks",
]
_NUM_VALUES = 32


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with one row of a manifest.

    Attributes:
        kind: key of ``audit.json`` that lists it.
        files: the files concerned by their role, ``image``, ``mask`` or ``file``.
        details: what was found, as JSON has it.
    """

    kind: FaultKind
    files: Mapping[str, Path]
    details: Mapping[str, Any] = field(default_factory=dict)


def check_mask(record: Record, *, image_hw: tuple[int, int] | None) -> tuple[Fault, ...]:
    """Return what is wrong with the mask of a record.

    Missing; unreadable; of another size than the image; empty; full; or not binary: a map of
    several labels, a probability, a picture. JPEG noise about two levels is binary, as
    :mod:`ultrarefiner.data.coding` says. An empty mask is right for an image without a lesion; it
    is listed with its label.

    Args:
        record: row of a manifest.
        image_hw: rows and columns of its image, None if that cannot be read.
    """
    files = {"image": record.image} | ({"mask": record.mask} if record.mask else {})
    if record.mask is None or _is_absent(record.mask):
        return (Fault(kind="missing_masks", files=files),)
    try:
        raster = decode(record.mask)
    except InputError as error:
        return (unreadable_file(record.mask, error),)
    return tuple(_faults(record, record.mask, raster, image_hw))


def unreadable_file(path: Path, error: InputError) -> Fault:
    """Return the fault of a file that its reader refused; the message does not repeat the path."""
    parts = [
        f"{word} {text}"
        for word, text in (("expected", error.expected), ("found", error.found))
        if text
    ]
    message = ", ".join(parts) or str(error.what).replace(str(path), path.name)
    return Fault(kind="unreadable", files={"file": path}, details={"message": message})


def read_hard_mask(path: Path) -> Mask | None:
    """Return a mask as its lesion pixels, None where it cannot be read as one."""
    try:
        values = interpret_mask(path, decode(path)).values
    except InputError:
        return None
    lesion: Mask = values >= 0.5
    return lesion


def masks_iou(one: Mask, other: Mask) -> float:
    """Return intersection over union, 1 if both are empty, 0 if the sizes differ."""
    if one.shape != other.shape:
        return 0.0
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _is_absent(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # too long a name, no permission: the reader says which
        return False


def _faults(
    record: Record, path: Path, raster: Raster, image_hw: tuple[int, int] | None
) -> Iterator[Fault]:
    files = {"image": record.image, "mask": path}
    height, width = raster.values.shape[:2]
    if image_hw is not None and (height, width) != image_hw:
        sizes = {"image_hw_px": list(image_hw), "mask_hw_px": [height, width]}
        yield Fault(kind="size_mismatch", files=files, details=sizes)
    try:
        mask = interpret_mask(path, raster)
    except InputError as error:
        message = f"found {error.found}" if error.found else "no mask"
        yield Fault(
            kind="non_binary_masks",
            files=files,
            details={"values": _values(raster), "message": message},
        )
        return
    if not mask.is_hard:
        details = {"values": _values(raster), "message": "; ".join(mask.notes) or "a probability"}
        yield Fault(kind="non_binary_masks", files=files, details=details)
    lesion = mask.values >= 0.5
    if not lesion.any():
        yield Fault(kind="empty_masks", files=files, details={"label": record.label})
    elif lesion.all():
        yield Fault(kind="full_masks", files=files, details={"label": record.label})


def _values(raster: Raster) -> list[float]:
    """Return the first 32 distinct values, whole numbers as such."""
    distinct = np.unique(raster.values)[:_NUM_VALUES].tolist()
    return [int(value) if float(value).is_integer() else float(value) for value in distinct]

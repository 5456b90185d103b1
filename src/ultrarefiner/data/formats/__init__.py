"""File formats, one module each. Add one: write its decoder, enter it, import it here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ultrarefiner.data.formats import arrays, dicom, nifti, pictures
from ultrarefiner.data.formats.dicom_regions import DicomRegion, dicom_regions, dicom_spacing
from ultrarefiner.data.formats.nifti import nifti_spacing
from ultrarefiner.data.formats.raster import (
    DECODERS,
    MAX_BYTES,
    MAX_PIXELS,
    MIN_SIDE_PX,
    Raster,
    check_file,
    split_name,
)
from ultrarefiner.errors import InputError

__all__ = [
    "DECODERS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "DicomRegion",
    "Raster",
    "arrays",
    "decode",
    "dicom",
    "dicom_regions",
    "dicom_spacing",
    "nifti",
    "nifti_spacing",
    "pictures",
    "split_name",
]


def decode(path: Path) -> Raster:
    """Decode any supported file, within the bounds on bytes and pixels.

    Raises:
        InputError: missing, of an unknown format, damaged, too large, too small, or not finite.
    """
    _, extension = split_name(path)
    if extension not in DECODERS:
        raise InputError(
            f"cannot read {path}",
            expected="a file ending in " + ", ".join(DECODERS),
            found=extension or "no ending",
            fix="Convert it to PNG, or to .npy for probabilities.",
        )
    check_file(path)
    raster = DECODERS[extension](path)
    _check_finite(path, raster)
    return raster


def _check_finite(path: Path, raster: Raster) -> None:
    if raster.values.dtype.kind != "f":
        return
    is_fine = np.abs(raster.values) <= np.float64(np.finfo(np.float32).max)
    if not is_fine.all():
        raise InputError(
            f"cannot use {path}",
            expected="finite 32-bit values",
            found=f"{np.count_nonzero(~is_fine)} pixels that are NaN, infinite or beyond",
            fix="Mend whatever wrote them: no value could stand for them here.",
        )

"""Read an ultrasound image, a coarse mask or a pixel spacing from a file of any known format."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from ultrarefiner.data.coding import CoarseMask, interpret_mask
from ultrarefiner.data.formats import decode, dicom_spacing, nifti_spacing, split_name
from ultrarefiner.shapes import GreyImage

__all__ = ["CoarseMask", "read_coarse", "read_image", "read_spacing"]

_LOG = logging.getLogger(__name__)

# The white of images whose dtype does not say it (NIfTI, floats), smallest that fits.
_WHITES = (1.0, 255.0, 65535.0)

_SPACINGS = {
    ".nii": nifti_spacing,
    ".nii.gz": nifti_spacing,
    ".dcm": dicom_spacing,
    ".dicom": dicom_spacing,
}


def read_image(path: Path) -> GreyImage:
    """Read an image as grey levels.

    Colour becomes ITU-R 601 luma. 8 and 16 bit are divided by 255 and 65535, so that a 12-bit image
    in 16 bits stays dark: the model's own min-max comes later. Floats and wide integers are divided
    by the first of 1, 255, 65535 that holds them, and stretched from minimum to maximum otherwise.

    Args:
        path: PNG, JPEG, BMP, TIFF, ``.npy``, single-slice NIfTI or single-frame DICOM.

    Returns:
        Grey levels in [0, 1] in the upright native frame.

    Raises:
        InputError: the file cannot be used; the message names it and says what to do.
    """
    raster = decode(path)
    for note in raster.notes:
        _LOG.warning("%s: %s", path, note)
    values = raster.values if raster.palette is None else raster.palette[raster.values]
    grey = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY) if values.ndim == 3 else values
    return _unit_range(grey)


def read_coarse(path: Path, *, label: int | None = None) -> CoarseMask:
    """Read a coarse mask: binary in any coding, or a probability.

    Args:
        path: PNG, JPEG, BMP, TIFF, ``.npy``, single-slice NIfTI or single-frame DICOM.
        label: take the pixels of this value as the lesion; needed for label maps.

    Returns:
        Mask on its own grid, which need not be the image's, with notes on how it was understood.
        The rules stand in :mod:`ultrarefiner.data.coding`. An empty mask is a hard mask of zeros.

    Raises:
        InputError: the file cannot be used; the message names it and says what to do.
    """
    return interpret_mask(path, decode(path), label=label)


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Return the pixel spacing (dy, dx) in mm, None where the format or the file has none.

    Only NIfTI and DICOM are asked: the resolution in PNG, JPEG and TIFF is that of a printed page.

    Raises:
        InputError: the header is damaged, or the file holds more than one picture.
    """
    _, extension = split_name(path)
    ask = _SPACINGS.get(extension)
    return ask(path) if ask else None


def _unit_range(grey: Shaped[np.ndarray, "H W"]) -> GreyImage:
    if grey.dtype in (np.uint8, np.uint16):
        low, high = 0.0, float(np.iinfo(grey.dtype).max)
    else:
        low, high = float(grey.min()), float(grey.max())
    unit: Float[np.ndarray, "H W"]
    if low >= 0 and high <= _WHITES[-1]:
        unit = grey / np.float32(min(white for white in _WHITES if high <= white))
    else:
        unit = (grey - np.float64(low)) / max(high - low, float(np.finfo(np.float32).tiny))
    return unit.astype(np.float32)

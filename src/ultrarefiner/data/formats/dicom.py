"""Single-frame DICOM images, as ultrasound machines and archives write them.

**Grey levels** are those that a viewer shows: the modality transform, then the first window or
look-up table of the file, MONOCHROME1 turned so that echo is bright. Where the file has neither,
the full range of its *stored* bits is spread, so that 12 bits in 16 are not dark. Palettes and
YCbCr become red, green, blue; planar and interlaced colour are the same.

**Orientation.** DICOM stores pictures upright, the first pixel at the top left of the screen. The
elements on orientation (Patient Orientation, and in three dimensions Image Orientation) say which
way of the patient is right and down; no viewer turns the picture for them, and neither do we: a
mask drawn on the screen agrees with the array pixel by pixel. Regions are not cropped, for the
same reason: see :mod:`ultrarefiner.data.formats.dicom_regions`.

Overlays, presentation states and segmentation objects are not read, and files without an ending
are not found: rename them to ``.dcm``.

Reference: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 and C.11.2 (transforms, windows).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Shaped, UInt8, UInt16

from ultrarefiner.data.formats.dicom_file import is_lossy, read_picture, reading_dicom
from ultrarefiner.data.formats.raster import DECODERS, Raster
from ultrarefiner.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"

Stored = Shaped[np.ndarray, "H W"]
Unit = Float32[np.ndarray, "H W"]


@DECODERS.register(".dcm")
@DECODERS.register(".dicom")
def decode_dicom(path: Path) -> Raster:
    """Decode a DICOM image to grey levels (8 or 16 bit, full range) or red, green, blue (8 bit).

    8 stored bits without a window keep their values; everything else that is grey becomes 16 bit.

    Raises:
        InputError: pydicom is missing, several frames, a transfer syntax or colour model that is
            not read, damaged, or too large. The message quotes nothing but shape and syntax.
    """
    with reading_dicom(path):
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array

        picture = read_picture(path)
        photometric = str(picture.PhotometricInterpretation)
        if photometric not in (*_GREY, *_COLOUR, _PALETTE):
            raise InputError(
                f"cannot use {path}",
                expected="a grey, palette, RGB or YCbCr image",
                found="another colour model",
                fix="Export it as a grey or RGB image.",
            )
        stored = pixel_array(picture)  # YCbCr comes as red, green, blue
        if photometric in _GREY:
            values = _grey_levels(picture, stored)
        elif photometric == _PALETTE:
            values = _eight_bit(apply_color_lut(stored, picture))
        else:
            values = _eight_bit(stored, num_bits=int(picture.BitsStored))
        # Masks are cut at half of 255 in lossy files; levels of 16 bits are left to be soft.
        return Raster(values, is_lossy=values.dtype == np.uint8 and is_lossy(picture))


def _eight_bit(
    colours: Shaped[np.ndarray, "H W 3"], *, num_bits: int = 16
) -> UInt8[np.ndarray, "H W 3"]:
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    return (colours >> max(num_bits - 8, 0)).astype(np.uint8)


def _grey_levels(
    picture: Dataset, stored: Stored
) -> UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]:
    unit, is_windowed = _shown(picture, stored)
    if not np.isfinite(unit).all():
        raise ValueError("a rescaling that is not finite")
    if picture.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    full = np.uint8(255) if int(picture.BitsStored) <= 8 and not is_windowed else np.uint16(65535)
    levels: UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]
    levels = np.rint(unit * np.float32(full)).astype(full.dtype)
    return levels


def _shown(picture: Dataset, stored: Stored) -> tuple[Unit, bool]:
    """Return the levels in [0, 1] that a viewer shows, and whether a window was applied."""
    values, low, high = _modality(picture, stored)
    if picture.get("VOILUTSequence"):
        shown, full = _looked_up(picture, "VOILUTSequence", values)
        shown = shown / np.float32(full)
    elif (window := _window(picture)) is not None:
        shown = _windowed(values, *window)
    else:
        return ((values - np.float32(low)) / np.float32(high - low)).astype(np.float32), False
    return np.clip(shown, 0, 1).astype(np.float32), True


def _modality(picture: Dataset, stored: Stored) -> tuple[Unit, float, float]:
    """Apply the modality table or line; return the values with the least and greatest possible."""
    if picture.get("ModalityLUTSequence"):
        values, full = _looked_up(picture, "ModalityLUTSequence", stored)
        return values, 0.0, full
    num_levels, is_signed = 2 ** int(picture.BitsStored), int(picture.PixelRepresentation) == 1
    first = -num_levels // 2 if is_signed else 0
    slope = float(picture.get("RescaleSlope") or 1)
    intercept = float(picture.get("RescaleIntercept") or 0)
    ends = (first * slope + intercept, (first + num_levels - 1) * slope + intercept)
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return values, min(ends), max(ends)


def _looked_up(picture: Dataset, name: str, values: Stored) -> tuple[Unit, float]:
    """Apply the first table of a sequence; return its output and the greatest possible one."""
    item = getattr(picture, name)[0]
    num_entries, first, num_bits = (int(value) for value in item.LUTDescriptor)
    num_entries = num_entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if picture.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, dtype="u1" if len(data) < 2 * num_entries else f"{order}u2")
    table = np.asarray(data, dtype=np.float32)[:num_entries]
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    return table[places], float(max(2**num_bits - 1, table.max(), 1))


def _window(picture: Dataset) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window; None if there is no usable one."""
    centres, widths = picture.get("WindowCenter"), picture.get("WindowWidth")
    if centres is None or widths is None:
        return None
    centre, width = (float(np.atleast_1d(value)[0]) for value in (centres, widths))
    function = str(picture.get("VOILUTFunction") or "LINEAR").upper()
    is_wide_enough = width >= 1 if function == "LINEAR" else width > 0
    is_usable = bool(np.isfinite([centre, width]).all()) and is_wide_enough
    return (centre, width, function) if is_usable else None


def _windowed(values: Unit, centre: float, width: float, function: str) -> Unit:
    """Apply a window of PS3.3 C.11.2.1.2 and C.11.2.1.3, with 0 and 1 as the output's ends."""
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -60, 60)
        return np.asarray(1 / (1 + np.exp(exponent)), dtype=np.float32)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values > np.float32(centre)).astype(np.float32)
    scaled: Unit = (values - np.float32(centre)) / np.float32(width) + np.float32(0.5)
    return scaled

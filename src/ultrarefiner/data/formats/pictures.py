"""PNG, JPEG, BMP and TIFF, decoded by Pillow. The content decides the format, not the name."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image, ImageOps, UnidentifiedImageError

from ultrarefiner.data.formats.raster import (
    DECODERS,
    Raster,
    check_extent,
    too_large,
    unreadable,
)
from ultrarefiner.errors import InputError

# Nothing else is tried: Pillow also opens formats that start other programs (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")

# What Pillow's decoders raise on damaged files, found by cutting and flipping bytes.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, OverflowError)


@DECODERS.register(".png")
@DECODERS.register(".jpg")
@DECODERS.register(".jpeg")
@DECODERS.register(".bmp")
@DECODERS.register(".tif")
@DECODERS.register(".tiff")
def decode_picture(path: Path) -> Raster:
    """Decode a still picture, turned upright by its EXIF orientation.

    Grey pictures keep their depth (1, 8, 16, 32 bit or float). Colour is 8 bit per channel.

    Raises:
        InputError: not one of the formats, damaged, too large, or of several frames.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_extent is stricter
        try:
            raster = _decode(path)
        except InputError:
            raise
        except Image.DecompressionBombError as cause:
            raise too_large(path, "a decompression bomb or a much larger image") from cause
        except UnidentifiedImageError as cause:
            content = ValueError("other or damaged content")
            raise unreadable(path, "a PNG, JPEG, BMP or TIFF image", content) from cause
        except _DAMAGE as cause:
            raise unreadable(path, "a complete, undamaged image", cause) from cause
    notes = tuple(" ".join(str(warning.message).split()) for warning in caught)
    return Raster(raster.values, raster.palette, raster.is_lossy, raster.notes + notes)


def _decode(path: Path) -> Raster:
    # A stream, not a path: given a path Pillow maps the file, and a cut file kills the process.
    with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
        check_extent(path, (image.height, image.width))
        notes = _check_frames(path, image)
        is_lossy = image.format in {"JPEG", "MPO"} or image.info.get("compression") == "jpeg"
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "P":
            return Raster(np.asarray(image), _palette(image), is_lossy, notes)
        return Raster(_values(image), None, is_lossy, notes)


def _check_frames(path: Path, image: Image.Image) -> tuple[str, ...]:
    """Refuse films and stacks; a phone's MPO is a photograph followed by its previews."""
    num_frames = getattr(image, "n_frames", 1)
    if num_frames == 1:
        return ()
    if image.format == "MPO":
        return (f"the first of {num_frames} pictures in the file is read",)
    raise InputError(
        f"cannot use {path}",
        expected="one frame",
        found=f"{num_frames} frames",
        fix="Save the frames that you need as single images.",
    )


def _palette(image: Image.Image) -> UInt8[np.ndarray, "256 3"]:
    image.apply_transparency()
    table = np.zeros((256, 4), dtype=np.uint8)
    colours = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
    table[: len(colours)] = colours
    return _over_black(table)


def _values(image: Image.Image) -> Shaped[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]:
    if image.mode in {"1", "F"}:
        return np.asarray(image)
    if image.mode.startswith("I"):
        return _native_depth(np.asarray(image))
    if image.has_transparency_data:
        return _over_black(np.asarray(image.convert("RGBA")))
    if image.mode == "L":
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))


def _native_depth(values: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "H W"]:
    """Undo Pillow's widening of 16-bit grey to 32 bits, and its byte order."""
    if values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max:
        return values.astype(np.uint16)
    return values.astype(np.int32)


def _over_black(rgba: UInt8[np.ndarray, "*extent 4"]) -> UInt8[np.ndarray, "*extent 3"]:
    weighted: UInt16[np.ndarray, "*extent 3"] = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)

"""What every file format decodes to, and the bounds that it keeps before it decodes anything.

A format is one module of this folder: a function from a path to a :class:`Raster`, entered in
:data:`DECODERS` under its extensions. It calls :func:`check_extent` as soon as it has read the
header, so that a file which claims to be huge costs no memory.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from ultrarefiner.errors import InputError
from ultrarefiner.registry import Registry

MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 2**20
MIN_SIDE_PX = 8


@dataclass(frozen=True)
class Raster:
    """The numbers of one file, before anyone says what they mean.

    Attributes:
        values: grey levels, or palette indices, or red, green, blue; in the dtype of the file.
            Transparency is already composited over black.
        palette: colours of the indices, None if the values are no indices.
        is_lossy: True if the file's compression changes values (JPEG).
        notes: what a user should know about the decoding.
    """

    values: Shaped[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]
    palette: UInt8[np.ndarray, "256 3"] | None = None
    is_lossy: bool = False
    notes: tuple[str, ...] = ()


Decoder = Callable[[Path], Raster]
DECODERS: Registry[Decoder] = Registry("image format")


def split_name(path: Path) -> tuple[str, str]:
    """Return the stem and the lower-case extension; ``.nii.gz`` is one extension.

    Example:
        >>> split_name(Path("case.01.NII.GZ"))
        ('case.01', '.nii.gz')
    """
    name = path.name
    extension = ".nii.gz" if name.lower().endswith(".nii.gz") else path.suffix.lower()
    return name[: len(name) - len(extension)], extension


def check_file(path: Path) -> None:
    """Raise :class:`InputError` unless ``path`` is a regular, non-empty file of bearable length."""
    try:
        status = path.stat()
    except OSError as cause:
        raise unreadable(path, "an existing file", cause) from cause
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot read {path}", expected="a regular file")
    if status.st_size == 0:
        raise InputError(
            f"cannot read {path}",
            expected="an image file",
            found="0 bytes",
            fix="The copy or export stopped early: make it again.",
        )
    if status.st_size > MAX_BYTES:
        raise InputError(
            f"cannot read {path}",
            expected=f"at most {MAX_BYTES // 2**20} MiB",
            found=f"{status.st_size // 2**20} MiB",
        )


def check_extent(path: Path, shape: tuple[int, ...]) -> None:
    """Raise :class:`InputError` unless ``shape`` (H, W) is that of a picture of bearable size."""
    if len(shape) != 2:
        raise InputError(
            f"cannot use {path}",
            expected="one two-dimensional picture",
            found=f"an array of shape {shape}",
            fix="Save each slice or frame as a file of its own.",
        )
    height, width = shape
    if min(height, width) < MIN_SIDE_PX:
        raise InputError(
            f"cannot use {path}",
            expected=f"at least {MIN_SIDE_PX} px on each side",
            found=f"a {width}x{height} image",
        )
    if height * width > MAX_PIXELS:
        raise too_large(path, f"{width}x{height} = {height * width:,}")


def too_large(path: Path, found: str) -> InputError:
    """Return the error of a picture with more than :data:`MAX_PIXELS` pixels."""
    return InputError(
        f"will not decode {path}",
        expected=f"at most {MAX_PIXELS:,} pixels",
        found=found,
        fix="Crop or shrink it first.",
    )


def unreadable(path: Path, expected: str, cause: Exception) -> InputError:
    """Return the error of a file that its decoder could not get through."""
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return InputError(
        f"cannot read {path}",
        expected=expected,
        found=" ".join(reason.split()),
        fix="Make the file again, or take it out of the folder.",
    )

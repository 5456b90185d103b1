"""Single-slice NIfTI files, as nnU-Net writes them for two-dimensional data.

A NIfTI array is indexed (x, y, z). We return rows = y and columns = x: the transpose, which is what
SimpleITK's ``GetArrayFromImage`` and both readers of nnU-Net give. The affine's flips are *not*
applied, as they are not there, so that a mask and its image agree pixel by pixel with what the
network saw.

Only header and pixels are read, never the header extensions: they may hold patient text, and in a
compressed file they are an unbounded read.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ultrarefiner.data.formats.raster import (
    DECODERS,
    Raster,
    check_extent,
    check_file,
    unreadable,
)
from ultrarefiner.errors import InputError

# nibabel does not annotate its headers, hence Any.
_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAX_OFFSET_BYTES = 2**24
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, HeaderDataError, WrapStructError)


@DECODERS.register(".nii")
@DECODERS.register(".nii.gz")
def decode_nifti(path: Path) -> Raster:
    """Decode a NIfTI of one slice, with the header's intensity scaling applied.

    Raises:
        InputError: damaged, colour or complex, or more than one slice.
    """
    try:
        with ExitStack() as stack:
            stream = _open(path, stack)
            header = _header(path, stream)
            _plane_axes(path, header)
            values = np.squeeze(header.data_from_fileobj(stream))
            stream.read(1)  # at the end of its content gzip checks its checksum
    except InputError:
        raise
    except _DAMAGE as cause:
        raise unreadable(path, "a complete NIfTI file", cause) from cause
    return Raster(np.array(values.T, dtype=values.dtype.newbyteorder("="), order="C"))


def nifti_spacing(path: Path) -> tuple[float, float] | None:
    """Return (dy, dx) in mm from the header; None if it holds no positive finite numbers.

    A header that names no unit is taken to be in mm. Pictures converted to NIfTI without a known
    spacing say 1 mm: that cannot be told from a true 1 mm.

    Raises:
        InputError: damaged, or more than one slice.
    """
    check_file(path)
    try:
        with ExitStack() as stack:
            header = _header(path, _open(path, stack))
            axes = _plane_axes(path, header)
            zooms = [float(header.get_zooms()[axis]) for axis in axes]
            scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0])
    except InputError:
        raise
    except (*_DAMAGE, KeyError) as cause:
        raise unreadable(path, "a complete NIfTI header", cause) from cause
    if scale is None or not np.isfinite(zooms).all() or min(zooms) <= 0:
        return None
    return zooms[1] * scale, zooms[0] * scale


def _open(path: Path, stack: ExitStack) -> BufferedIOBase:
    """Open by content: both wrong endings, ``.nii`` of a gzip file and the reverse, are met."""
    stream = stack.enter_context(path.open("rb"))
    is_gzip = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return stack.enter_context(gzip.GzipFile(fileobj=stream)) if is_gzip else stream


def _header(path: Path, stream: BufferedIOBase) -> Any:
    block = stream.read(540)
    declared = {struct.unpack(order + "i", block[:4])[0] for order in "<>" if len(block) >= 4}
    length = next(iter(declared & _HEADERS.keys()), None)
    if length is None or len(block) < length:
        raise InputError(
            f"cannot read {path}",
            expected="a NIfTI header of 348 or 540 bytes",
            found="something else" if length is None else f"{len(block)} bytes",
            fix="Make the file again, or give it the ending of its real format.",
        )
    header = _HEADERS[length](block[:length])
    if not header["magic"].item().startswith(b"n+"):
        raise InputError(
            f"cannot read {path}",
            expected="header and pixels in one file",
            found="the header of a .hdr and .img pair",
            fix="Convert the pair to .nii.gz.",
        )
    if not 0 <= header.get_data_offset() <= _MAX_OFFSET_BYTES:
        raise InputError(
            f"cannot read {path}", expected=f"pixels within the first {_MAX_OFFSET_BYTES} bytes"
        )
    return header


def _plane_axes(path: Path, header: Any) -> list[int]:
    """Return the two array axes of the picture, x and y, having checked its size and type."""
    shape = tuple(int(side) for side in header.get_data_shape())
    axes = [axis for axis, side in enumerate(shape) if side != 1]
    check_extent(path, tuple(shape[axis] for axis in reversed(axes)) if len(axes) == 2 else shape)
    if header.get_data_dtype().kind not in "biuf":
        raise InputError(
            f"cannot use {path}",
            expected="real numbers",
            found=f"dtype {header.get_data_dtype()}",
        )
    return axes

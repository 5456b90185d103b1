"""Opening a DICOM file: only the elements that describe the picture, within bounds, in silence.

Names, dates and everything else about a patient are stepped over, not parsed: :data:`_NEEDED` is
all that is ever in memory. pydicom's own messages may quote what a file holds; neither they nor
its warnings leave this module, and an error says no more than shape, transfer syntax and kind.

pydicom is the optional extra ``dicom``; it is imported when the first DICOM file is opened.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from ultrarefiner.data.formats.raster import check_extent, check_file
from ultrarefiner.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHAPE = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
)
_GREYS = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)
_LENGTHS = (
    "SequenceOfUltrasoundRegions",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
)
_NEEDED = (*_SHAPE, *_GREYS, *_LENGTHS)

# Transfer syntaxes whose decoded length is known from the header or can be checked before decoding.
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
_JPEG_2000 = "1.2.840.10008.1.2.4.91"
_IMAGE_CODES = (*_JPEG, _JPEG_2000_LOSSLESS, _JPEG_2000)
_LOSSY = (*_JPEG, _JPEG_2000)

_MAX_RLE_SEGMENTS = 15

# What pydicom and Pillow raise on damaged files, found by cutting and flipping bytes.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)


@contextmanager
def reading_dicom(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into an error that names the file and quotes nothing of it.

    pydicom's and Pillow's log records and warnings are dropped meanwhile.

    Raises:
        InputError: pydicom is not installed, or the file is damaged or no DICOM file.
    """
    try:
        import pydicom  # noqa: F401
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError as cause:
        raise InputError(
            f"cannot read {path}",
            expected="pydicom, which reads DICOM files",
            found="that it is not installed",
            fix="Install it: pip install 'ultrarefiner[dicom]'",
        ) from cause
    try:
        with _silence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except InvalidDicomError:
        raise InputError(
            f"cannot read {path}",
            expected="a DICOM file with its preamble of 128 bytes and 'DICM'",
            found="something else",
            fix="Export it again as a DICOM file (part 10), or give it its real ending.",
        ) from None
    except (*_DAMAGE, BytesLengthException) as cause:
        raise InputError(
            f"cannot read {path}",
            expected="a complete, undamaged DICOM image",
            found=f"{type(cause).__name__} while decoding",
            fix="Export it again, or take it out of the folder.",
        ) from None  # the cause may quote the file


def read_header(path: Path) -> Dataset:
    """Read the elements that describe the picture, without the picture, and check its shape.

    To be called inside :func:`reading_dicom`.

    Raises:
        InputError: no single picture, too large, or in a coding that cannot be bounded or read.
    """
    check_file(path)
    _check_syntax(path)
    header = _read(path, _NEEDED)
    if "Rows" not in header or "Columns" not in header:
        raise InputError(
            f"cannot use {path}", expected="a DICOM image", found="an object without a picture"
        )
    check_extent(path, (int(header.Rows), int(header.Columns)))
    num_frames = int(header.get("NumberOfFrames") or 1)
    if num_frames != 1:
        raise InputError(
            f"cannot use {path}",
            expected="one frame",
            found=f"{num_frames} frames",
            fix="Export the frames that you need as single images.",
        )
    samples, bits = int(header.SamplesPerPixel), int(header.BitsAllocated)
    if samples not in (1, 3) or bits not in (8, 16) or not 1 <= int(header.BitsStored) <= bits:
        raise InputError(
            f"cannot use {path}",
            expected="1 or 3 samples a pixel, of 8 or 16 bits",
            found=f"{samples} of {bits} bits, {int(header.BitsStored)} of them used",
            fix="Export it as an image; segmentation objects are not read.",
        )
    return header


def read_picture(path: Path) -> Dataset:
    """Read header and pixel data, having bounded what decoding them will take.

    To be called inside :func:`reading_dicom`.

    Raises:
        InputError: as :func:`read_header`, or the compressed picture is not of the header's size.
    """
    header = read_header(path)
    picture = _read(path, (*_NEEDED, "PixelData"), with_pixels=True)
    if "PixelData" not in picture:
        raise InputError(
            f"cannot use {path}", expected="a DICOM image", found="an object without a picture"
        )
    syntax = str(picture.file_meta.TransferSyntaxUID)
    if syntax == _RLE:
        _check_run_lengths(path, header, _only_frame(picture))
    elif syntax in _IMAGE_CODES:
        _check_code_stream(path, header, _only_frame(picture))
    return picture


def is_lossy(picture: Dataset) -> bool:
    """Tell whether a compression changed values, in this file or in one that it was made from."""
    was_lossy = str(picture.get("LossyImageCompression", "")) == "01"
    return was_lossy or str(picture.file_meta.TransferSyntaxUID) in _LOSSY


def _read(path: Path, names: tuple[str, ...], *, with_pixels: bool = False) -> Dataset:
    from pydicom import dcmread

    return dcmread(path, specific_tags=list(names), stop_before_pixels=not with_pixels)


def _check_syntax(path: Path) -> None:
    """Refuse what cannot be bounded, before pydicom inflates a whole deflated file."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import UID

    syntax = UID(str(read_file_meta_info(path).get("TransferSyntaxUID", "")))
    if syntax in (*_NATIVE, _RLE, *_IMAGE_CODES):
        return
    is_known = syntax.name != str(syntax)  # pydicom has a name for it, so it is no free text
    raise _unknown_coding(path, f"transfer syntax {syntax.name}" if is_known else "another one")


def _unknown_coding(path: Path, found: str) -> InputError:
    return InputError(
        f"cannot read {path}",
        expected="an uncompressed, RLE, JPEG (8 bit) or JPEG 2000 DICOM image",
        found=found,
        fix="Decompress it first, for example with dcmdjpeg or gdcmconv --raw.",
    )


def _only_frame(picture: Dataset) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(picture.PixelData, 0, number_of_frames=1)


def _check_code_stream(path: Path, header: Dataset, frame: bytes) -> None:
    """Compare the size that a JPEG declares with the header's; Pillow has decoded nothing yet."""
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except UnidentifiedImageError:
        raise _unknown_coding(path, "another or a damaged JPEG coding") from None
    if size != (int(header.Columns), int(header.Rows)):
        raise InputError(
            f"will not decode {path}",
            expected=f"a compressed picture of {int(header.Columns)}x{int(header.Rows)}",
            found=f"{size[0]}x{size[1]}",
            fix="Export it again.",
        )


def _check_run_lengths(path: Path, header: Dataset, frame: bytes) -> None:
    """Add up what each RLE segment expands to, as a few bytes can stand for very many."""
    num_segments, *offsets = struct.unpack_from(f"<{1 + _MAX_RLE_SEGMENTS}L", frame)
    starts = offsets[: min(num_segments, _MAX_RLE_SEGMENTS)]
    plane_bytes = int(header.Rows) * int(header.Columns)
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        position, expanded_bytes = start, 0
        while position < end and expanded_bytes <= plane_bytes + 1:  # one byte of padding
            code = frame[position]
            literal, run = code + 1, 257 - code
            expanded_bytes += 0 if code == 128 else literal if code < 128 else run
            position += 1 if code == 128 else 1 + literal if code < 128 else 2
        if expanded_bytes > plane_bytes + 1:
            raise InputError(
                f"will not decode {path}",
                expected=f"RLE segments of {plane_bytes:,} bytes",
                found="a longer one",
                fix="Export it again.",
            )


class _Reject(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


@contextmanager
def _silence() -> Iterator[None]:
    """Drop pydicom's records. Each caller adds a filter of its own, so threads do not interfere."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "pydicom.pixels.decoders.base")]
    reject = _Reject()
    for logger in loggers:
        logger.addFilter(reject)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(reject)

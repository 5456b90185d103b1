"""Where a DICOM ultrasound picture holds tissue, and how many millimetres a pixel of it spans.

A screen of an ultrasound machine is several pictures beside each other: tissue, a Doppler trace, a
colour bar, text. The Sequence of Ultrasound Regions gives each its box and its own units. Nothing
is cropped on reading; who wants to, has the boxes here.

Reference: DICOM PS3.3, C.8.5.5 (ultrasound region calibration) and 10.7 (pixel spacing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ultrarefiner.data.formats.dicom_file import read_header, reading_dicom

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TWO_DIMENSIONAL = 1
_TISSUE = 1
_CENTIMETRES = 3
_MM_PER_CM = 10.0

# Calibrated spacing first; (row, column) each, in mm.
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True, kw_only=True)
class DicomRegion:
    """One part of an ultrasound screen.

    Attributes:
        box_xyxy_px: left, top, right and bottom edge in the native frame, within the picture.
        spacing_mm: (dy, dx) mm per px; None where an axis is no length (time, velocity).
        is_tissue: True for a two-dimensional picture of tissue, False for traces, colour, bars.
    """

    box_xyxy_px: tuple[int, int, int, int]
    spacing_mm: tuple[float, float] | None
    is_tissue: bool

    @property
    def area_px(self) -> int:
        """Number of pixels in the box."""
        left, top, right, bottom = self.box_xyxy_px
        return (right - left) * (bottom - top)


def dicom_regions(path: Path) -> tuple[DicomRegion, ...]:
    """Return the ultrasound regions in the order of the file; none if it names none.

    Boxes are clipped to the picture; a region without any pixel inside is left out.

    Raises:
        InputError: damaged, no DICOM image, or of several frames.
    """
    with reading_dicom(path):
        return _regions(read_header(path))


def dicom_spacing(path: Path) -> tuple[float, float] | None:
    """Return (dy, dx) in mm per px; None if the header holds no usable length.

    The largest tissue region that is measured in cm decides: where two pictures of different depth
    stand side by side, lengths in the smaller one are wrong. Without such a region, Pixel Spacing,
    Imager Pixel Spacing and Nominal Scanned Pixel Spacing are asked in this order.

    Raises:
        InputError: damaged, no DICOM image, or of several frames.
    """
    with reading_dicom(path):
        header = read_header(path)
        measured = [region for region in _regions(header) if region.is_tissue and region.spacing_mm]
        if measured:
            return max(measured, key=lambda region: region.area_px).spacing_mm
        return next(filter(None, (_lengths(header.get(name)) for name in _SPACINGS)), None)


def _regions(header: Dataset) -> tuple[DicomRegion, ...]:
    height, width = int(header.Rows), int(header.Columns)
    found = (_region(item, height, width) for item in header.get("SequenceOfUltrasoundRegions", []))
    return tuple(region for region in found if region is not None)


def _region(item: Dataset, height: int, width: int) -> DicomRegion | None:
    """Read one item; its last row and column are inside, ours are the edges after them."""
    left, top = max(int(item.RegionLocationMinX0), 0), max(int(item.RegionLocationMinY0), 0)
    right = min(int(item.RegionLocationMaxX1) + 1, width)
    bottom = min(int(item.RegionLocationMaxY1) + 1, height)
    if left >= right or top >= bottom:
        return None
    units = (item.get("PhysicalUnitsYDirection"), item.get("PhysicalUnitsXDirection"))
    spacing = None
    if units == (_CENTIMETRES, _CENTIMETRES):
        spacing = _lengths(
            (item.get("PhysicalDeltaY"), item.get("PhysicalDeltaX")), mm_per_unit=_MM_PER_CM
        )
    kind = (item.get("RegionSpatialFormat"), item.get("RegionDataType"))
    return DicomRegion(
        box_xyxy_px=(left, top, right, bottom),
        spacing_mm=spacing,
        is_tissue=kind == (_TWO_DIMENSIONAL, _TISSUE),
    )


def _lengths(pair: object, *, mm_per_unit: float = 1.0) -> tuple[float, float] | None:
    """Return two positive lengths in mm; a negative delta only says which way the axis points."""
    try:
        dy, dx = (abs(float(value)) * mm_per_unit for value in pair)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (dy, dx) if all(math.isfinite(d) and d > 0 for d in (dy, dx)) else None

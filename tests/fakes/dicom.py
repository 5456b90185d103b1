"""DICOM ultrasound images of one clinic: grey, inverted, colour by planes, and with a palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

from fakes.scenes import HEIGHT_PX, NUM_SCENES, WIDTH_PX, draw_scene, save_png

PATIENT_TEXT = "DOE^JANE"
SPACING_MM = (0.2, 0.1)


def write_fake_dicom(folder: Path) -> Path:
    """Fill ``images`` with DICOM files and ``masks`` with PNG, for the importer ``folder``.

    Scene 0 is MONOCHROME2 with an ultrasound region, 1 MONOCHROME1 with Pixel Spacing, 2 RGB in
    planes, 3 PALETTE COLOR. All hold a patient's name, which nobody is to repeat.
    """
    (folder / "images").mkdir(parents=True)
    for index in range(NUM_SCENES):
        image = draw_scene(index).image
        dataset = make_dicom(image if index != 1 else 255 - image)
        if index == 0:
            dataset.SequenceOfUltrasoundRegions = [make_region()]
        elif index == 1:
            dataset.PhotometricInterpretation = "MONOCHROME1"
            dataset.PixelSpacing = list(SPACING_MM)
        elif index == 2:
            dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "RGB", 3
            dataset.PlanarConfiguration = 1
            dataset.PixelData = np.stack([image] * 3).tobytes()
        else:
            _add_grey_palette(dataset)
        save_dicom(folder / "images" / f"US.{index}.dcm", dataset)
        save_png(folder / "masks" / f"US.{index}.png", draw_scene(index).mask)
    return folder


def make_dicom(pixels: np.ndarray) -> Dataset:
    """Return a MONOCHROME2 ultrasound object of the depth of ``pixels`` (H, W), uint8 to int16."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fake"])
    dataset.SOPClassUID = UltrasoundImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality = "US"
    dataset.PatientName = PATIENT_TEXT
    dataset.PatientID = PATIENT_TEXT
    dataset.PatientOrientation = ["L", "F"]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    return dataset


def make_region(
    box: tuple[int, int, int, int] = (0, 0, WIDTH_PX - 1, HEIGHT_PX - 1), **changes: object
) -> Dataset:
    """Return an ultrasound region of tissue in cm; ``box`` holds its first and last pixels."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = box[:2]
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = box[2:]
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaY, region.PhysicalDeltaX = (length / 10 for length in SPACING_MM)
    for name, value in changes.items():
        setattr(region, name, value)
    return region


def save_dicom(path: Path, dataset: Dataset) -> Path:
    """Write a file with preamble and meta information."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def _add_grey_palette(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    table = (np.arange(256, dtype="<u2") * 257).tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)

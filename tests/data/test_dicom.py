"""DICOM files as machines write them, against pydicom's own samples and hand-solved pictures."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from fakes.dicom import PATIENT_TEXT, SPACING_MM, make_dicom, make_region, save_dicom
from ultrarefiner.data.formats import DicomRegion, decode, dicom_regions
from ultrarefiner.data.pairing import find_images
from ultrarefiner.data.readers import read_coarse, read_image, read_spacing
from ultrarefiner.errors import InputError

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
H, W = 24, 31
GREY = np.random.default_rng(0).integers(0, 256, (H, W)).astype(np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4096, (H, W)).astype(np.uint16)
COLOUR = np.random.default_rng(2).integers(0, 256, (H, W, 3)).astype(np.uint8)


def write(folder: Path, dataset: Dataset, **changes: object) -> Path:
    for name, value in changes.items():
        setattr(dataset, name, value)
    return save_dicom(folder / "a.dcm", dataset)


def deep(**changes: object) -> Dataset:
    dataset = make_dicom(DEEP)
    for name, value in ({"BitsStored": 12, "HighBit": 11} | changes).items():
        setattr(dataset, name, value)
    return dataset


def colour(**changes: object) -> Dataset:
    dataset = make_dicom(GREY)
    defaults = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "PixelData": COLOUR.tobytes() + b"\0",
    }
    for name, value in (defaults | changes).items():
        setattr(dataset, name, value)
    return dataset


# Grey levels


def test_eight_bit_grey_keeps_its_values(tmp_path):
    path = write(tmp_path, make_dicom(GREY))
    raster = decode(path)
    assert raster.values.dtype == np.uint8
    np.testing.assert_array_equal(raster.values, GREY)
    assert not raster.is_lossy
    np.testing.assert_array_equal(read_image(path), (GREY / 255).astype(np.float32))


def test_monochrome1_is_turned(tmp_path):
    path = write(tmp_path, make_dicom(GREY), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode(path).values, 255 - GREY)


def test_the_stored_bits_are_the_full_range(tmp_path):
    np.testing.assert_allclose(read_image(write(tmp_path, deep())), DEEP / 4095, atol=1e-5)
    seven = make_dicom(GREY // 2)
    path = write(tmp_path, seven, BitsStored=7, HighBit=6)
    np.testing.assert_allclose(read_image(path), (GREY // 2) / 127, atol=0.5 / 255)


def test_unused_high_bits_are_not_picture(tmp_path):
    path = write(tmp_path, deep(), PixelData=(DEEP | np.uint16(0x8000)).tobytes())
    np.testing.assert_allclose(read_image(path), DEEP / 4095, atol=1e-5)


def test_signed_values_start_at_the_lowest(tmp_path):
    signed = DEEP.astype(np.int16) - 2048
    path = write(tmp_path, make_dicom(signed), BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read_image(path), DEEP / 4095, atol=1e-5)


@pytest.mark.parametrize("slope", [1.0, 2.5, -3.0])
def test_a_rescaling_without_window_changes_no_more_than_the_direction(tmp_path, slope):
    path = write(tmp_path, deep(), RescaleSlope=slope, RescaleIntercept=-1024)
    expected = DEEP / 4095 if slope > 0 else 1 - DEEP / 4095
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("centre", "width"), [(2000, 1500), (500.5, 1), (100, 8000)])
@pytest.mark.parametrize("slope", [1, 0.5])
def test_windows_are_pydicoms(tmp_path, function, centre, width, slope):
    dataset = deep(WindowCenter=[centre, 1], WindowWidth=[width, 1])
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, -100
    if function:
        dataset.VOILUTFunction = function
    ends = (-100, 4095 * slope - 100)
    with np.errstate(over="ignore"):
        oracle = apply_windowing(DEEP.astype(float) * slope - 100, dataset)
    expected = (oracle - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)), expected, atol=2e-5)


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_of_no_width_is_passed_over(tmp_path, width):
    path = write(tmp_path, deep(), WindowCenter=100, WindowWidth=width)
    np.testing.assert_allclose(read_image(path), DEEP / 4095, atol=1e-5)


@pytest.mark.parametrize("slope", [1e39, 1e308])
def test_a_rescaling_beyond_all_numbers_is_refused(tmp_path, slope):
    with pytest.raises(InputError, match="ValueError while decoding"):
        decode(write(tmp_path, deep(), RescaleSlope=slope, RescaleIntercept=0))


def test_look_up_tables(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 10]
    table.LUTData = (np.arange(4096, dtype="<u2") // 4)[::-1].tobytes()
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        path = write(tmp_path, deep(), **{name: [table]})
        np.testing.assert_allclose(read_image(path), (1023 - DEEP // 4) / 1023, atol=1e-5)


def test_values_beyond_a_table_get_its_ends(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 100, 8], bytes([10, 200, 30, 0])
    path = write(tmp_path, make_dicom(np.clip(GREY, 90, 110)), VOILUTSequence=[table])
    expected = np.array([10, 200, 30])[np.clip(GREY, 100, 102) - 100] / 255
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)


def test_a_mask_in_a_dicom_file_is_a_mask(tmp_path):
    for full, dtype in ((255, np.uint8), (1, np.uint8), (1, np.uint16), (65535, np.uint16)):
        mask = (GREY > 128).astype(dtype) * dtype(full)
        dataset = make_dicom(mask)
        coarse = read_coarse(write(tmp_path, dataset))
        assert coarse.is_hard
        np.testing.assert_array_equal(coarse.values, GREY > 128)


# Colour


def luma(rgb):
    return rgb.astype(float) @ [0.299, 0.587, 0.114] / 255


def test_colour_by_pixel_and_by_plane_is_the_same(tmp_path):
    by_pixel = decode(write(tmp_path, colour())).values
    planes = np.moveaxis(COLOUR, 2, 0).tobytes() + b"\0"
    by_plane = decode(write(tmp_path, colour(PlanarConfiguration=1, PixelData=planes))).values
    np.testing.assert_array_equal(by_pixel, COLOUR)
    np.testing.assert_array_equal(by_plane, COLOUR)


def test_ycbcr_becomes_red_green_blue(tmp_path):
    y, cb, cr = (COLOUR[..., i].astype(float) for i in range(3))
    y, cb, cr = y, 128 + (cb - 128) / 8, 128 + (cr - 128) / 8  # colours that exist
    stored = np.rint(np.stack([y, cb, cr], axis=2)).astype(np.uint8)
    path = write(
        tmp_path,
        colour(PhotometricInterpretation="YBR_FULL", PixelData=stored.tobytes() + b"\0"),
    )
    y, cb, cr = (stored[..., i].astype(float) for i in range(3))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    expected = np.clip(np.stack([red, green, blue], axis=2), 0, 255)
    np.testing.assert_allclose(decode(path).values, expected, atol=1.5)


def test_a_palette_gives_its_colours(tmp_path):
    dataset = make_dicom(GREY)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    table = np.random.default_rng(5).integers(0, 65536, (3, 256)).astype("<u2")
    for colour_name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(dataset, f"{colour_name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour_name}PaletteColorLookupTableData", row.tobytes())
    values = decode(write(tmp_path, dataset)).values
    np.testing.assert_array_equal(values, np.moveaxis(table >> 8, 0, 1)[GREY])


def test_another_colour_model_is_refused(tmp_path):
    path = write(tmp_path, colour(PhotometricInterpretation="HSV"))
    with pytest.raises(InputError, match="another colour model"):
        decode(path)


def test_orientation_says_where_the_patient_is_and_turns_nothing(tmp_path):
    for orientation in (["L", "F"], ["R", "H"], ["P", "L"]):
        dataset = make_dicom(GREY)
        dataset.PatientOrientation = orientation
        dataset.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        np.testing.assert_array_equal(decode(write(tmp_path, dataset)).values, GREY)


# Compressed, and the samples that come with pydicom


def test_run_lengths_are_read(tmp_path):
    for dataset, expected in ((make_dicom(GREY), GREY), (colour(), COLOUR)):
        dataset.PixelData = dataset.PixelData[: expected.size]
        dataset.compress(RLELossless, generate_instance_uid=False)
        np.testing.assert_array_equal(decode(write(tmp_path, dataset)).values, expected)


@pytest.mark.parametrize(
    ("name", "shape", "lossy"),
    [
        ("examples_rgb_color.dcm", (240, 320, 3), False),
        ("examples_palette.dcm", (350, 800, 3), False),
        ("examples_jpeg2k.dcm", (480, 640, 3), False),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3), True),
        ("ExplVR_BigEnd.dcm", (60, 80, 3), False),
        ("MR_small_RLE.dcm", (64, 64), False),
    ],
)
def test_samples_of_real_machines(name, shape, lossy):
    raster = decode(SAMPLES / name)
    assert raster.values.shape == shape
    assert raster.is_lossy == lossy
    assert np.ptp(raster.values) > 100


def test_the_same_picture_in_five_codings_is_the_same():
    plain = decode(SAMPLES / "MR_small.dcm").values
    for coding in ("RLE", "bigendian", "implicit", "jp2klossless", "padded"):
        other = decode(SAMPLES / f"MR_small_{coding}.dcm").values
        np.testing.assert_array_equal(other, plain)


def test_jpeg_agrees_with_the_uncompressed_picture():
    jpeg = decode(SAMPLES / "SC_rgb_jpeg_dcmtk.dcm").values
    plain = decode(SAMPLES / "SC_rgb_rle.dcm").values
    assert np.abs(jpeg.astype(int) - plain).mean() < 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("examples_ybr_color.dcm", "30 frames"),
        ("image_dfl.dcm", "transfer syntax Deflated"),
        ("SC_rgb_jpeg_gdcm.dcm", "transfer syntax JPEG Lossless"),
        ("JPGExtended.dcm", "another or a damaged JPEG coding"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "DecompressionBomb"),
        ("liver_1frame.dcm", "segmentation objects are not read"),
        ("rtdose_1frame.dcm", "32 bits"),
        ("no_meta.dcm", "preamble"),
        ("test-SR.dcm", "without a picture"),
        ("badVR.dcm", "undamaged DICOM"),
        ("MR_truncated.dcm", "undamaged DICOM"),
    ],
)
def test_what_cannot_be_read_says_why(name, message):
    with pytest.raises(InputError, match=message) as caught:
        read_image(SAMPLES / name)
    assert str(SAMPLES / name) in str(caught.value)


# Bounds, damage, silence


def test_pixels_are_bounded_before_they_are_decoded(tmp_path):
    path = write(tmp_path, make_dicom(GREY), Rows=60_000, Columns=60_000)
    for read in (read_image, read_spacing, dicom_regions):
        with pytest.raises(InputError, match="at most 100,000,000 pixels"):
            read(path)


def test_a_compressed_picture_of_another_size_is_not_decoded(tmp_path):
    dataset = pydicom.dcmread(SAMPLES / "SC_rgb_jpeg_dcmtk.dcm")
    with pytest.raises(InputError, match="expected a compressed picture of 50x100, found 100x100"):
        decode(write(tmp_path, dataset, Columns=50))


def test_run_lengths_that_expand_too_far_are_not_decoded(tmp_path):
    dataset = make_dicom(np.zeros((64, 64), dtype=np.uint8))
    dataset.compress(RLELossless, generate_instance_uid=False)
    assert not decode(write(tmp_path, dataset)).values.any()
    row = bytes([257 - 64, 0])  # 64 times zero
    assert dataset.PixelData.count(row * 64) == 1
    bomb = dataset.PixelData.replace(row * 64, bytes([257 - 128, 0]) * 64)
    with pytest.raises(InputError, match="RLE segments of 4,096 bytes"):
        decode(write(tmp_path, dataset, PixelData=bomb))


@pytest.mark.parametrize("frames", [2, 300])
def test_several_frames_are_refused_with_their_number(tmp_path, frames):
    dataset = make_dicom(GREY)
    dataset.NumberOfFrames = frames
    path = write(tmp_path, dataset)
    for read in (read_image, read_spacing):
        with pytest.raises(InputError, match=rf"{frames} frames.*Export the frames"):
            read(path)


def test_syntaxes_that_cannot_be_bounded_are_refused_by_name(tmp_path):
    for syntax in (DeflatedExplicitVRLittleEndian, JPEGLSLossless):
        path = write(tmp_path, make_dicom(GREY))
        content = path.read_bytes()
        plain, other = b"1.2.840.10008.1.2.1\0", str(syntax).encode()
        meta = content.replace(b"UI\x14\0" + plain, b"UI" + bytes([len(other), 0]) + other, 1)
        grown = len(meta) - len(content)
        meta = (
            meta[:140]
            + (int.from_bytes(meta[140:144], "little") + grown).to_bytes(4, "little")
            + meta[144:]
        )
        path.write_bytes(meta)
        with pytest.raises(InputError, match=f"transfer syntax {syntax.name[:7]}"):
            read_image(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_an_input_error_that_quotes_nothing(tmp_path_factory, caplog, data):
    sources = [make_dicom(GREY), deep(WindowCenter=5, WindowWidth=9), colour()]
    dataset = data.draw(st.sampled_from(sources))
    dataset.SequenceOfUltrasoundRegions = [make_region()]
    path = write(tmp_path_factory.mktemp("dicom"), dataset)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(content), 1400) - 1))
        content[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content))) :]
    path.write_bytes(content)
    messages: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        for read in (read_image, read_spacing, dicom_regions):
            try:
                read(path)
            except InputError as error:
                messages.append(str(error))
    assert all(str(path) in message for message in messages)
    assert "DOE" not in caplog.text + "".join(messages)


def test_no_patient_text_is_in_messages_and_logs(tmp_path, caplog):
    path = write(tmp_path, make_dicom(GREY), NumberOfFrames=4, StudyDescription=PATIENT_TEXT)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as caught:
        read_image(path)
    assert "DOE" not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


def test_a_missing_reader_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = write(tmp_path, make_dicom(GREY))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'ultrarefiner\[dicom\]'"):
        read_image(path)


def test_both_endings_are_found(tmp_path):
    for name in ("a.dcm", "b.DICOM", "no ending"):
        save_dicom(tmp_path / name, make_dicom(GREY))
    assert [path.name for path in find_images(tmp_path)] == ["a.dcm", "b.DICOM"]
    assert read_image(tmp_path / "b.DICOM").shape == (H, W)


# Regions and spacing


def test_regions_have_half_open_boxes_and_millimetres(tmp_path):
    dataset = make_dicom(GREY)
    dataset.SequenceOfUltrasoundRegions = [
        make_region((2, 3, 10, 12)),
        make_region((0, 0, W + 5, 4), RegionDataType=3, PhysicalUnitsXDirection=4),
        make_region((W, 0, W + 9, 9)),
    ]
    first, second = dicom_regions(write(tmp_path, dataset))
    assert first == DicomRegion(
        box_xyxy_px=(2, 3, 11, 13), spacing_mm=pytest.approx(SPACING_MM), is_tissue=True
    )
    assert first.area_px == 90
    assert second == DicomRegion(box_xyxy_px=(0, 0, W, 5), spacing_mm=None, is_tissue=False)


def test_spacing_is_that_of_the_largest_tissue_region(tmp_path):
    dataset = make_dicom(GREY)
    dataset.PixelSpacing = [9, 9]
    dataset.SequenceOfUltrasoundRegions = [
        make_region((0, 0, 5, 5), PhysicalDeltaX=0.07),
        make_region((6, 0, 20, 20)),
        make_region((0, 0, W - 1, H - 1), RegionSpatialFormat=3, PhysicalDeltaX=0.5),
    ]
    assert read_spacing(write(tmp_path, dataset)) == pytest.approx(SPACING_MM)


def test_a_negative_delta_is_a_direction(tmp_path):
    dataset = make_dicom(GREY)
    dataset.SequenceOfUltrasoundRegions = [make_region(PhysicalDeltaY=-0.02)]
    assert read_spacing(write(tmp_path, dataset)) == pytest.approx((0.2, 0.1))


@pytest.mark.parametrize(
    "changes",
    [
        {"PhysicalUnitsXDirection": 4},
        {"PhysicalUnitsYDirection": 0},
        {"PhysicalDeltaX": 0.0},
        {"PhysicalDeltaX": float("nan")},
        {"PhysicalDeltaY": float("inf")},
        {"RegionDataType": 2},
    ],
)
def test_a_region_that_is_no_measure_leaves_the_word_to_pixel_spacing(tmp_path, changes):
    dataset = make_dicom(GREY)
    dataset.SequenceOfUltrasoundRegions = [make_region(**changes)]
    assert read_spacing(write(tmp_path, dataset)) is None
    dataset.NominalScannedPixelSpacing = [0.5, 0.6]
    assert read_spacing(write(tmp_path, dataset)) == (0.5, 0.6)
    dataset.ImagerPixelSpacing = [0.3, 0.4]
    assert read_spacing(write(tmp_path, dataset)) == (0.3, 0.4)
    dataset.PixelSpacing = [0.1, 0.2]
    assert read_spacing(write(tmp_path, dataset)) == (0.1, 0.2)
    dataset.PixelSpacing = [0, 0.2]
    assert read_spacing(write(tmp_path, dataset)) == (0.3, 0.4)


def test_spacing_of_a_real_machine():
    path = SAMPLES / "examples_palette.dcm"
    (region,) = {region.box_xyxy_px for region in dicom_regions(path)}
    assert region == (120, 60, 800, 350)
    assert read_spacing(path) == pytest.approx((0.26229, 0.26229), abs=1e-5)


def test_implicit_value_representations_are_read(tmp_path):
    dataset = make_dicom(GREY)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SequenceOfUltrasoundRegions = [make_region()]
    path = write(tmp_path, dataset)
    np.testing.assert_array_equal(decode(path).values, GREY)
    assert read_spacing(path) == pytest.approx(SPACING_MM)

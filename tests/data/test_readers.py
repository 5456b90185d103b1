"""Real files of every format, whole and damaged, through the public readers."""

from __future__ import annotations

import gzip
import io
import logging
import os
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ultrarefiner.data import formats
from ultrarefiner.data.readers import read_coarse, read_image, read_spacing
from ultrarefiner.data.writers import write_mask, write_probability
from ultrarefiner.errors import ConfigError, InputError

H, W = 24, 31
GREY = np.random.default_rng(0).integers(0, 256, (H, W)).astype(np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 4096, (H, W)).astype(np.uint16)
COLOUR = np.random.default_rng(2).integers(0, 256, (H, W, 3)).astype(np.uint8)
DISC = np.hypot(*np.ogrid[-32:32, -40:40]) < 20


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def save_array(path: Path, values: np.ndarray) -> Path:
    np.save(path, values, allow_pickle=True)
    return path


def save_nifti(path: Path, values_xyz: np.ndarray, zooms: tuple[float, ...] = ()) -> Path:
    image = nib.Nifti1Image(values_xyz, np.diag([*zooms, *[1.0] * (4 - len(zooms))]))
    nib.save(image, path)
    return path


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ [0.299, 0.587, 0.114] / 255


def test_reads_8_bit_grey_exactly_from_every_lossless_format(tmp_path):
    for ending in ("png", "bmp", "tif", "tiff", "PNG"):
        image = read_image(save(tmp_path / f"a.{ending}", GREY))
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, (GREY / 255).astype(np.float32))


def test_reads_16_bit_on_the_full_range(tmp_path):
    for ending in ("png", "tif"):
        image = read_image(save(tmp_path / f"a.{ending}", GREY16))
        np.testing.assert_allclose(image, GREY16 / 65535, atol=1e-7)
    big_endian = Image.fromarray(GREY16.astype(">u2"))
    big_endian.save(tmp_path / "b.tif")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif"), GREY16 / 65535, atol=1e-7)


def test_colour_becomes_luma(tmp_path):
    np.testing.assert_allclose(
        read_image(save(tmp_path / "a.png", COLOUR)), luma(COLOUR), atol=0.51 / 255
    )


def test_transparency_is_composited_over_black(tmp_path):
    alpha = GREY[..., None]
    image = read_image(save(tmp_path / "a.png", np.concatenate([COLOUR, alpha], axis=2)))
    np.testing.assert_allclose(image, luma(COLOUR) * GREY / 255, atol=1.5 / 255)
    grey_alpha = np.stack([np.full_like(GREY, 255), GREY], axis=2)
    np.testing.assert_allclose(
        read_image(save(tmp_path / "b.png", grey_alpha)), GREY / 255, atol=1e-6
    )


def test_palette_and_transparent_palette(tmp_path):
    picture = Image.fromarray(GREY % 3)
    picture.putpalette([0, 0, 0, 255, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "a.png")
    expected = np.array([0, 0.299, 1])[GREY % 3]
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1 / 255)
    picture.save(tmp_path / "b.png", transparency=2)
    expected = np.array([0, 0.299, 0])[GREY % 3]
    np.testing.assert_allclose(read_image(tmp_path / "b.png"), expected, atol=1 / 255)


def test_one_bit(tmp_path):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", DISC)), DISC)


def test_cmyk_jpeg_is_the_grey_of_its_colours(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    Image.fromarray(smooth).convert("RGB").convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg"), smooth / 255, atol=0.03)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :24] = 255
    upright[:16, 24:] = 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", np.ascontiguousarray(stored), exif=exif, quality=95)
    image = read_image(path)
    assert image.shape == upright.shape
    np.testing.assert_allclose(image, upright / 255, atol=0.1)


def test_float_tiff_and_float_scales(tmp_path):
    unit = (GREY / 255).astype(np.float32)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", unit)), unit)
    cases = {
        "b": (GREY.astype(np.float64), GREY / 255),
        "c": (GREY16.astype(np.int32), GREY16 / 65535),
        "d": (GREY.astype(np.float32) - 100, (GREY - float(GREY.min())) / np.ptp(GREY)),
        "e": (np.full((H, W), -3, np.int16), np.zeros((H, W))),
    }
    for name, (stored, expected) in cases.items():
        image = read_image(save_array(tmp_path / f"{name}.npy", stored))
        np.testing.assert_allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    values = np.zeros((H, W))
    values[3, 4] = bad
    path = save_array(tmp_path / "a.npy", values)
    for read in (read_image, read_coarse):
        with pytest.raises(InputError, match=r"a\.npy.*1 pixels"):
            read(path)


def test_several_frames_are_refused_with_their_number(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY), Image.fromarray(GREY)]
    for name in ("a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match=r"3 frames.*Save the frames"):
            read_image(tmp_path / name)


def test_phone_picture_with_preview_gives_the_picture_and_a_warning(tmp_path, caplog):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        image = read_image(tmp_path / "a.jpg")
    assert "first of 2 pictures" in caplog.text
    assert np.corrcoef(image.ravel(), GREY.ravel())[0, 1] > 0.8


def test_content_counts_not_the_ending(tmp_path):
    path = save(tmp_path / "a.jpg", GREY, format="PNG")
    np.testing.assert_allclose(read_image(path), GREY / 255, atol=1e-7)
    mask = save_nifti(tmp_path / "b.nii.gz", DISC.T.astype(np.uint8)[..., None])
    plain = tmp_path / "b.nii"
    mask.rename(plain)
    np.testing.assert_array_equal(read_coarse(plain).values, DISC)


# Files that must be refused


def encoded(fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, format=fmt, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", encoded("PNG")),
        ("a.jpg", encoded("JPEG")),
        ("a.bmp", encoded("BMP")),
        ("a.tif", encoded("TIFF")),
        ("b.tif", encoded("TIFF", compression="tiff_lzw")),
    ],
)
def test_a_cut_picture_is_named_or_whole_never_wrong(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    whole = read_image(path)
    refusals: list[InputError] = []
    cuts = range(1, len(content), max(1, len(content) // 60))
    for cut in cuts:
        path.write_bytes(content[:cut])
        try:
            image = read_image(path)
        except InputError as error:
            refusals.append(error)
        else:
            np.testing.assert_array_equal(image, whole)
    assert len(refusals) >= 0.9 * len(cuts)
    for error in refusals:
        assert str(path) in str(error)
        assert all([error.expected, error.found, error.fix])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


@pytest.mark.parametrize("side", [10_001, 12_000, 30_000])
def test_a_png_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    zeros = zlib.compress(bytes(10_000_000), 9)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zeros)
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match=r"bomb\.png.*at most 100,000,000 pixels"):
        read_image(path)


def test_pixel_limit_holds_for_every_format(tmp_path, monkeypatch):
    paths = [
        save(tmp_path / "a.png", GREY),
        save_array(tmp_path / "a.npy", GREY),
        save_nifti(tmp_path / "a.nii.gz", GREY),
    ]
    monkeypatch.setattr(formats.raster, "MAX_PIXELS", H * W - 1)
    for path in paths:
        with pytest.raises(InputError, match="pixels"):
            read_image(path)
    monkeypatch.setattr(formats.raster, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="MiB"):
        read_image(paths[0])


def test_an_image_just_under_the_limit_warns_of_nothing(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)
    assert read_image(path).shape == (H, W)


def test_a_file_past_the_byte_limit_is_not_opened(tmp_path):
    path = tmp_path / "a.npy"
    path.touch()
    os.truncate(path, formats.MAX_BYTES + 1)
    with pytest.raises(InputError, match="at most 512 MiB"):
        read_image(path)


@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (100, 7)])
def test_tiny_images_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[0]} image"):
        read_image(save(tmp_path / "a.png", np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "a.nii", "a.nii.gz"])
def test_empty_foreign_and_missing_files_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(InputError, match=rf"{name}.*No such file"):
        read_image(path)
    for content in (b"", b"a line of text\n" * 50, b"\x1f\x8bnot gzip", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            read_image(path)
        assert caught.value.expected
        assert caught.value.fix


def test_postscript_is_never_tried(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n")
    with pytest.raises(InputError, match="PNG, JPEG, BMP or TIFF"):
        read_image(path)


def test_unknown_endings_folders_and_pipes_are_refused(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"x")
    with pytest.raises(InputError, match=r"ending in .*found \.mha"):
        read_image(tmp_path / "a.mha")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(InputError, match="regular file"):
        read_image(tmp_path / "d.png")
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(InputError, match="regular file"):
        read_image(tmp_path / "p.png")


# npy


def test_array_shapes(tmp_path):
    for shape in [(H, W), (1, H, W), (1, 1, H, W)]:
        np.testing.assert_array_equal(
            read_coarse(save_array(tmp_path / "a.npy", GREY.reshape(shape) > 99)).values, GREY > 99
        )
    for shape in [(H * W,), (3, H, W), (H, W, 3)]:
        with pytest.raises(InputError, match="two-dimensional"):
            read_image(save_array(tmp_path / "b.npy", np.zeros(shape)))


def test_arrays_of_objects_and_complex_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.npy"):
        read_image(save_array(tmp_path / "a.npy", np.full((H, W), object())))
    with pytest.raises(InputError, match="complex"):
        read_image(save_array(tmp_path / "b.npy", np.zeros((H, W), complex)))


def npy(header: bytes, *, length: int | None = None) -> bytes:
    size = struct.pack("<I", len(header) if length is None else length)
    return b"\x93NUMPY\x02\x00" + size + header + bytes(1000)


@pytest.mark.parametrize(
    "content",
    [
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (9000000, 9000000), }\n"),
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (100, 100), }\n"),
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 100), }\n"),
        npy(b"{" + b" " * 2_000_000 + b"}\n"),
        npy(b"{", length=2**32 - 1),
        npy(b"{'descr': (\n"),
        npy(b"__import__('os').abort()\n"),
    ],
)
def test_lying_array_headers_cost_nothing(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy"):
        read_image(path)


# NIfTI


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti_rows_are_y(tmp_path, kind, ending):
    for array in (GREY.T, GREY.T[..., None], GREY.T[:, None, :], GREY.T[None]):
        nib.save(kind(array, np.diag([-1.0, -1, 1, 1])), tmp_path / f"a.{ending}")
        np.testing.assert_allclose(read_image(tmp_path / f"a.{ending}"), GREY / 255, atol=1e-7)


def test_nifti_agrees_with_the_transpose_that_nnunet_takes(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", GREY.T[..., None])
    zyx = nib.load(path).get_fdata().transpose(2, 1, 0)
    np.testing.assert_allclose(read_image(path) * 255, zyx[0], atol=1e-4)


def test_nifti_scaling_and_byte_order(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(GREY.T.astype(">i2"), np.eye(4), header)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").get_fdata().T
    np.testing.assert_allclose(read_image(tmp_path / "a.nii"), stored / 255, atol=1e-6)


def test_nifti_with_more_slices_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.zeros((W, H, 9), np.uint8))
    with pytest.raises(InputError, match=rf"\({W}, {H}, 9\).*each slice"):
        read_coarse(path)


def test_nifti_of_colours_or_complex_numbers_is_refused(tmp_path):
    rgb = np.zeros((W, H), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (rgb, np.zeros((W, H), np.complex64)):
        with pytest.raises(InputError, match="real numbers"):
            read_image(save_nifti(tmp_path / "a.nii", values))


def test_nifti_cut_or_changed_is_refused(tmp_path):
    raw = save_nifti(tmp_path / "a.nii", GREY.T).read_bytes()
    packed = gzip.compress(raw)
    flipped = bytearray(packed)
    flipped[-8] ^= 1  # the checksum
    for name, content in [
        ("b.nii", raw[:-10]),
        ("c.nii", raw[:200]),
        ("d.nii.gz", packed[: len(packed) // 2]),
        ("e.nii.gz", bytes(flipped)),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


def test_half_of_a_header_and_image_pair_is_refused(tmp_path):
    pair = nib.Nifti1Pair(GREY.T, np.eye(4))
    nib.save(pair, tmp_path / "a.hdr")
    joined = (tmp_path / "a.hdr").read_bytes() + (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.nii").write_bytes(joined)
    with pytest.raises(InputError, match=r"\.hdr and \.img pair"):
        read_image(tmp_path / "a.nii")


def test_nifti_extensions_are_not_read(tmp_path):
    image = nib.Nifti1Image(GREY.T, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 2**20))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz"), GREY / 255, atol=1e-7)
    image.header["vox_offset"] = 1e30
    bomb = image.header.binaryblock + bytes(1000)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(InputError, match="within the first"):
        read_image(tmp_path / "b.nii.gz")


def test_spacing(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", GREY.T[..., None], (0.1, 0.2, 3.0))
    assert read_spacing(path) == pytest.approx((0.2, 0.1))
    image = nib.Nifti1Image(GREY.T[:, None, :], np.diag([100.0, 5, 200, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "b.nii")
    assert read_spacing(tmp_path / "b.nii") == pytest.approx((0.2, 0.1))
    image.header["pixdim"][1] = np.nan
    (tmp_path / "c.nii").write_bytes(image.header.binaryblock + bytes(4 + GREY.size))
    assert read_spacing(tmp_path / "c.nii") is None
    assert read_spacing(save(tmp_path / "a.png", GREY, dpi=(300, 300))) is None


# What the numbers of a mask mean

SOFT = np.linspace(0, 1, H * W).reshape(H, W)
BLOB = np.zeros((H, W), bool)
BLOB[5:15, 6:20] = True


@pytest.mark.parametrize(
    ("stored", "is_hard", "note"),
    [
        (BLOB, True, None),
        (BLOB.astype(np.uint8), True, None),
        (BLOB.astype(np.uint8) * 255, True, None),
        (BLOB.astype(np.uint16) * 65535, True, None),
        (BLOB.astype(np.uint8) * 7, True, "value 7"),
        (BLOB.astype(np.int64) * 255, True, None),
        (BLOB.astype(np.float32), True, None),
        (BLOB.astype(np.float64) * 255, True, None),
        (np.zeros((H, W), np.uint8), True, None),
        (np.zeros((H, W), np.float16), True, None),
        (SOFT.astype(np.float32), False, None),
        (SOFT.astype(np.float64) * 1.00005, False, None),
        (BLOB * np.float32(0.5), False, None),
        (np.rint(SOFT * 255).astype(np.uint8), False, "probability x / 255"),
        (np.rint(SOFT * 65535).astype(np.uint16), False, "probability x / 65535"),
    ],
)
def test_hard_and_soft_codings(tmp_path, stored, is_hard, note):
    coarse = read_coarse(save_array(tmp_path / "a.npy", stored))
    assert coarse.is_hard == is_hard
    assert coarse.values.dtype == np.float32
    expected = stored > 0 if is_hard else stored / max(1.0, np.rint(float(stored.max())))
    np.testing.assert_allclose(coarse.values, expected, atol=1e-4)
    assert (note in " ".join(coarse.notes)) if note else coarse.notes == ()


@pytest.mark.parametrize("full", [np.uint8(1), np.uint8(255), np.uint16(65535)])
def test_a_full_mask_is_hard(tmp_path, full):
    coarse = read_coarse(save_array(tmp_path / "a.npy", np.full((H, W), full)))
    assert coarse.is_hard
    assert (coarse.values == 1).all()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (GREY % 3, r"labels 0, 1, 2\. .*--label"),
        ((GREY % 3).astype(np.float32), "labels 0, 1, 2"),
        (GREY % 2 + 1, "labels 1, 2"),
        (SOFT * 12 - 6, "sigmoid"),
        (SOFT * 255, "divide other scales"),
        (GREY.astype(np.int16), "neither a mask nor a probability"),
        (GREY.astype(np.uint16), "neither a mask nor a probability"),
        (-(GREY % 2).astype(np.int8), "neither a mask nor a probability"),
    ],
)
def test_values_without_a_safe_meaning_are_refused(tmp_path, stored, message):
    with pytest.raises(InputError, match=message):
        read_coarse(save_array(tmp_path / "a.npy", stored))


def test_label_selects_one_class(tmp_path):
    for path in (
        save(tmp_path / "a.png", GREY % 3),
        save_nifti(tmp_path / "a.nii.gz", (GREY % 3).T[..., None].astype(np.float32)),
    ):
        coarse = read_coarse(path, label=2)
        assert coarse.is_hard
        np.testing.assert_array_equal(coarse.values, GREY % 3 == 2)
        absent = read_coarse(path, label=9)
        assert not absent.values.any()
        assert absent.notes == ("label 9 does not occur: labels 0, 1, 2",)
    with pytest.raises(ConfigError, match="0 is background"):
        read_coarse(path, label=0)
    with pytest.raises(InputError, match="probabilities"):
        read_coarse(save_array(tmp_path / "b.npy", SOFT), label=1)


@pytest.mark.parametrize("quality", [30, 60, 75, 90, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_of_a_hard_mask_is_hard(tmp_path, quality, mode):
    Image.fromarray(DISC.astype(np.uint8) * 255).convert(mode).save(
        tmp_path / "a.jpg", quality=quality
    )
    coarse = read_coarse(tmp_path / "a.jpg")
    assert coarse.is_hard
    assert "JPEG" in coarse.notes[0]
    assert np.mean(coarse.values != DISC) < 0.01


def test_other_jpegs(tmp_path):
    radius = np.hypot(*np.ogrid[-32:32, -40:40])
    soft = np.rint(255 / (1 + np.exp((radius - 20) / 2))).astype(np.uint8)
    coarse = read_coarse(save(tmp_path / "a.jpg", soft))
    assert not coarse.is_hard
    np.testing.assert_allclose(coarse.values, soft / 255, atol=0.1)
    with pytest.raises(InputError, match="Labels do not survive JPEG"):
        read_coarse(save(tmp_path / "b.jpg", DISC.astype(np.uint8) * 2, quality=100))
    assert not read_coarse(save(tmp_path / "c.jpg", np.zeros((H, W), np.uint8))).values.any()
    assert read_coarse(save(tmp_path / "d.jpg", np.full((H, W), 255, np.uint8))).values.all()
    with pytest.raises(InputError, match="a JPEG"):
        read_coarse(tmp_path / "a.jpg", label=1)


def test_colour_channels_of_a_mask(tmp_path):
    white = DISC.astype(np.uint8) * 255
    equal = np.stack([white] * 3, axis=2)
    with_alpha = np.stack([white, white, white, np.full_like(white, 255)], axis=2)
    drawn = np.stack([np.full_like(white, 255)] * 3 + [white], axis=2)
    for values in (equal, with_alpha, drawn):
        coarse = read_coarse(save(tmp_path / "a.png", values))
        assert coarse.is_hard
        np.testing.assert_array_equal(coarse.values, DISC)
    red = np.stack([white, white * 0, white * 0], axis=2)
    for name in ("b.png", "b.jpg"):
        with pytest.raises(InputError, match="is no mask"):
            read_coarse(save(tmp_path / name, red))


def test_palette_of_a_mask(tmp_path):
    picture = Image.fromarray(DISC.astype(np.uint8))
    coloured = picture.copy()
    coloured.putpalette([0, 0, 0, 128, 0, 0])
    coloured.save(tmp_path / "a.png")
    coarse = read_coarse(tmp_path / "a.png")
    np.testing.assert_array_equal(coarse.values, DISC)
    assert "indices are the labels" in coarse.notes[0]
    inverted = picture.copy()
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    inverted.save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_coarse(tmp_path / "b.png").values, ~DISC)


def test_damaged_exif_is_noted_not_fatal(tmp_path):
    path = save(
        tmp_path / "a.jpg", DISC.astype(np.uint8) * 255, exif=b"Exif\0\0II*\0\x08\0\0\0\x05"
    )
    assert any("EXIF" in note for note in read_coarse(path).notes)


SMALL = st.tuples(st.integers(8, 20), st.integers(8, 20))
BRIEF = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@BRIEF
@given(arrays(bool, SMALL))
def test_a_written_mask_reads_back_the_same(tmp_path, mask):
    write_mask(tmp_path / "a.png", mask)
    coarse = read_coarse(tmp_path / "a.png")
    assert coarse.is_hard
    assert coarse.notes == ()
    np.testing.assert_array_equal(coarse.values, mask)


@BRIEF
@given(arrays(np.float32, SMALL, elements=st.floats(0, 1, width=32)))
def test_a_written_probability_reads_back_the_same(tmp_path, prob):
    write_probability(tmp_path / "a.npy", prob)
    np.testing.assert_array_equal(read_coarse(tmp_path / "a.npy").values, prob)

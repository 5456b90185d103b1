"""COCO files of every coding; outlines and run lengths against hand-solved cases and COCO's API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fakes.coco import coco_truth, compress, run_lengths, write_fake_coco
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.data.sources import Imported, import_source
from ultrarefiner.data.sources.coco_masks import decode_counts, draw_segmentation
from ultrarefiner.errors import InputError

INDEX = "annotations/instances_train2017.json"


def fake(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return write_fake_coco(folder)


def run(src: Path, out: Path) -> tuple[Imported, dict[str, Record]]:
    imported = import_source("coco", src, out)
    return imported, {record.image.name: record for record in read_manifest(out)}


def mask_of(record: Record) -> np.ndarray:
    assert record.mask is not None
    return read_coarse(record.mask).values > 0.5


def test_coco_draws_every_coding(tmp_path: Path) -> None:
    src = fake(tmp_path / "set")
    imported, records = run(src, tmp_path / "c.csv")
    assert imported.num_masks_drawn == 4
    assert [(r.label, r.split) for r in records.values()] == [
        *(("benign", "train"), ("", "train"), ("malignant", "train"), ("", "train"))
    ]
    assert {record.dataset for record in records.values()} == {"set"}
    for index, record in enumerate(records.values()):
        assert record.mask == tmp_path / "c-masks" / f"{index:012d}.png"
        np.testing.assert_array_equal(mask_of(record), coco_truth(index))


def test_coco_skips_what_it_cannot_draw(tmp_path: Path) -> None:
    src = fake(tmp_path / "set")
    index = src / INDEX
    content = json.loads(index.read_text())
    content["annotations"][0]["segmentation"] = []
    content["annotations"][3]["image_id"] = 999
    content["images"][1]["width"] = 10**9
    del content["images"][2]["height"]
    index.write_text(json.dumps(content))
    imported, _ = run(src, tmp_path / "c.csv")
    reasons = [reason for _, reason in imported.skipped]
    assert [("no outline" in r, "pixels" in r, "height" in r) for r in reasons] == [
        *((True, False, False), (False, True, False), (False, False, True))
    ]
    assert any("1 annotations belong to no listed image" in remark for _, remark in imported.notes)


def test_coco_beside_its_images_takes_the_split_from_the_folder(tmp_path: Path) -> None:
    src = fake(tmp_path / "set")
    for split in ("train", "valid"):
        target = tmp_path / "export" / split
        shutil.copytree(src / "train2017", target)
        shutil.copy(src / INDEX, target / "_annotations.coco.json")
    imported, _ = run(tmp_path / "export", tmp_path / "c.csv")
    records = read_manifest(tmp_path / "c.csv")
    assert [record.split for record in records] == ["train"] * 4 + ["val"] * 4
    assert len({record.mask for record in records}) == 8
    assert imported.skipped == ()


def test_images_of_one_stem_get_masks_of_their_own(tmp_path: Path) -> None:
    src = fake(tmp_path / "set")
    index, images = src / INDEX, src / "train2017"
    content = json.loads(index.read_text())
    (images / f"{1:012d}.png").rename(images / f"{0:012d}.PNG")
    content["images"][1]["file_name"] = f"{0:012d}.PNG"
    index.write_text(json.dumps(content))
    _, records = run(src, tmp_path / "c.csv")
    np.testing.assert_array_equal(mask_of(records[f"{0:012d}.png"]), coco_truth(0))
    np.testing.assert_array_equal(mask_of(records[f"{0:012d}.PNG"]), coco_truth(1))


# Outlines


def test_a_pixel_is_inside_if_its_centre_is() -> None:
    drawn = draw_segmentation([[1.4, 0.4, 3.6, 0.4, 3.6, 2.6, 1.4, 2.6]], 4, 5)
    np.testing.assert_array_equal(
        drawn.astype(int), [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    )
    drawn = draw_segmentation([[1.6, 0.6, 3.4, 0.6, 3.4, 2.4, 1.6, 2.4]], 4, 5)
    np.testing.assert_array_equal(np.argwhere(drawn), [[1, 2]])


def test_a_triangle_solved_by_hand() -> None:
    """Its slanted side is x + y = 4: of the centres on it none is on the left."""
    drawn = draw_segmentation([[0, 0, 4, 0, 0, 4]], 4, 4)
    np.testing.assert_array_equal(
        drawn.astype(int), [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    )


def test_an_outline_is_clipped_and_may_turn_either_way() -> None:
    outside = [-50.0, -9.0, 3.0, -9.0, 3.0, 2.0, -50.0, 2.0]
    drawn = draw_segmentation([outside], 4, 5)
    np.testing.assert_array_equal(drawn, np.outer([1, 1, 0, 0], [1, 1, 1, 0, 0]))
    backwards = np.array(outside).reshape(-1, 2)[::-1].ravel().tolist()
    np.testing.assert_array_equal(draw_segmentation([backwards], 4, 5), drawn)
    assert not draw_segmentation([[9, 9, 12, 9, 12, 12]], 4, 5).any()
    assert not draw_segmentation([[-9, -9, -12, -9, -12, -12]], 4, 5).any()


def test_overlapping_outlines_are_merged_not_cancelled() -> None:
    square = [0, 0, 3, 0, 3, 3, 0, 3]
    assert draw_segmentation([square, square], 4, 4).sum() == 9


def test_areas_have_no_bias() -> None:
    """Filling with the outline's pixels, as OpenCV does, would add half the circumference."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        angles = np.sort(rng.random(24)) * 2 * np.pi
        radius = rng.uniform(15, 40)
        xy = rng.uniform(45, 55, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        (x, y), (x1, y1) = xy.T, np.roll(xy, -1, axis=0).T
        area = (x * y1 - x1 * y).sum() / 2
        errors.append(draw_segmentation([xy.ravel().tolist()], 100, 100).sum() - area)
    assert abs(np.mean(errors)) < 2
    assert np.std(errors) < 15


# Run lengths


def test_run_lengths_solved_by_hand() -> None:
    """Columns first, background first: 2 rows, 3 columns."""
    drawn = draw_segmentation({"size": [2, 3], "counts": [1, 2, 2, 1]}, 2, 3)
    np.testing.assert_array_equal(drawn.astype(int), [[0, 1, 0], [1, 0, 1]])
    drawn = draw_segmentation({"size": [2, 3], "counts": [0, 6]}, 2, 3)
    assert drawn.all()


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", []),
        ("0", [0]),
        ("?", [15]),
        ("`0", [16]),
        ("P1", [32]),
        ("1230", [1, 2, 3, 2]),
        ("@", None),
        ("O", None),
    ],
)
def test_strings_solved_by_hand(text: str, counts: list[int] | None) -> None:
    """One digit is 0 to 15, two from 16 on; '@' alone is -16, 'O' -1; the fourth differs."""
    if counts is None:
        with pytest.raises(InputError, match="damaged"):
            decode_counts(text)
    else:
        assert decode_counts(text) == counts


def test_a_string_that_the_coco_api_wrote() -> None:
    """pycocotools 2.0.11: a rectangle with a hole, and the pixel at the origin."""
    mask = np.zeros((12, 16), dtype=np.bool_)
    mask[2:9, 3:12] = True
    mask[5, 6] = False
    mask[0, 0] = True
    text = "01U16PO0000LL04400000000^1"
    np.testing.assert_array_equal(
        draw_segmentation({"size": [12, 16], "counts": text}, 12, 16), mask
    )
    assert compress(run_lengths(mask)) == text


@given(
    mask=arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    repeats=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_any_mask_survives_both_codings(mask: np.ndarray, repeats: int) -> None:
    mask = np.repeat(mask, repeats, axis=0)
    counts = run_lengths(mask)
    assert decode_counts(compress(counts)) == counts
    for coding in (counts, compress(counts)):
        runs = {"size": list(mask.shape), "counts": coding}
        np.testing.assert_array_equal(draw_segmentation(runs, *mask.shape), mask)


@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_string_is_read_or_refused(text: str) -> None:
    try:
        counts = decode_counts(text)
    except InputError:
        return
    assert all(0 <= count < 2**40 for count in counts)


@pytest.mark.parametrize(
    ("segmentation", "found"),
    [
        (None, "no outline"),
        ([], "no outline"),
        ("1 2 3", "something else"),
        ([[1, 1, 2, 2]], "2 points"),
        ([[1, 1, 2, 2, 3]], "no list of x, y"),
        ([[1, 1, 2, 2, 3, float("nan")]], "no list of x, y"),
        ([[1, 1, 2, 2, 3, 10**400]], "no list of x, y"),
        ([[1, 1, 2, 2, 3, "x"]], "no list of x, y"),
        ([["a", "b"]], "no list of x, y"),
        ([7], "no list of numbers"),
        ({"size": [5, 4], "counts": [20]}, "another size"),
        ({"size": [4, 5]}, "no whole numbers"),
        ({"size": [4, 5], "counts": [21]}, "add up to 21, not 20"),
        ({"size": [4, 5], "counts": [30, -10]}, "no whole numbers"),
        ({"size": [4, 5], "counts": [10.0, 10.0]}, "no whole numbers"),
        ({"size": [4, 5], "counts": "oooooooooooo"}, "damaged"),
        ({"size": [4, 5], "counts": "o"}, "damaged"),
        ({"size": [4, 5], "counts": "~"}, "damaged"),
    ],
)
def test_what_cannot_be_drawn_says_why(segmentation: object, found: str) -> None:
    with pytest.raises(InputError, match=found):
        draw_segmentation(segmentation, 4, 5)

"""The audit names every planted fault, and what would leak is refused with both files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data.audit import (
    Audit,
    audit_manifest,
    find_leaks,
    group_duplicates,
    refuse_leaks,
)
from ultrarefiner.data.duplicates import DuplicateGroup
from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.data.phantom import CopyConfig, PhantomConfig, write_phantoms
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError, LeakError

_CONFIG = PhantomConfig(height_px=(200, 260), width_px=(200, 260), images_per_patient=2)
_KINDS = ("resaved", "resized", "cropped", "brightness", "annotated", "flipped")
_KEYS = {
    "duplicates",
    "label_conflicts",
    "patient_conflicts",
    "leaks",
    "size_mismatch",
    "empty_masks",
    "full_masks",
    "non_binary_masks",
    "missing_masks",
    "unreadable",
    "num_images",
    "versions",
}


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    """Manifest of six clean images of three patients."""
    return write_phantoms(6, 2, tmp_path, rough=False, config=_CONFIG)


def _rewrite(manifest: Path, *changed: Record) -> dict[str, object]:
    """Replace rows by image, or add them, and return the audit as its file has it."""
    rows = {record.image: record for record in read_manifest(manifest)}
    rows |= {record.image: record for record in changed}
    write_manifest(manifest, tuple(rows.values()))
    return _json(audit_manifest(manifest))


def _json(audit: Audit) -> dict[str, object]:
    path = audit.manifest.with_name("audit.json")
    write_json(path, audit.as_dict())
    content: dict[str, object] = json.loads(path.read_text())
    assert content.keys() == _KEYS
    return content


def _found(content: dict[str, object]) -> set[str]:
    return {
        key for key, value in content.items() if value and key not in ("num_images", "versions")
    }


def test_a_clean_manifest_has_no_findings(phantoms: Path) -> None:
    content = _json(audit_manifest(phantoms))
    assert _found(content) == set()
    assert content["num_images"] == 6
    assert {"ultrarefiner", "numpy"} <= set(content["versions"])


@pytest.mark.parametrize("seed", [0, 1])
def test_every_kind_of_copy_of_a_series_is_found(tmp_path: Path, seed: int) -> None:
    copies = CopyConfig(num=6, kinds=_KINDS)
    manifest = write_phantoms(8, seed, tmp_path, rough=False, config=_CONFIG, copies=copies)
    content = _json(audit_manifest(manifest))
    planted = json.loads((tmp_path / "duplicates.json").read_text())["pairs"]
    found = [set(group["images"]) for group in content["duplicates"]]
    assert sorted(map(sorted, found)) == sorted(sorted(pair["images"]) for pair in planted)
    assert {group["kind"] for group in content["duplicates"]} == {"near"}
    assert all(0 < group["score"] <= 1 for group in content["duplicates"])
    # Each copy came under a patient of its own.
    assert len(content["patient_conflicts"]) == len(planted)


def test_labels_of_one_scene_that_differ_are_reported(phantoms: Path) -> None:
    first = read_manifest(phantoms)[0]
    copy = phantoms.parent / "copy.png"
    copy.write_bytes(first.image.read_bytes())
    other = {"benign": "malignant", "malignant": "benign"}[first.label]
    content = _rewrite(phantoms, replace(first, image=copy, label=other))
    images = ["copy.png", first.image.relative_to(phantoms.parent).as_posix()]
    assert content["duplicates"] == [{"kind": "exact", "images": images, "score": 1.0}]
    assert content["label_conflicts"] == [
        {"kind": "label", "images": images, "values": ["benign", "malignant"]}
    ]
    assert _found(content) == {"duplicates", "label_conflicts"}


def test_equal_images_with_other_masks_are_reported(phantoms: Path) -> None:
    first, second = read_manifest(phantoms)[:2]
    copy = phantoms.parent / "copy.png"
    copy.write_bytes(first.image.read_bytes())
    mask = np.zeros(cv2.imread(str(first.image), cv2.IMREAD_GRAYSCALE).shape, np.uint8)
    mask[:9, :9] = 255
    cv2.imwrite(str(phantoms.parent / "other.png"), mask)
    same = _rewrite(phantoms, replace(first, image=copy))
    assert _found(same) == {"duplicates"}
    content = _rewrite(phantoms, replace(first, image=copy, mask=phantoms.parent / "other.png"))
    (conflict,) = content["label_conflicts"]
    assert conflict["kind"] == "mask"
    assert conflict["values"] == [0.0]
    assert second.image.name not in str(conflict)


def _mask(value: object, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    if value == "full":
        mask[:] = 255
    elif value == "labels":
        mask[20:60, 20:60], mask[70:90, 70:90] = 1, 2
    elif value == "soft":
        mask[:] = np.linspace(0, 255, shape[1]).astype(np.uint8)
    elif value == "small":
        mask = np.zeros((50, 60), np.uint8)
        mask[10:30, 10:30] = 255
    return mask


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("empty", "empty_masks"),
        ("full", "full_masks"),
        ("labels", "non_binary_masks"),
        ("soft", "non_binary_masks"),
        ("small", "size_mismatch"),
    ],
)
def test_a_mask_that_is_wrong_is_listed_with_its_image(
    phantoms: Path, value: str, key: str
) -> None:
    first = read_manifest(phantoms)[0]
    assert first.mask is not None
    shape = cv2.imread(str(first.image), cv2.IMREAD_GRAYSCALE).shape
    cv2.imwrite(str(first.mask), _mask(value, shape))
    content = _json(audit_manifest(phantoms))
    assert _found(content) == {key}
    (entry,) = content[key]
    assert entry["image"] == f"images/{first.image.name}"
    assert entry["mask"] == f"masks/{first.mask.name}"
    if value == "labels":
        assert entry["values"] == [0, 1, 2]
    if value == "small":
        assert (entry["image_hw_px"], entry["mask_hw_px"]) == (list(shape), [50, 60])


def test_a_mask_saved_as_jpeg_is_binary(phantoms: Path) -> None:
    first = read_manifest(phantoms)[0]
    assert first.mask is not None
    mask = cv2.imread(str(first.mask), cv2.IMREAD_GRAYSCALE)
    noisy = phantoms.parent / "mask.jpg"
    cv2.imwrite(str(noisy), mask, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert len(np.unique(cv2.imread(str(noisy), cv2.IMREAD_GRAYSCALE))) > 2
    assert _found(_rewrite(phantoms, replace(first, mask=noisy))) == set()


def test_files_that_are_missing_or_broken_stop_nothing(phantoms: Path) -> None:
    rows = read_manifest(phantoms)
    rows[0].image.write_bytes(b"\x89PNG\r\n\x1a\n cut")
    rows[1].image.unlink()
    assert rows[2].mask is not None
    assert rows[3].mask is not None
    rows[2].mask.write_text("no mask")
    rows[3].mask.unlink()
    copy = phantoms.parent / "copy.png"
    copy.write_bytes(rows[5].image.read_bytes())
    content = _rewrite(
        phantoms, replace(rows[4], mask=None), replace(rows[5], image=copy, patient="")
    )
    assert _found(content) == {"duplicates", "unreadable", "missing_masks"}
    unreadable = {entry["file"]: entry["message"] for entry in content["unreadable"]}
    names = {f"images/{rows[i].image.name}" for i in (0, 1)} | {f"masks/{rows[2].mask.name}"}
    assert unreadable.keys() == names
    assert all(str(phantoms.parent) not in message for message in unreadable.values())
    assert content["missing_masks"] == [
        {"image": f"images/{rows[3].image.name}", "mask": f"masks/{rows[3].mask.name}"},
        {"image": f"images/{rows[4].image.name}"},
    ]


def test_a_manifest_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv"):
        audit_manifest(tmp_path / "absent.csv")


def test_the_order_of_rows_changes_no_group_and_no_leak(tmp_path: Path) -> None:
    copies = CopyConfig(num=3, kinds=_KINDS)
    manifest = write_phantoms(6, 3, tmp_path, rough=False, config=_CONFIG, copies=copies)
    rows = [replace(r, fold=str(i % 3)) for i, r in enumerate(read_manifest(manifest))]
    write_manifest(manifest, tuple(rows))
    first = audit_manifest(manifest)
    assert first.leaks
    write_manifest(manifest, tuple(random.Random(4).sample(rows, len(rows))))
    again = audit_manifest(manifest)
    assert (again.duplicates, again.leaks) == (first.duplicates, first.leaks)
    grouped = {r.image: r.duplicate_group for r in group_duplicates(rows, first.duplicates)}
    assert grouped == {
        r.image: r.duplicate_group for r in group_duplicates(again.records, again.duplicates)
    }


# --- leaks ------------------------------------------------------------------------------------


def _record(name: str, **columns: str) -> Record:
    return Record(image=Path(name), **columns)  # type: ignore[arg-type]


def _group(*names: str) -> DuplicateGroup:
    return DuplicateGroup(kind="near", images=tuple(map(Path, names)), score=0.9)


@pytest.mark.parametrize("column", ["fold", "split"])
@pytest.mark.parametrize("kind", ["patient", "duplicate_group", "duplicate"])
def test_a_leak_names_both_files_and_both_parts(kind: str, column: str) -> None:
    shared = {} if kind == "duplicate" else {kind: "x7"}
    records = [
        _record("b.png", **shared, **{column: "train"}),
        _record("c.png", **shared, **{column: "test"}),
        _record("a.png", **shared),
        _record("d.png", patient="other", **{column: "test"}),
    ]
    groups = [_group("a.png", "b.png", "c.png")] if kind == "duplicate" else []
    (leak,) = find_leaks(records, groups)
    assert (leak.kind, leak.column, leak.parts) == (kind, column, ("test", "train"))
    assert leak.images == (Path("c.png"), Path("b.png"))
    with pytest.raises(LeakError) as caught:
        refuse_leaks([leak])
    assert f"c.png ({column} test) and b.png ({column} train)" in str(caught.value)
    assert "data split" in str(caught.value)


def test_one_file_in_two_folds_is_a_leak() -> None:
    (leak,) = find_leaks([_record("a.png", fold="1"), _record("a.png", fold="2")])
    assert (leak.kind, leak.images) == ("image", (Path("a.png"), Path("a.png")))


def test_what_is_no_leak() -> None:
    records = [
        _record("c.png", patient="", fold="2"),
        _record("d.png", patient="", fold="1"),
        _record("e.png", patient="2", fold="1"),
        _record("f.png", patient="2", fold=""),
        _record("g.png", patient="2", fold="1"),
    ]
    assert find_leaks(records, [_group("e.png", "f.png")]) == ()
    refuse_leaks(())


def test_a_patient_is_a_name_in_every_data_set() -> None:
    records = [_record(f"{name}.png", patient="1", dataset=name, fold=name) for name in "12"]
    assert [leak.kind for leak in find_leaks(records)] == ["patient"]


def test_many_leaks_are_counted() -> None:
    records = [_record(f"{i}-{f}.png", patient=str(i), fold=f) for i in range(5) for f in "12"]
    with pytest.raises(LeakError, match="and 2 more"):
        refuse_leaks(find_leaks(records))


# --- duplicate_group --------------------------------------------------------------------------


def test_found_groups_fill_the_column() -> None:
    records = [_record(f"{name}.png") for name in "abcde"]
    filled = group_duplicates(records, [_group("a.png", "c.png"), _group("b.png", "e.png")])
    a, b, c, d, e = (record.duplicate_group for record in filled)
    assert a == c != b == e
    assert (d, [record.image for record in filled]) == ("", [record.image for record in records])


def test_given_groups_are_kept_and_joined() -> None:
    records = [
        _record("a.png", duplicate_group="mine"),
        _record("b.png"),
        _record("c.png", duplicate_group="yours"),
        _record("d.png", duplicate_group="yours"),
        _record("e.png", duplicate_group="alone"),
    ]
    filled = group_duplicates(records, [_group("a.png", "b.png", "c.png")])
    assert [record.duplicate_group for record in filled] == ["mine"] * 4 + ["alone"]


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8),
    st.lists(st.sampled_from(["", "g", "h"]), min_size=8, max_size=8),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_the_column_is_a_function_of_the_sets(
    pairs: list[tuple[int, int]], given_names: list[str], rng: random.Random
) -> None:
    records = [_record(f"{i}.png", duplicate_group=name) for i, name in enumerate(given_names)]
    groups = [_group(f"{a}.png", f"{b}.png") for a, b in pairs if a != b]
    filled = {r.image: r.duplicate_group for r in group_duplicates(records, groups)}
    mixed, shuffled = rng.sample(records, len(records)), rng.sample(groups, len(groups))
    assert filled == {r.image: r.duplicate_group for r in group_duplicates(mixed, shuffled)}
    assert all(len({filled[path] for path in group.images}) == 1 for group in groups)
    for name in ("g", "h"):
        assert len({filled[r.image] for r in records if r.duplicate_group == name}) <= 1

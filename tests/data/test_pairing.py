"""Matching image and mask folders by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.pairing import Pairing, find_images, pair_by_stem
from ultrarefiner.errors import InputError


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def pair(root: Path, images: list[str], coarse: list[str]) -> Pairing:
    return pair_by_stem(fill(root / "images", *images), fill(root / "coarse", *coarse))


def names(pairing: Pairing) -> list[tuple[str, str]]:
    return [(pair.image.name, pair.coarse.name) for pair in pairing.pairs]


@pytest.mark.parametrize(
    ("name", "stem", "extension"),
    [
        ("a.png", "a", ".png"),
        ("a.b.PNG", "a.b", ".png"),
        ("a.nii.gz", "a", ".nii.gz"),
        ("a.v1.NII.gz", "a.v1", ".nii.gz"),
        ("benign (1).png", "benign (1)", ".png"),
        ("a", "a", ""),
    ],
)
def test_split_name(name, stem, extension):
    assert split_name(Path("x.y") / name) == (stem, extension)


@pytest.mark.parametrize(
    ("image", "coarse"),
    [
        ("a.png", "a.png"),
        ("a.jpg", "a.nii.gz"),
        ("a.nii.gz", "a.npy"),
        ("a.b.png", "a.b.png"),
        ("case_0000.png", "case.png"),
        ("case_0000.nii.gz", "case.nii.gz"),
        ("case_0000.png", "case_seg.png"),
        ("a.png", "mask_a.png"),
        ("a.png", "a_mask.png"),
        ("a.png", "a_seg.png"),
        ("a.png", "a_segmentation.png"),
        ("a.png", "a_coarse.png"),
        ("a.png", "a_pred.png"),
        ("bus_0001-l.png", "mask_0001-l.png"),
        ("frame_0000.png", "frame_0000_mask.png"),
        ("größe 1.png", "größe 1.png"),
    ],
)
def test_names_that_match(tmp_path, image, coarse):
    pairing = pair(tmp_path, [image, "other.png"], [coarse, "unlike.png"])
    assert names(pairing) == [(image, coarse)]
    assert pairing.pairs[0].stem == split_name(Path(image))[0]
    assert [path.name for path in pairing.unmatched_images] == ["other.png"]
    assert [path.name for path in pairing.unmatched_coarse] == ["unlike.png"]
    assert pairing.ambiguous == ()


@pytest.mark.parametrize(
    ("image", "coarse"),
    [("A.png", "a.png"), ("a.png", "a_mask_1.png"), ("case_0001.png", "case.png"), ("1", "1.png")],
)
def test_names_that_do_not_match(tmp_path, image, coarse):
    pairing = pair(tmp_path, [image, "b.png"], [coarse, "b.png"])
    assert names(pairing) == [("b.png", "b.png")]


def test_the_exact_name_wins(tmp_path):
    pairing = pair(
        tmp_path, ["a.png", "case.png", "case_0000.png"], ["a.png", "a_mask.png", "case.png"]
    )
    assert names(pairing) == [("a.png", "a.png"), ("case.png", "case.png")]
    assert [path.name for path in pairing.unmatched_images] == ["case_0000.png"]
    assert [path.name for path in pairing.unmatched_coarse] == ["a_mask.png"]


def test_numbered_frames_are_not_taken_for_channels(tmp_path):
    images = [f"scan_{i:04d}.png" for i in range(3)]
    masks = [f"scan_{i:04d}_mask.png" for i in range(3)]
    assert names(pair(tmp_path, images, masks)) == list(zip(images, masks, strict=True))


def test_files_of_one_name_are_set_aside(tmp_path):
    pairing = pair(
        tmp_path,
        ["a.png", "a.jpg", "b.png", "c.png", "d.png"],
        ["a.png", "b.png", "c_mask.png", "c_pred.png", "d.png", "d.npy"],
    )
    assert names(pairing) == [("b.png", "b.png")]
    found = [
        (group.stem, [p.name for p in group.images], [p.name for p in group.coarse])
        for group in pairing.ambiguous
    ]
    assert found == [
        ("a", ["a.jpg", "a.png"], ["a.png"]),
        ("c", ["c.png"], ["c_mask.png", "c_pred.png"]),
        ("d", ["d.png"], ["d.npy", "d.png"]),
    ]
    assert pairing.unmatched_images == pairing.unmatched_coarse == ()


def test_find_images_passes_over_what_is_none(tmp_path):
    fill(tmp_path, "b.PNG", "a.nii.gz", ".hidden.png", "._a.png", "notes.txt", "Thumbs.db")
    (tmp_path / "sub.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.nii.gz", "b.PNG"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"missing.*No such file"):
        find_images(tmp_path / "missing")
    file = fill(tmp_path / "f", "a.png") / "a.png"
    with pytest.raises(InputError, match="Not a directory"):
        find_images(file)
    with pytest.raises(InputError, match="found no files"):
        find_images(fill(tmp_path / "empty", ".DS_Store"))
    with pytest.raises(InputError, match=r"2 x \.mha, 1 x no ending"):
        find_images(fill(tmp_path / "volumes", "a.mha", "b.MHA", "README"))


def test_one_folder_for_both_is_refused(tmp_path):
    folder = fill(tmp_path / "busi", "benign (1).png", "benign (1)_mask.png")
    with pytest.raises(InputError, match="two folders"):
        pair_by_stem(folder, folder / ".." / "busi")


def test_nothing_in_common_shows_three_names_of_each(tmp_path):
    with pytest.raises(InputError) as caught:
        pair(tmp_path, [f"i{n}.png" for n in range(5)], ["m1.png"])
    message = str(caught.value)
    assert "images i0.png, i1.png, i2.png, ... and masks m1.png" in message
    assert "i3.png" not in message
    assert "Name each mask like its image" in message


STEMS = st.sampled_from(["a", "A", "a_0000", "a_mask", "mask_a", "bus_a", "b", "b_seg", "b_0000"])
FILES = st.sets(st.tuples(STEMS, st.sampled_from([".png", ".npy", ".nii.gz"])), min_size=1)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(images=FILES, coarse=FILES)
def test_every_file_is_accounted_for_once(tmp_path_factory, images, coarse):
    root = tmp_path_factory.mktemp("pairing")
    try:
        pairing = pair(root, ["".join(i) for i in images], ["".join(c) for c in coarse])
    except InputError:
        return
    found_images = [p.image for p in pairing.pairs] + [*pairing.unmatched_images]
    found_coarse = [p.coarse for p in pairing.pairs] + [*pairing.unmatched_coarse]
    for group in pairing.ambiguous:
        assert len(group.images) + len(group.coarse) > 1
        found_images += group.images
        found_coarse += group.coarse
    assert sorted(found_images) == sorted((root / "images").iterdir())
    assert sorted(found_coarse) == sorted((root / "coarse").iterdir())
    stems = [p.stem for p in pairing.pairs]
    assert stems == sorted(set(stems))

"""Near duplicates: really near, their truth moved along, recorded, and hidden from the manifest."""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.phantom import (
    COPY_KINDS,
    BreastConfig,
    CopyConfig,
    HeadConfig,
    MskConfig,
    Phantom,
    PhantomConfig,
    copy_phantom,
    draw_phantom,
    write_phantoms,
)
from ultrarefiner.errors import ConfigError

_SMALL = PhantomConfig(height_px=(120, 180), width_px=(120, 180))


@cache
def _originals() -> tuple[Phantom, ...]:
    breasts = [draw_phantom(4, index, _SMALL) for index in range(4)]
    return (*breasts, draw_phantom(4, 0, MskConfig()), draw_phantom(4, 0, HeadConfig()))


def _aligned(original: Phantom, copy: Phantom, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of the copy, laid over the original."""
    image, mask = copy.image, copy.mask.astype(np.uint8)
    height, width = original.image.shape
    if kind == "flipped":
        return image[:, ::-1], mask[:, ::-1] > 0
    if kind == "cropped":
        found = cv2.matchTemplate(original.image, image, cv2.TM_CCOEFF_NORMED)
        _, score, _, (left, top) = cv2.minMaxLoc(found)
        assert score > 0.999
        bottom, right = height - top - image.shape[0], width - left - image.shape[1]
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
        mask = cv2.copyMakeBorder(mask, top, bottom, left, right, cv2.BORDER_REPLICATE)
        return image, mask > 0
    size_wh = (width, height)
    mask = cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), mask > 0


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    smooth = [cv2.GaussianBlur(each.astype(np.float32), (0, 0), 2.0) for each in (first, second)]
    return float(np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1])


@pytest.mark.parametrize("kind", COPY_KINDS)
def test_a_copy_is_near_its_original_and_not_the_same(kind: str) -> None:
    for number, original in enumerate(_originals()):
        copy = copy_phantom(original, kind, np.random.default_rng(number))
        image, mask = _aligned(original, copy, kind)
        assert copy.image.tobytes() != original.image.tobytes()
        assert _correlation(image, original.image) > 0.8
        overlap = 2 * (mask & original.mask).sum() / (mask.sum() + original.mask.sum())
        assert overlap > 0.95
        assert copy.image.dtype == copy.classes.dtype == np.uint8
        assert copy.image.shape == copy.mask.shape == copy.classes.shape
        assert set(np.unique(copy.classes)) == set(np.unique(original.classes))
        assert (copy.patient, copy.label) == (original.patient, original.label)


def test_other_images_are_not_near() -> None:
    """So the limit above tells copies from the rest."""
    for first, second in combinations(_originals()[:4], 2):
        size_wh = first.image.shape[::-1]
        assert _correlation(first.image, cv2.resize(second.image, size_wh)) < 0.8


@pytest.mark.parametrize("kind", COPY_KINDS)
def test_lengths_stay_what_they_were(kind: str) -> None:
    for original in _originals():
        copy = copy_phantom(original, kind, np.random.default_rng(3))
        area_mm2, copied_mm2 = (
            p.mask.sum() * p.spacing_mm[0] * p.spacing_mm[1] for p in (original, copy)
        )
        assert copied_mm2 == pytest.approx(area_mm2, rel=0.05)


@pytest.mark.parametrize("kind", COPY_KINDS)
def test_the_same_generator_gives_the_same_copy(kind: str) -> None:
    first, again = (copy_phantom(_originals()[0], kind, np.random.default_rng(9)) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()


def test_pairs_are_recorded_and_only_there(tmp_path: Path) -> None:
    copies = CopyConfig(num=5)
    manifest = write_phantoms(6, 2, tmp_path, config=_SMALL, copies=copies)
    records = read_manifest(manifest)
    assert len(records) == 11
    by_name = {f"images/{record.image.name}": record for record in records}
    pairs = json.loads((tmp_path / "duplicates.json").read_text(encoding="utf-8"))["pairs"]
    assert sorted(pair["kind"] for pair in pairs) == sorted(copies.kinds)
    assert len({pair["images"][0] for pair in pairs}) == 5
    for pair in pairs:
        original, copy = (by_name[name] for name in pair["images"])
        assert original.patient != copy.patient
        assert original.label == copy.label
        assert original.duplicate_group == copy.duplicate_group == ""
        assert original.image.is_file()
        assert copy.image.is_file()
        assert (tmp_path / "coarse" / copy.image.name).is_file()
    assert len({record.patient for record in records}) == 11


def test_copies_change_nothing_else(tmp_path: Path) -> None:
    plain = write_phantoms(3, 2, tmp_path / "plain", config=_SMALL)
    rich = write_phantoms(3, 2, tmp_path / "rich", config=_SMALL, copies=CopyConfig(num=2))
    for file in sorted(plain.parent.rglob("*.png")):
        assert file.read_bytes() == (rich.parent / file.relative_to(plain.parent)).read_bytes()
    assert rich.read_text(encoding="utf-8").startswith(plain.read_text(encoding="utf-8"))


def test_copies_are_reproducible(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_phantoms(3, 1, tmp_path / folder, config=_SMALL, copies=CopyConfig(num=3))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 3 * 6 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_copy_can_stay_with_its_patient(tmp_path: Path) -> None:
    copies = CopyConfig(num=2, same_patient=True, kinds=("flipped",))
    records = read_manifest(write_phantoms(2, 0, tmp_path, config=_SMALL, copies=copies))
    assert len({record.patient for record in records}) == 2


def test_a_later_run_without_copies_forgets_the_pairs(tmp_path: Path) -> None:
    write_phantoms(1, 0, tmp_path, config=_SMALL, copies=CopyConfig(num=1))
    write_phantoms(1, 0, tmp_path, config=_SMALL)
    assert not (tmp_path / "duplicates.json").exists()


def test_more_copies_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"copies.*at most 2"):
        write_phantoms(2, 0, tmp_path, config=_SMALL, copies=CopyConfig(num=3))
    assert list(tmp_path.iterdir()) == []


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"kinds.*resaved"):
        CopyConfig(kinds=("photocopied",))
    with pytest.raises(ConfigError, match="kinds"):
        CopyConfig(kinds=())
    with pytest.raises(ConfigError, match="num"):
        CopyConfig(num=-1)
    with pytest.raises(ConfigError, match="photocopied"):
        copy_phantom(_originals()[0], "photocopied", np.random.default_rng(0))


def test_the_general_name_is_the_default_preset() -> None:
    assert PhantomConfig is BreastConfig

"""`data import`, `audit`, `split` and `phantom`, as a user calls them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import Command

from fakes.busbra import write_fake_busbra
from fakes.busi import write_fake_busi
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.data.rough import rough_version
from ultrarefiner.data.sources import SOURCES


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms with known near copies, not to be changed."""
    return tmp_path_factory.mktemp("scored")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_import_split_and_audit(command: Command, tmp_path: Path) -> None:
    write_fake_busi(tmp_path / "busi")
    manifest, split = tmp_path / "busi.csv", tmp_path / "split.csv"
    imported = command("data", "import", "busi", tmp_path / "busi", "--out", manifest)
    assert imported.code == 0
    assert imported.out.startswith("4 images")
    assert str(manifest) in imported.out
    assert "names no patients" in imported.err
    for record in read_manifest(manifest):
        assert record.mask is not None
        assert read_coarse(record.mask).values.shape == read_image(record.image).shape
    done = command("data", "split", manifest, "--folds", "2", "--seed", "1", "--out", split)
    assert done.code == 0
    assert "4 images in 2 folds" in done.out
    assert {row["fold"] for row in rows(split)} == {"1", "2"}
    audited = command("data", "audit", split, "--json", tmp_path / "audit.json")
    assert audited.code == 0
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["num_images"] == 4
    assert content["leaks"] == []
    keys = {"duplicates", "label_conflicts", "leaks", "size_mismatch", "empty_masks", "unreadable"}
    assert keys <= content.keys()


def test_official_folds_are_kept(command: Command, tmp_path: Path) -> None:
    write_fake_busbra(tmp_path / "busbra")
    manifest = tmp_path / "busbra.csv"
    assert command("data", "import", "busbra", tmp_path / "busbra", "--out", manifest).code == 0
    kept, anew = tmp_path / "kept.csv", tmp_path / "anew.csv"
    assert command("data", "split", manifest, "--folds", "2", "--out", kept).code == 0
    assert [row["fold"] for row in rows(kept)] == [row["fold"] for row in rows(manifest)]
    done = command("data", "split", manifest, "--folds", "2", "--replace", "--out", anew)
    assert done.code == 0
    assert {row["fold"] for row in rows(anew)} == {"1", "2"}


def test_a_planted_copy_is_found_and_kept_together(command: Command, scored: Path) -> None:
    made = command(
        *("data", "phantom", "--num", "6", "--seed", "2", "--duplicates", "2"),
        *("--out", scored, "--gallery"),
    )
    assert made.code == 0
    assert (scored / "gallery.html").stat().st_size > 10_000
    truth = {
        frozenset(Path(name).name for name in pair["images"])
        for pair in json.loads((scored / "duplicates.json").read_text())["pairs"]
    }
    assert len(truth) == 2
    audited = command("data", "audit", scored / "manifest.csv", "--json", scored / "audit.json")
    assert audited.code == 0  # without folds there is nothing to leak into
    groups = json.loads((scored / "audit.json").read_text())["duplicates"]
    assert {frozenset(Path(name).name for name in group["images"]) for group in groups} == truth
    split = scored / "split.csv"
    assert (
        command("data", "split", scored / "manifest.csv", "--folds", "3", "--out", split).code == 0
    )
    folds = {Path(row["image"]).name: row["fold"] for row in rows(split)}
    assert all(len({folds[name] for name in pair}) == 1 for pair in truth)


def test_a_leak_has_its_own_exit_code(command: Command, scored: Path) -> None:
    """The copy goes to another fold than its original: both are named."""
    content = rows(scored / "manifest.csv")
    for number, row in enumerate(content):
        row["fold"] = "2" if "-c" in row["image"] else "1"
        assert number < 8
    leaky = scored / "leaky.csv"
    with leaky.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(content[0]))
        table.writeheader()
        table.writerows(content)
    for arguments in (
        ("data", "audit", leaky),
        ("train", "--manifest", leaky, "--fold", "2", "--out", scored / "run"),
        ("data", "split", leaky, "--folds", "2", "--out", scored / "again.csv"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 3, arguments
        assert "-c000" in outcome.err
        assert "scene" in outcome.err
    assert not (scored / "run").exists()
    assert not (scored / "again.csv").exists()


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_wrong_folder(command: Command, tmp_path: Path, name: str) -> None:
    out = tmp_path / "m.csv"
    outcome = command("data", "import", name, tmp_path / "nowhere", "--out", out)
    assert outcome.code == 2
    assert str(tmp_path / "nowhere") in outcome.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("split", "{m}", "--folds", "9", "--out", "{o}"), "9"),
        (("split", "{m}", "--folds", "1", "--out", "{o}"), "2"),
        (("split", "nowhere.csv", "--out", "{o}"), "nowhere.csv"),
        (("audit", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_what_cannot_be_done(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    write_fake_busi(tmp_path / "busi")
    manifest, out = tmp_path / "m.csv", tmp_path / "o.csv"
    assert command("data", "import", "busi", tmp_path / "busi", "--out", manifest).code == 0
    outcome = command("data", *(part.format(m=manifest, o=out) for part in arguments))
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()


def test_rough_masks_are_written_and_named_as_their_images(
    command: Command, tmp_path: Path
) -> None:
    command("data", "phantom", "--num", 3, "--out", tmp_path / "data")
    manifest, out = tmp_path / "data" / "manifest.csv", tmp_path / "rough"
    outcome = command("data", "rough", "--manifest", manifest, "--seed", 3, "--out", out)
    assert outcome.code == 0
    assert outcome.out.startswith("3 rough masks")
    for index, record in enumerate(read_manifest(manifest)):
        assert record.mask is not None
        truth = read_coarse(record.mask).values > 0.5
        rough = read_coarse(out / f"{record.image.stem}.png").values > 0.5
        assert (rough == rough_version(truth, seed=3, index=index)).all()
        assert (rough != truth).any()


def test_rough_masks_name_a_true_mask_that_is_missing(command: Command, tmp_path: Path) -> None:
    command("data", "phantom", "--num", 2, "--out", tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.csv"
    missing = read_manifest(manifest)[0].mask
    assert missing is not None
    missing.unlink()
    outcome = command("data", "rough", "--manifest", manifest, "--out", tmp_path / "rough")
    assert outcome.code == 1
    assert missing.name in outcome.err
    assert len(list((tmp_path / "rough").iterdir())) == 1

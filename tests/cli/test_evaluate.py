"""`ultrarefiner evaluate`: numbers, pairs, and what cannot be scored."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Run
from PIL import Image

FIRST = "phantom-7-0000"


def evaluation(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image) > 0


@pytest.fixture
def manifest(phantoms: Path) -> Path:
    return phantoms / "manifest.csv"


def test_a_run_beside_its_coarse_masks(
    command: Command, finished: Run, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval.json"
    folders = ("--preds", finished.folder, "--baseline", phantoms / "coarse")
    outcome = command("evaluate", "--manifest", manifest, *folders, "--out", out)
    content = evaluation(out)
    assert (outcome.code, outcome.err) == (0, "")
    assert [case["image"] for case in content["cases"]] == list(finished.rows)
    for name, table in (("masks", "cases"), ("coarse", "baseline_cases")):
        folder = finished.folder / "masks" if name == "masks" else phantoms / "coarse"
        for case in content[table]:
            truth = mask(phantoms / "masks" / f"{case['image']}.png")
            assert case["dsc"] == pytest.approx(dice(mask(folder / f"{case['image']}.png"), truth))
            assert case["distance_unit"] == "mm"
    gains = [
        after["dsc"] - before["dsc"]
        for after, before in zip(content["cases"], content["baseline_cases"], strict=True)
    ]
    assert content["paired"]["differences"]["dsc"]["mean"] == pytest.approx(np.mean(gains))
    assert {"mean", "low", "high", "median"} <= content["summary"]["dsc"].keys()
    assert content["counts"]["missed"] == content["counts"]["false_positive"] == 0
    assert content["truths"][FIRST] == str(phantoms / "masks" / f"{FIRST}.png")


def test_the_last_lines_say_what_refinement_did(
    command: Command, finished: Run, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval.json"
    folders = ("--preds", finished.folder, "--baseline", phantoms / "coarse")
    printed = command("evaluate", "--manifest", manifest, *folders, "--out", out).out
    content = evaluation(out)
    counts, headline = printed.splitlines()
    numbers = [float(number) for number in re.findall(r"-?\d\.\d{3}", headline)]
    gain = content["paired"]["differences"]["dsc"]
    assert headline.startswith("coarse DSC ")
    assert numbers == [
        round(content["baseline"]["dsc"]["mean"], 3),
        round(content["summary"]["dsc"]["mean"], 3),
        round(gain["mean"], 3),
        round(gain["low"], 3),
        round(gain["high"], 3),
    ]
    assert counts == f"3 images, 0 missed, 0 false positive; see {out}"


def test_without_baseline(command: Command, phantoms: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    preds = ("--preds", phantoms / "masks")
    outcome = command("evaluate", "--manifest", manifest, *preds, "--out", out)
    assert outcome.code == 0
    assert outcome.out.endswith("\nDSC 1.000 [1.000, 1.000]\n")
    assert evaluation(out)["baseline"] is None
    assert evaluation(out)["summary"]["hd95"]["mean"] == 0


def test_misses_are_counted(
    command: Command, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    preds = shutil.copytree(phantoms / "masks", tmp_path / "preds")
    Image.fromarray(np.zeros_like(mask(preds / f"{FIRST}.png"), np.uint8)).save(
        preds / f"{FIRST}.png"
    )
    out = tmp_path / "eval.json"
    outcome = command("evaluate", "--manifest", manifest, "--preds", preds, "--out", out)
    assert outcome.code == 0
    assert "3 images, 1 missed, 0 false positive" in outcome.out
    assert evaluation(out)["summary"]["dsc"]["mean"] == pytest.approx(2 / 3)


def test_what_cannot_be_scored_is_named_and_the_rest_is_scored(
    command: Command, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    preds = shutil.copytree(phantoms / "masks", tmp_path / "preds")
    (preds / f"{FIRST}.png").unlink()
    other = preds / "phantom-7-0001.png"
    Image.fromarray(mask(other)[:-1].astype(np.uint8)).save(other)
    out = tmp_path / "eval.json"
    outcome = command("evaluate", "--manifest", manifest, "--preds", preds, "--out", out)
    height, width = mask(phantoms / "masks" / other.name).shape
    assert outcome.code == 1
    assert "2 files skipped" in outcome.err
    assert f"skipped: {FIRST}.png: no mask named {FIRST} in {preds}" in outcome.err
    expected = f"expected the truth's size {width}x{height} px, found {width}x{height - 1} px"
    assert f"skipped: {other.name}: cannot score {other}: {expected}" in outcome.err
    content = evaluation(out)
    assert [case["image"] for case in content["cases"]] == ["phantom-7-0002"]
    assert [name for name, _ in content["failures"]] == [f"{FIRST}.png", other.name]
    assert list(content["truths"]) == ["phantom-7-0002"]


def test_a_baseline_of_another_size_is_resampled_with_a_note(
    command: Command, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    baseline = shutil.copytree(phantoms / "masks", tmp_path / "baseline")
    path = baseline / f"{FIRST}.png"
    doubled = np.repeat(np.repeat(mask(path), 2, axis=0), 2, axis=1)
    Image.fromarray(doubled.astype(np.uint8) * 255).save(path)
    folders = ("--preds", phantoms / "masks", "--baseline", baseline)
    out = tmp_path / "eval.json"
    outcome = command("evaluate", "--manifest", manifest, *folders, "--out", out)
    assert outcome.code == 0
    assert outcome.err.startswith(f"note: {path}: resampled from ")
    assert len(outcome.err.splitlines()) == 1
    assert evaluation(out)["baseline"]["dsc"]["mean"] == 1


def test_of_a_run_only_what_it_finished_is_scored(
    command: Command, finished: Run, manifest: Path, tmp_path: Path
) -> None:
    """A mask that an earlier, killed run left behind is no result of this one."""
    run = shutil.copytree(finished.folder, tmp_path / "run")
    table = run / "results.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:-1]), encoding="utf-8")
    out = tmp_path / "eval.json"
    outcome = command("evaluate", "--manifest", manifest, "--preds", run, "--out", out)
    assert outcome.code == 1
    assert "no mask named phantom-7-0002" in outcome.err
    assert len(evaluation(out)["cases"]) == 2


class TestUnusable:
    """Exit code 2, a message that says what to do, and no file."""

    def refuse(self, command: Command, tmp_path: Path, manifest: Path, preds: Path) -> str:
        out = tmp_path / "out" / "eval.json"
        outcome = command("evaluate", "--manifest", manifest, "--preds", preds, "--out", out)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert "Traceback" not in outcome.err
        assert not out.exists()
        return outcome.err

    def test_no_manifest(self, command: Command, phantoms: Path, tmp_path: Path) -> None:
        missing = tmp_path / "nothing.csv"
        message = self.refuse(command, tmp_path, missing, phantoms / "masks")
        assert f"cannot read manifest {missing}" in message

    def test_a_table_without_images(self, command: Command, phantoms: Path, tmp_path: Path) -> None:
        table = tmp_path / "table.csv"
        table.write_text("file,mask\na.png,b.png\n", encoding="utf-8")
        message = self.refuse(command, tmp_path, table, phantoms / "masks")
        assert "a column 'image'" in message
        assert "file, mask" in message

    def test_a_spacing_that_is_no_number(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        table = tmp_path / "table.csv"
        lines = manifest.read_text(encoding="utf-8").splitlines()
        cells = lines[1].split(",")
        cells[5] = "wide"
        table.write_text("\n".join([lines[0], ",".join(cells)]), encoding="utf-8")
        message = self.refuse(command, tmp_path, table, phantoms / "masks")
        assert f"{table}, line 2" in message
        assert "'wide'" in message

    def test_no_predictions(self, command: Command, manifest: Path, tmp_path: Path) -> None:
        (tmp_path / "preds").mkdir()
        assert "no images in" in self.refuse(command, tmp_path, manifest, tmp_path / "preds")

    def test_none_that_fits(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "preds").mkdir()
        shutil.copy(phantoms / "masks" / f"{FIRST}.png", tmp_path / "preds" / "x.png")
        message = self.refuse(command, tmp_path, manifest, tmp_path / "preds")
        assert "nothing to evaluate" in message
        assert f"no mask named {FIRST}" in message

    def test_an_image_that_comes_twice(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        rows = manifest.read_text(encoding="utf-8").splitlines()
        doubled = phantoms / "doubled.csv"
        doubled.write_text("\n".join([*rows, rows[-1]]), encoding="utf-8")
        try:
            message = self.refuse(command, tmp_path, doubled, phantoms / "masks")
        finally:
            doubled.unlink()
        assert "comes 2 times" in message

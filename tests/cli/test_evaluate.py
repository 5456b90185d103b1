"""`ultrarefiner evaluate`: numbers, pairs, and what cannot be scored."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Run
from PIL import Image

from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.data.writers import write_probability
from ultrarefiner.metrics import evaluate_mask, evaluate_probs

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
    images, headline = printed.splitlines()
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
    assert images == f"3 images of 3 patients; see {out}"
    assert headline.count("(0 missed, 0 false positive)") == 2, "beside each mean"


def test_without_baseline(command: Command, phantoms: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    preds = ("--preds", phantoms / "masks")
    outcome = command("evaluate", "--manifest", manifest, *preds, "--out", out)
    assert outcome.code == 0
    assert outcome.out.endswith("\nDSC 1.000 [1.000, 1.000] (0 missed, 0 false positive)\n")
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
    assert "(1 missed, 0 false positive)" in outcome.out
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


def test_files_of_one_name_are_named_not_called_missing(
    command: Command, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    preds = shutil.copytree(phantoms / "masks", tmp_path / "preds")
    np.save(preds / f"{FIRST}.npy", mask(preds / f"{FIRST}.png"))
    words = ("--manifest", manifest, "--preds", preds, "--out", tmp_path / "eval.json")
    outcome = command("evaluate", *words)
    assert outcome.code == 1
    assert f"names do not tell which mask in {preds} is that of {FIRST}" in outcome.err
    assert f"{preds / FIRST}.npy, {preds / FIRST}.png" in outcome.err
    assert "no mask named" not in outcome.err


def test_a_truth_that_is_not_plainly_a_mask_is_noted(
    command: Command, phantoms: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(phantoms, tmp_path / "data")
    truth = data / "masks" / f"{FIRST}.png"
    grey = np.where(mask(truth), np.linspace(100, 200, mask(truth).shape[1]), 0).astype(np.uint8)
    Image.fromarray(grey).save(truth)
    words = ("--manifest", data / "manifest.csv", "--preds", phantoms / "masks")
    outcome = command("evaluate", *words, "--out", tmp_path / "eval.json")
    assert outcome.code == 0
    (note,) = outcome.err.splitlines()
    assert note.startswith(f"note: {truth}: ")
    assert note.endswith("; lesion is what is above one half")

    twice = ("compare", phantoms / "masks", phantoms / "coarse", *words[:2], "--label", "255")
    err = command(*twice).err
    assert err.count(f"note: {truth}: label 255 does not occur") == 1, "though it is read twice"


def test_images_without_a_patient_are_noted(
    command: Command, phantoms: Path, manifest: Path, tmp_path: Path
) -> None:
    first, *others = (
        replace(record, image=record.image.absolute(), mask=record.mask and record.mask.absolute())
        for record in read_manifest(manifest)
    )
    path = tmp_path / "manifest.csv"
    write_manifest(path, (replace(first, patient=""), *others))
    words = ("--manifest", path, "--preds", phantoms / "masks", "--out", tmp_path / "eval.json")
    outcome = command("evaluate", *words)
    assert outcome.code == 0
    assert outcome.err == "note: patient: 1 of 3 images name none: each counts as a patient\n"


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


class TestSettings:
    """What a run of `evaluate` was told, it does and stores."""

    def evaluate(
        self, command: Command, manifest: Path, preds: Path, out: Path, *more: object
    ) -> dict:
        words = ("--manifest", manifest, "--preds", preds, "--out", out)
        outcome = command("evaluate", *words, *more)
        assert (outcome.code, outcome.err) == (0, "")
        return evaluation(out)

    def test_provenance(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "eval.json"
        content = self.evaluate(command, manifest, phantoms / "masks", out)
        assert content["settings"] == {
            "policy": "declared",
            "boundary": "pixel",
            "tolerance": 1.0,
            "tolerances": [],
            "label": None,
            "delta": 0.02,
            "margin": None,
            "seed": 0,
            "fold": None,
        }
        assert content["command"].startswith("ultrarefiner evaluate --manifest ")
        assert content["versions"].keys() == {"ultrarefiner", "numpy", "scipy"}
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        assert content["manifest_sha256"] == digest
        assert content["comparison"] is None
        assert content["probabilities"] == {}
        assert content["cases"][0]["strata"]["dataset"]
        before = out.read_bytes()
        assert self.evaluate(command, manifest, phantoms / "masks", out) == content
        assert out.read_bytes() == before

    def test_measures_as_it_is_told(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        more = ("--boundary", "surfel", "--tolerance", 0.5, "--tolerances", 1, 2)
        out = tmp_path / "eval.json"
        content = self.evaluate(command, manifest, phantoms / "coarse", out, *more)
        for case in content["cases"]:
            truth = mask(phantoms / "masks" / f"{case['image']}.png")
            coarse = mask(phantoms / "coarse" / f"{case['image']}.png")
            record = next(r for r in read_manifest(manifest) if r.image.stem == case["image"])
            expected = evaluate_mask(
                *(coarse, truth, record.spacing_mm),
                **{"boundary": "surfel", "tolerance": 0.5, "tolerances": (1.0, 2.0)},
            )
            assert case["nsd"] == expected.nsd
            assert case["nsd_at"] == [list(pair) for pair in expected.nsd_at]
            assert case["hd95"] == expected.hd95

    def test_a_comparison_with_the_baseline_is_stored(
        self, command: Command, finished: Run, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        more = ("--baseline", phantoms / "coarse", "--delta", 0.1, "--margin", 0.2, "--seed", 3)
        out = tmp_path / "eval.json"
        content = self.evaluate(command, manifest, finished.folder, out, *more)
        comparison = content["comparison"]
        (pair,) = comparison["pairs"]
        assert (pair["method"], pair["reference"]) == ("refined", "coarse")
        test = pair["tests"]["dsc"]
        assert test["difference"] == content["paired"]["differences"]["dsc"]
        assert test["equivalence"]["margin"] == 0.2
        assert content["paired"]["delta"] == comparison["delta"] == 0.1
        assert comparison["seed"] == 3

    def test_ignore_leaves_an_undefined_value_out(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        preds = self.with_a_miss(phantoms, tmp_path)
        out = tmp_path / "eval.json"
        outcome = command(
            *("evaluate", "--manifest", manifest, "--preds", preds, "--out", out),
            *("--policy", "ignore"),
        )
        assert outcome.code == 0
        content = evaluation(out)
        assert content["cases"][0]["hd95"] is None
        assert content["undefined"]["hd95"] == 1
        assert content["summary"]["hd95"]["mean"] == 0.0
        assert "undefined and left out of their means: " in outcome.out
        assert "hd95 of 1" in outcome.out

    def test_strict_stops_at_an_undefined_value_and_names_the_file(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        preds = self.with_a_miss(phantoms, tmp_path)
        out = tmp_path / "eval.json"
        outcome = command(
            *("evaluate", "--manifest", manifest, "--preds", preds, "--out", out),
            *("--policy", "strict"),
        )
        assert outcome.code == 2
        truth = phantoms / "masks" / f"{FIRST}.png"
        assert f"{preds / f'{FIRST}.png'} against {truth}: undefined" in outcome.err
        assert "no predicted pixel" in outcome.err
        assert not out.exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--policy", "kind"), "policy"),
            (("--boundary", "line"), "boundary"),
            (("--tolerance", "-1"), "tolerance: expected a number >= 0"),
            (("--tolerances", "1", "-2"), "tolerance: expected a number >= 0"),
            (("--delta", "1"), "delta is out of range"),
            (("--margin", "0"), "margin of dsc: expected above 0"),
            (("--label", "0"), "label: expected 1 or more"),
        ],
    )
    def test_settings_out_of_range(
        self,
        command: Command,
        phantoms: Path,
        manifest: Path,
        tmp_path: Path,
        words: tuple[str, ...],
        message: str,
    ) -> None:
        out = tmp_path / "eval.json"
        paths = ("--manifest", manifest, "--preds", phantoms / "masks", "--out", out)
        outcome = command("evaluate", *paths, *words)
        assert outcome.code == 2
        assert message in outcome.err
        assert not out.exists()

    def test_a_label_of_the_truth(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        (record, *_) = read_manifest(manifest)
        labels = np.where(mask(record.mask), 2, 1).astype(np.uint8)
        labels[0, 0] = 0
        Image.fromarray(labels).save(tmp_path / "truth.png")
        write_manifest(tmp_path / "m.csv", (replace(record, mask=tmp_path / "truth.png"),))
        out = tmp_path / "eval.json"
        more = ("--label", 2)
        content = self.evaluate(command, tmp_path / "m.csv", phantoms / "masks", out, *more)
        assert content["summary"]["dsc"]["mean"] == 1.0

    @staticmethod
    def with_a_miss(phantoms: Path, tmp_path: Path) -> Path:
        preds = shutil.copytree(phantoms / "masks", tmp_path / "preds")
        path = preds / f"{FIRST}.png"
        Image.fromarray(np.zeros_like(mask(path), np.uint8)).save(path)
        return preds


class TestProbabilities:
    """Where a run kept its probabilities, it is said how far they can be trusted."""

    def maps(self, phantoms: Path) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {
            path.stem: np.clip(0.1 + 0.7 * mask(path) + rng.normal(0, 0.05, mask(path).shape), 0, 1)
            for path in sorted((phantoms / "masks").glob("*.png"))
        }

    def expected(self, maps: dict[str, np.ndarray], phantoms: Path) -> tuple[float, float]:
        """Return mean Brier score and calibration error of all pixels near lesions."""
        scores = [
            evaluate_probs(probs.astype(np.float32), mask(phantoms / "masks" / f"{stem}.png"))
            for stem, probs in maps.items()
        ]
        table = np.array([score.bins for score in scores]).sum(axis=0)
        ece = np.abs(table[:, 1] - table[:, 2]).sum() / table[:, 0].sum()
        return float(np.mean([score.brier for score in scores])), float(ece)

    def evaluate(self, command: Command, manifest: Path, out: Path, *folders: object) -> dict:
        outcome = command("evaluate", "--manifest", manifest, *folders, "--out", out)
        assert outcome.code == 0
        return evaluation(out)["probabilities"]

    def test_of_a_run(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        run, maps = tmp_path / "run", self.maps(phantoms)
        shutil.copytree(phantoms / "masks", run / "masks")
        for stem, probs in maps.items():
            write_probability(run / "probabilities" / f"{stem}.npy", probs)
            write_probability(run / "probabilities" / f"{stem}.png", probs)
            write_probability(run / "coarse_probabilities" / f"{stem}.png", probs * 0.02)
        found = self.evaluate(command, manifest, tmp_path / "eval.json", "--preds", run)
        brier, ece = self.expected(maps, phantoms)
        assert found["refined"]["brier"]["mean"] == pytest.approx(brier)
        assert found["refined"]["ece"] == pytest.approx(ece)
        assert found["refined"]["num_images"] == 3
        filled = [entry for entry in found["refined"]["bins"] if entry["count"]]
        assert all(e["low"] <= e["confidence"] <= e["high"] for e in filled)
        # A few low grey levels are probabilities here, not labels of a label map.
        assert 0 < found["coarse"]["brier"]["mean"] < 1
        assert max(e["confidence"] for e in found["coarse"]["bins"] if e["count"]) < 0.03

    def test_of_a_soft_baseline(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        maps = self.maps(phantoms)
        for stem, probs in maps.items():
            write_probability(tmp_path / "soft" / f"{stem}.npy", probs)
        folders = ("--preds", phantoms / "masks", "--baseline", tmp_path / "soft")
        found = self.evaluate(command, manifest, tmp_path / "eval.json", *folders)
        assert found.keys() == {"coarse"}
        brier, ece = self.expected(maps, phantoms)
        assert found["coarse"]["brier"]["mean"] == pytest.approx(brier)
        assert found["coarse"]["ece"] == pytest.approx(ece)

    def test_what_lacks_or_does_not_fit_is_named(
        self, command: Command, phantoms: Path, manifest: Path, tmp_path: Path
    ) -> None:
        run, maps = tmp_path / "run", self.maps(phantoms)
        shutil.copytree(phantoms / "masks", run / "masks")
        first, second, _ = maps
        write_probability(run / "probabilities" / f"{first}.npy", maps[first])
        write_probability(run / "probabilities" / f"{second}.npy", maps[second][1:])
        out = tmp_path / "eval.json"
        outcome = command("evaluate", "--manifest", manifest, "--preds", run, "--out", out)
        assert outcome.code == 0
        assert "note: refined: 1 of 3 images have probabilities" in outcome.err
        assert f"note: {run / 'probabilities' / second}.npy: " in outcome.err
        assert evaluation(out)["probabilities"]["refined"]["num_images"] == 1


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

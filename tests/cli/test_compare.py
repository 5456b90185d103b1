"""`ultrarefiner compare`: evaluations, runs and masks, tables, errors that name the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Outcome
from PIL import Image

from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.metrics import Case, compare_methods


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small phantoms, and what an older method made of them in ``shifted``."""
    folder = tmp_path_factory.mktemp("comparison")
    config = PhantomConfig(height_px=(90, 100), width_px=(90, 110), relative_radius=(0.2, 0.25))
    write_phantoms(8, 3, folder, config=config)
    for path in (folder / "masks").glob("*.png"):
        with Image.open(path) as image:
            shifted = np.roll(np.asarray(image), 4, axis=1)
        (folder / "shifted").mkdir(exist_ok=True)
        Image.fromarray(shifted).save(folder / "shifted" / path.name)
    return folder


@pytest.fixture
def evaluate(command: Command, data: Path, tmp_path: Path):
    def run(masks: str, *more: object, name: str = "") -> Path:
        out = tmp_path / (name or masks) / "eval.json"
        words = ("--manifest", data / "manifest.csv", "--preds", data / masks, "--out", out)
        assert command("evaluate", *words, *more).code == 0
        return out

    return run


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def cases(path: Path) -> list[Case]:
    return [Case.from_json(row) for row in read(path)["cases"]]


def refused(outcome: Outcome) -> str:
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    return outcome.err


class TestSources:
    def test_evaluations_and_folders_that_hold_one(
        self, command: Command, evaluate, tmp_path: Path
    ) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        out = tmp_path / "compare.json"
        outcome = command("compare", coarse, shifted.parent, "--out", out)
        assert (outcome.code, outcome.err) == (0, "")
        content = read(out)
        expected = compare_methods({"coarse": cases(coarse), "shifted": cases(shifted)})
        assert content.items() >= expected.to_json().items()
        digest = hashlib.sha256(shifted.read_bytes()).hexdigest()
        assert content["sources"][1] == {
            "name": "shifted",
            "path": str(shifted),
            "sha256": digest,
        }
        assert content["command"] == f"ultrarefiner compare {coarse} {shifted.parent} --out {out}"
        assert content["manifest_sha256"] == read(coarse)["manifest_sha256"]
        assert content["versions"].keys() == {"ultrarefiner", "numpy", "scipy"}
        assert content["settings"]["policy"] == "declared"

    def test_masks_are_scored_as_evaluate_does(
        self, command: Command, evaluate, data: Path, tmp_path: Path
    ) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        results = []
        for number, source in enumerate((shifted, data / "shifted")):
            out = tmp_path / f"{number}.json"
            truth = ("--manifest", data / "manifest.csv") if number else ()
            assert command("compare", coarse, source, *truth, "--out", out).code == 0
            results.append(read(out))
        for key in ("summaries", "pairs", "strata", "manifest_sha256", "settings"):
            assert results[0][key] == results[1][key]

    def test_the_same_input_gives_the_same_bytes(
        self, command: Command, evaluate, tmp_path: Path
    ) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        out = tmp_path / "compare.json"
        contents = []
        for _ in range(2):
            assert command("compare", coarse, shifted, "--out", out).code == 0
            contents.append(out.read_bytes())
        assert contents[0] == contents[1]

    def test_names_and_three_methods(self, command: Command, evaluate, data: Path) -> None:
        coarse = evaluate("coarse")
        words = ("--names", "A", "B", "C", "--metrics", "dsc", "--manifest", data / "manifest.csv")
        printed = command("compare", coarse, data / "shifted", data / "masks", *words).out
        assert [line.split(":")[0] for line in printed.splitlines() if "harmed" in line] == [
            "B - A",
            "C - A",
            "C - B",
        ]

    def test_a_mask_that_is_missing_is_named_and_the_common_rest_compared(
        self, command: Command, evaluate, data: Path, tmp_path: Path
    ) -> None:
        some = shutil.copytree(data / "shifted", tmp_path / "some")
        lost = sorted(some.iterdir())[0]
        lost.unlink()
        words = ("compare", evaluate("coarse"), some, "--manifest", data / "manifest.csv")
        message = refused(command(*words))
        assert f"{some} lacks 1 of 8 images" in message
        assert f"no {lost.stem}." in message
        assert "--common" in message
        out = tmp_path / "compare.json"
        outcome = command(*words, "--common", "--out", out)
        assert outcome.code == 1
        assert f"no mask named {lost.stem}" in outcome.err
        assert "note: common: 1 of 8 images are left out" in outcome.err
        assert read(out)["num_left_out"] == 1
        assert outcome.out.startswith("7 images of 7 patients")

    def test_a_truth_that_cannot_be_read_is_one_failure(
        self, command: Command, data: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(data, tmp_path / "copy")
        broken = sorted((copy / "masks").iterdir())[0]
        broken.write_bytes(b"")
        words = ("compare", copy / "coarse", copy / "shifted", "--manifest", copy / "manifest.csv")
        outcome = command(*words)
        assert outcome.code == 1
        assert outcome.err.count(str(broken)) == 1
        assert "1 file skipped" in outcome.err

    def test_other_manifests_of_the_same_truths_are_noted(
        self, command: Command, evaluate, tmp_path: Path
    ) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        shifted.write_text(json.dumps(read(shifted) | {"manifest_sha256": "0" * 64}))
        out = tmp_path / "compare.json"
        outcome = command("compare", coarse, shifted, "--out", out)
        assert outcome.code == 0
        assert outcome.err.startswith("note: manifest: ")
        assert read(out)["manifest_sha256"] is None


class TestTables:
    @pytest.fixture
    def printed(self, command: Command, evaluate, data: Path, tmp_path: Path) -> tuple[str, dict]:
        preds = shutil.copytree(data / "shifted", tmp_path / "missed")
        first = sorted(preds.iterdir())[0]
        with Image.open(first) as image:
            Image.fromarray(np.zeros_like(np.asarray(image))).save(first)
        out = tmp_path / "compare.json"
        words = ("--margin", "{dsc: 0.02, hd95: 1}", "--effect", 0.01, "--out", out)
        words += ("--manifest", data / "manifest.csv")
        outcome = command("compare", data / "coarse", preds, *words)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out, read(out)

    def test_counts_stand_below_the_means(self, printed: tuple[str, dict]) -> None:
        text, content = printed
        (line,) = (line for line in text.splitlines() if line.startswith("empty masks"))
        assert line.split("  ", 1)[1].split("   ")[-1].strip().endswith("false positive")
        assert "0 missed, 0 false positive" in line
        assert "1 missed, 0 false positive" in line
        assert content["summaries"]["missed"]["counts"]["missed"] == 1

    def test_numbers_are_those_of_the_file(self, printed: tuple[str, dict]) -> None:
        text, content = printed
        test = content["pairs"][0]["tests"]["dsc"]
        found = test["difference"]
        assert f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" in text
        assert f"{test['p_permutation']:.3f}" in text
        assert content["margin"] == {"dsc": 0.02, "hd95": 1.0}
        assert text.count("within 0.02; 90 % [") == text.count("within 1; 90 % [") == 1
        assert "a study that finds +0.0100 DSC" in text

    def test_strata(self, printed: tuple[str, dict]) -> None:
        text, content = printed
        for level, part in content["strata"]["size"].items():
            (line,) = (row for row in text.splitlines() if row.startswith(f"size: {level} "))
            assert line.split()[2:4] == [str(part["num_images"]), str(part["num_patients"])]
            assert f"  {part['counts']['missed']['missed']} + 0  " in line
        assert sum(
            part["counts"]["missed"]["missed"] for part in content["strata"]["size"].values()
        )
        low, high = content["size_cuts"]
        assert f"size: cut at {low:g} and {high:g} mm²" in text


class TestRefused:
    def test_settings_that_differ(self, command: Command, evaluate) -> None:
        coarse = evaluate("coarse")
        shifted = evaluate("shifted", "--tolerance", 2)
        message = refused(command("compare", coarse, shifted))
        assert f"was measured differently for {coarse} and {shifted}" in message
        assert "tolerance 1 mm" in message
        assert "tolerance 2 mm" in message

    def test_patients_that_differ(self, command: Command, evaluate) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        content = read(shifted)
        content["cases"][2]["patient"] = "someone else"
        shifted.write_text(json.dumps(content), encoding="utf-8")
        message = refused(command("compare", coarse, shifted))
        assert content["cases"][2]["image"] in message
        assert "found patient someone else" in message

    def test_masks_without_truth(self, command: Command, evaluate, data: Path) -> None:
        message = refused(command("compare", evaluate("coarse"), data / "shifted"))
        assert f"{data / 'shifted'} is not evaluated yet" in message
        assert "--manifest" in message

    def test_a_truth_that_nothing_is_measured_against(
        self, command: Command, evaluate, data: Path
    ) -> None:
        two = (evaluate("coarse"), evaluate("shifted"))
        message = refused(command("compare", *two, "--manifest", data / "manifest.csv"))
        assert "expected a folder of masks to measure" in message
        assert "expected --manifest beside it" in refused(
            command("compare", *two, "--policy", "ignore")
        )

    def test_names(self, command: Command, evaluate) -> None:
        coarse = evaluate("coarse")
        assert "found 'coarse' 2 times" in refused(command("compare", coarse, coarse))
        assert "two or more, found 1" in refused(command("compare", coarse))
        two = (coarse, evaluate("shifted"), "--names", "a")
        assert "names: expected 2, one per method, found 1" in refused(command("compare", *two))

    @pytest.mark.parametrize("content", ["{", "[]", '{"cases": 3}', '{"summary": {}}', "nul\0"])
    def test_what_is_no_evaluation(
        self, command: Command, evaluate, tmp_path: Path, content: str
    ) -> None:
        path = tmp_path / "other.json"
        path.write_text(content, encoding="utf-8")
        message = refused(command("compare", evaluate("coarse"), path))
        assert f"cannot compare {path}: expected a file written by 'ultrarefiner eval" in message

    def test_what_is_not_there(self, command: Command, evaluate, tmp_path: Path) -> None:
        path = tmp_path / "nothing.json"
        assert f"cannot compare {path}" in refused(command("compare", evaluate("coarse"), path))

    def test_a_row_that_is_none(self, command: Command, evaluate) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        content = read(shifted)
        content["cases"][0]["dsc"] = "high"
        shifted.write_text(json.dumps(content), encoding="utf-8")
        message = refused(command("compare", coarse, shifted))
        assert f"{shifted}: the row of {content['cases'][0]['image']} is not of" in message

    def test_no_image_in_common(self, command: Command, evaluate) -> None:
        coarse, shifted = evaluate("coarse"), evaluate("shifted")
        content = read(shifted)
        for row in content["cases"]:
            row["image"] += "x"
        shifted.write_text(json.dumps(content), encoding="utf-8")
        message = refused(command("compare", coarse, shifted, "--common"))
        assert "no image in common" in message

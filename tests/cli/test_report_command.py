"""`ultrarefiner report` on real runs, and on what is none."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import Command, Run

from fakes.results import comparison, write_training


class Text(HTMLParser):
    """The words of a page, without style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.inside = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.words += data.split()


def words(path: Path) -> str:
    parser = Text()
    parser.feed(path.read_text(encoding="utf-8"))
    return " ".join(parser.words)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture
def evaluation(command: Command, finished: Run, phantoms: Path, tmp_path: Path) -> Path:
    out = tmp_path / "eval.json"
    folders = ("--preds", finished.folder, "--baseline", phantoms / "coarse")
    manifest = phantoms / "manifest.csv"
    assert command("evaluate", "--manifest", manifest, *folders, "--out", out).code == 0
    return out


def test_without_truth_it_is_the_page_of_refine(
    command: Command, run: Path, finished: Run, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "report.html"
    outcome = command("report", run, "--out", out)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"see {out}\n", "")
    assert out.read_bytes() == (finished.folder / "report.html").read_bytes()
    assert "Refined DSC" not in words(out)


def test_with_truth_it_shows_the_gain(
    command: Command, run: Path, evaluation: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    assert command("report", run, "--evaluation", evaluation, "--out", out).code == 0
    content, text = json.loads(evaluation.read_text(encoding="utf-8")), words(out)
    assert f"Coarse DSC {content['baseline']['dsc']['mean']:.3f}" in text
    assert f"Refined DSC {content['summary']['dsc']['mean']:.3f}" in text
    assert "cannot be shown" not in text
    assert "ultrarefiner refine --images" in text


def test_an_evaluation_inside_the_run_is_found(
    command: Command, run: Path, evaluation: Path, tmp_path: Path
) -> None:
    shutil.copy(evaluation, run / "eval.json")
    named, found = tmp_path / "named.html", tmp_path / "found.html"
    assert command("report", run, "--evaluation", evaluation, "--out", named).code == 0
    assert command("report", run, "--out", found).code == 0
    assert found.read_bytes() == named.read_bytes()


def test_images_that_are_gone_are_named(
    command: Command, run: Path, phantoms: Path, tmp_path: Path
) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["cases"][0]["image"] = str(tmp_path / "moved.png")
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    out = tmp_path / "report.html"
    assert command("report", run, "--out", out).code == 0
    assert "phantom-7-0000 cannot be shown" in words(out)
    assert "phantom-7-0001 cannot be shown" not in words(out)


def test_title_and_several_kinds_of_sources(
    command: Command, run: Path, evaluation: Path, tmp_path: Path
) -> None:
    shutil.copy(evaluation, run / "eval.json")
    write_training(tmp_path / "net" / "fold-1")
    write_training(tmp_path / "net" / "fold-2", dsc=(0.4, 0.6))
    out = tmp_path / "report.html"
    assert command("report", run, tmp_path / "net", "--title", "All of it", "--out", out).code == 0
    text = words(out)
    assert text.startswith("All of it")
    assert "Training net/fold-1" in text
    assert "net/fold-2 0.600 2 of 2" in text
    assert f"Run {run.name}" in text


def test_an_evaluation_alone_is_reported_without_images(
    command: Command, evaluation: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    assert command("report", evaluation, "--out", out).code == 0
    text = words(out)
    assert "Evaluation of 3 masks" in text
    assert "Coarse DSC" in text
    assert "phantom-7-0001" in text
    assert "cannot be shown" not in text
    assert "Accepted" not in text


def test_a_run_without_evaluation_does_not_hide_one_that_has_it(
    command: Command, run: Path, evaluation: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(run, tmp_path / "bare")
    record = json.loads((bare / "run.json").read_text(encoding="utf-8"))
    record["versions"] = {"of-bare": "1"}
    (bare / "run.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.copy(evaluation, run / "eval.json")
    out, paper = tmp_path / "report.html", tmp_path / "paper"
    assert command("report", bare, run, "--paper", paper, "--out", out).code == 0
    assert "Refined DSC" in words(out)
    assert "bare has no eval.json, so that only its provenance is shown" in words(out)
    assert "of-bare" not in (paper / "checklist.md").read_text(encoding="utf-8")


def test_an_evaluation_that_may_not_be_of_the_run_is_not_shown_silently(
    command: Command, run: Path, evaluation: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    assert command("report", run, evaluation, "--out", out).code == 0
    assert f"No evaluation is known to be of {run.name}; name its file by --evaluation" in words(
        out
    )


def test_a_policy_that_leaves_every_dsc_undefined(
    command: Command, evaluation: Path, tmp_path: Path
) -> None:
    content = json.loads(evaluation.read_text(encoding="utf-8"))
    content |= {"paired": None, "baseline": None, "baseline_cases": [], "comparison": None}
    del content["summary"]["dsc"]
    for case in content["cases"]:
        case["dsc"] = None
    evaluation.write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "report.html"
    assert command("report", evaluation, "--out", out).code == 0
    assert "The DSC is undefined for every one of 3 images" in words(out)


def test_a_comparison_alone(command: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "compare.json", tmp_path / "report.html"
    path.write_text(json.dumps(comparison("first", "second")), encoding="utf-8")
    assert command("report", path, "--out", out).code == 0
    text = words(out)
    assert "Comparison of coarse, first, second" in text
    assert "second against coarse" in text


def test_a_training_alone(command: Command, tmp_path: Path) -> None:
    folder, out = write_training(tmp_path / "net" / "all"), tmp_path / "report.html"
    assert command("report", folder, "--out", out).code == 0
    assert "best validation DSC, epoch 2 of 3" in words(out)


class TestUnusable:
    """Exit code 2, the file named, no page written."""

    def refuse(self, command: Command, tmp_path: Path, *arguments: object) -> str:
        out = tmp_path / "report.html"
        outcome = command("report", *arguments, "--out", out)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert "Traceback" not in outcome.err
        assert not out.exists()
        return outcome.err

    def test_a_folder_that_is_no_run(
        self, command: Command, phantoms: Path, tmp_path: Path
    ) -> None:
        message = self.refuse(command, tmp_path, phantoms)
        assert f"nothing to report in {phantoms}" in message
        assert "run.json" in message
        assert "ultrarefiner refine" in message

    def test_a_folder_that_is_missing(self, command: Command, tmp_path: Path) -> None:
        assert "No such file" in self.refuse(command, tmp_path, tmp_path / "nowhere")

    @pytest.mark.parametrize("content", ["{}", "[]", "not json", '"text"', '{"cases": []}'])
    def test_a_record_that_is_none(
        self, command: Command, run: Path, tmp_path: Path, content: str
    ) -> None:
        (run / "run.json").write_text(content, encoding="utf-8")
        assert str(run / "run.json") in self.refuse(command, tmp_path, run)

    @pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "image\nx\n", "\x00"])
    def test_a_table_that_is_none(
        self, command: Command, run: Path, tmp_path: Path, content: str | None
    ) -> None:
        (run / "results.csv").unlink()
        if content is not None:
            (run / "results.csv").write_text(content, encoding="utf-8")
        assert str(run / "results.csv") in self.refuse(command, tmp_path, run)

    def test_an_evaluation_that_is_none(self, command: Command, run: Path, tmp_path: Path) -> None:
        other = run / "run.json"
        message = self.refuse(command, tmp_path, run, "--evaluation", other)
        assert f"cannot use {other}" in message
        assert "ultrarefiner evaluate" in message
        missing = tmp_path / "nothing.json"
        assert str(missing) in self.refuse(command, tmp_path, run, "--evaluation", missing)

    def test_no_place_to_write(self, command: Command, run: Path, tmp_path: Path) -> None:
        outcome = command("report", run, "--out", run / "run.json" / "report.html")
        assert outcome.code == 2
        assert "cannot write" in outcome.err
        json.loads((run / "run.json").read_text(encoding="utf-8"))

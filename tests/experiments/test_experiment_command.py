"""The command: variants that stand on a base, tables on the screen and again from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from busbra_phantoms import write_checkpoint, write_phantoms

from ultrarefiner.cli import main
from ultrarefiner.experiments.partial import partial_path
from ultrarefiner.experiments.tables import markdown

_CASES = (("0001-l", 1, "1"), ("0002-l", 2, "1"))


def _recipe(folder: Path) -> dict[str, Any]:
    return {
        "study": "ablation",
        "folds": ["1"],
        "num_inner_folds": 2,
        "sources": {
            "rough": {"generator": {"shift_std": 0.2}, "seed": 5},
            "network": {"checkpoints": {"1": write_checkpoint(folder / "c.safetensors")}},
        },
        "base": {
            "prompts": {"jitter": 0.0},
            "gate": {"kind": "constant", "minimum": 0.0, "maximum": 0.5},
        },
        "groups": {
            "gate": {
                "weak": {"gate": {"maximum": 0.1}},
                "none": {"gate": {"kind": "none"}},
            }
        },
    }


def _run(folder: Path, recipe: dict[str, Any]) -> int:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    data, out = str(folder / "BUSBRA"), str(folder / "out.json")
    return main(["experiment", str(path), "--data", data, "--out", out, "--device", "cpu"])


def test_a_recipe_is_run_stored_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "BUSBRA", _CASES)
    assert _run(tmp_path, _recipe(tmp_path)) == 0
    stored = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert capsys.readouterr().out.strip() != ""
    assert not partial_path(tmp_path / "out.json").exists()

    sources, groups = stored["experiment"]["sources"], stored["experiment"]["groups"]
    assert sources["rough"]["generator"]["shift_std"] == 0.2
    assert sources["network"].keys() == {"checkpoints", "flips"}
    weak, none = groups["gate"]["weak"], groups["gate"]["none"]
    assert weak["prompts"]["jitter"] == none["prompts"]["jitter"] == 0.0
    assert (weak["gate"]["kind"], weak["gate"]["maximum"]) == ("constant", 0.1)
    assert (none["gate"]["kind"], none["gate"]["maximum"]) == ("none", 0.5)
    assert stored["experiment"]["base"]["gate"]["maximum"] == 0.5

    assert main(["experiment", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.strip() == markdown(stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": {"gate": {"x": {"gate": {"colour": "red"}}}}}, "colour"),
        ({"groups": {"gate": {"x": {"gate": {"maximum": 2.0}}}}}, "gate range"),
        ({"groups": "gate"}, "groups"),
        ({"sources": {"x": {"checkpoint": "a"}}}, "checkpoint"),
        ({"sources": {}}, "at least one"),
    ],
)
def test_a_recipe_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    assert _run(tmp_path, _recipe(tmp_path) | change) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: cannot use ")
    assert words in err
    assert len(err.splitlines()) == 1


def test_what_is_no_result_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"summary": 1}', encoding="utf-8")
    assert main(["experiment", str(path)]) == 2
    assert f"cannot print {path}: expected the result of an experiment" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--data", "--out"])
def test_a_recipe_needs_data_and_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    given = {"--data": str(tmp_path), "--out": str(tmp_path / "out.json")}
    del given[missing]
    assert main(["experiment", "recipe.yaml", *next(iter(given.items()))]) == 2
    assert f"expected {missing}" in capsys.readouterr().err

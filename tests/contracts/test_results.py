"""The tables in README and docs say what the stored results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ultrarefiner.experiments.tables import (
    level_row,
    markdown,
    pair_row,
    stratum_row,
    variant_row,
)

_ROOT = Path(__file__).parents[2]
_RESULTS = sorted((_ROOT / "docs" / "results").glob("*.json"))
_COMPARISONS = sorted((_ROOT / "docs" / "results" / "comparisons").glob("*.json"))
_FROZEN = [path for path in _COMPARISONS if not path.stem.endswith("_trained")]


_TRAININGS = sorted((_ROOT / "docs" / "results" / "training").glob("*.json"))


def test_there_are_results() -> None:
    assert len(_RESULTS) >= 3


@pytest.mark.parametrize("path", _RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_what_was_stored(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    if "sources" in result:
        page = (_ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")
        assert [line for line in markdown(result).splitlines() if line not in page] == []
        return
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    variants = result["variants"]
    assert [name for name, found in variants.items() if variant_row(name, found) not in page] == []
    assert f"coarse DSC {result['coarse']['dsc']['mean']:.3f}" in page


def test_the_page_shows_the_strata() -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads((_ROOT / "docs" / "results" / "busbra_unet_fold3.json").read_text())
    strata = result["strata"]["size"] | result["strata"]["label"]
    assert len(strata) == 5
    assert [name for name, found in strata.items() if stratum_row(name, found) not in page] == []


@pytest.mark.parametrize("path", _COMPARISONS, ids=lambda path: path.stem)
def test_the_page_shows_the_comparisons(path: Path) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    last = [pair for pair in result["pairs"] if pair["method"] == result["methods"][-1]]
    rows = [pair_row(pair, metric) for pair in last for metric in result["metrics"]]
    assert len(rows) >= 4
    assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize("path", _FROZEN, ids=lambda path: path.stem)
def test_comparisons_and_studies_say_the_same(path: Path) -> None:
    (pair,) = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    study = json.loads((_ROOT / "docs" / "results" / path.name).read_text(encoding="utf-8"))
    gain = study["variants"]["default"]["paired"]["differences"]["dsc"]
    assert gain["mean"] == pytest.approx(pair["tests"]["dsc"]["difference"]["mean"], abs=5e-4)


@pytest.mark.parametrize("name", ["busbra_rough", "busbra_unet_fold3"])
def test_the_page_shows_the_strata_of_comparisons(name: str) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    path = _ROOT / "docs" / "results" / "comparisons" / f"{name}.json"
    strata = json.loads(path.read_text(encoding="utf-8"))["strata"]
    rows = [
        level_row(kind, level, stratum, "refined")
        for kind, levels in strata.items()
        for level, stratum in levels.items()
    ]
    assert len(rows) == 13
    assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize("path", _RESULTS, ids=lambda path: path.stem)
def test_a_result_says_how_it_was_made(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["command"].startswith("ultrarefiner experiment recipes/")
    assert (_ROOT / result["command"].split()[2]).is_file()
    assert result["versions"].keys() >= {"ultrarefiner", "torch", "numpy"}
    assert len(result["data_sha256"]) == 64
    assert len(result["cases"]) == result["num_images"]


def test_the_readme_shows_fold_three() -> None:
    readme = (_ROOT / "README.md").read_text(encoding="utf-8")
    result = json.loads((_ROOT / "docs" / "results" / "busbra_rough.json").read_text())
    line = variant_row("default", result["variants"]["default"])
    assert line.replace("default", "UltraRefiner") in readme


def dsc_cells(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return the mean DSC before and after, and the gain with its interval."""
    gain = found["paired"]["differences"]["dsc"]
    return (
        f"{found['baseline']['dsc']['mean']:.3f}",
        f"{found['summary']['dsc']['mean']:.3f}",
        f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
    )


@pytest.mark.parametrize("path", _TRAININGS, ids=lambda path: path.stem)
def test_the_page_shows_what_trainings_came_to(path: Path) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    for evaluation in result["evaluations"].values():
        paired = evaluation["paired"]
        cells = (
            *dsc_cells(evaluation),
            f"{100 * paired['harmed']['share']:.1f} %",
            f"{100 * paired['improved']['share']:.0f} %",
        )
        assert f"| {' | '.join(cells)} |" in page
        assert len(evaluation["cases"]) == evaluation["num_images"]


@pytest.mark.parametrize("path", _TRAININGS, ids=lambda path: path.stem)
def test_a_training_says_how_it_was_made(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert all(command.startswith("ultrarefiner ") for command in result["commands"])
    words = result["commands"][0].split()
    assert words[1] == "train"
    assert (_ROOT / words[2]).is_file()
    names = [phase["name"] for phase in result["training"]["phases"]]
    phases = [name for name in names if "inner" not in name]
    assert phases == ["phase 1", "phase 2", "phase 3"][: len(phases)]
    assert len(phases) >= 2
    for phase in result["training"]["phases"]:
        assert phase["curves"]["val_dsc"]
        assert len(phase["split_sha256"]) == 64
        assert phase["versions"].keys() >= {"ultrarefiner", "torch", "numpy"}


@pytest.mark.parametrize(
    "name",
    [
        "busbra_rough",
        "busbra_8",
        "busbra_own",
        "busbra_tail_rough",
        "busbra_tail_own",
        "busbra_8_tail",
    ],
)
def test_the_page_shows_what_calibrations_came_to(name: str) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    path = _ROOT / "docs" / "results" / "calibration" / f"{name}.json"
    for found in json.loads(path.read_text(encoding="utf-8"))["fold 3"].values():
        harmed = found["paired"]["harmed"]
        low, high = 100 * harmed["low"], 100 * harmed["high"]
        cells = (
            *dsc_cells(found),
            f"{100 * harmed['share']:.1f} % [{low:.1f}, {high:.1f}]",
            f"{100 * found['accepted_share']:.0f} %",
        )
        assert f"| {' | '.join(cells)} |" in page
        assert len(found["cases"]) == found["num_images"]


@pytest.mark.parametrize("name", ["rough"])
def test_the_page_shows_what_other_draws_came_to(name: str) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    path = _ROOT / "docs" / "results" / "calibration" / f"draws_{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    before, draws = found["test_without_rule"], found["draws"]
    kept = [draw["test"]["gain"] / before["gain"] for draw in draws]
    harmed = [draw["test"]["harmed_share"] for draw in draws]
    assert max(harmed) <= found["settings"]["alpha"]
    assert f"80 % or more in {sum(share >= 0.8 for share in kept)} of {len(draws)}" in page
    assert f"{100 * sum(kept) / len(kept):.0f} % of the gain kept on average" in page
    assert f"harmed {100 * sum(harmed) / len(harmed):.1f} % on average, " in page
    assert f"{100 * max(harmed):.1f} % at most" in page


@pytest.mark.parametrize("name", ["rough", "8"])
def test_the_first_draw_is_the_calibration_itself(name: str) -> None:
    folder = _ROOT / "docs" / "results" / "calibration"
    drawn = json.loads((folder / f"draws_{name}.json").read_text(encoding="utf-8"))
    made = json.loads((folder / f"busbra_{name}.json").read_text(encoding="utf-8"))["calibration"]
    first = drawn["draws"][0]
    assert drawn["binding"] == made["rule"]["binding"]
    assert first["seed"] == made["seed"]
    assert first["threshold"] == pytest.approx(made["rule"]["threshold"], abs=1e-5)
    assert first["calibration"] == pytest.approx(
        made["after"] | {"kept_gain": made["kept_gain"]}, abs=1e-5
    )

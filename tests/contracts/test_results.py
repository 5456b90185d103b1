"""The tables in README and docs say what the stored results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_RESULTS = sorted((_ROOT / "docs" / "results").glob("*.json"))


def row(name: str, variant: dict[str, Any]) -> str:
    """Return the line of a table that shows one variant."""
    gain, paired = variant["paired"]["differences"]["dsc"], variant["paired"]
    return (
        f"| {name} | {variant['dsc']['mean']:.3f} "
        f"| {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] "
        f"| {100 * paired['harmed']['share']:.1f} % | {100 * paired['improved']['share']:.0f} % |"
    )


def test_there_are_results() -> None:
    assert len(_RESULTS) >= 3


@pytest.mark.parametrize("path", _RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_what_was_stored(path: Path) -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    missing = [name for name, found in result["variants"].items() if row(name, found) not in page]
    assert not missing
    assert f"coarse DSC {result['coarse']['dsc']['mean']:.3f}" in page


def stratum_row(name: str, stratum: dict[str, Any]) -> str:
    """Return the line of a table that shows one stratum."""
    coarse, gain = stratum["coarse"], stratum["paired"]["differences"]["dsc"]
    dsc = coarse["dsc"]
    return (
        f"| {name} | {stratum['num_images']} | {dsc['mean']:.3f} [{dsc['low']:.3f}, "
        f"{dsc['high']:.3f}] | {coarse['hd95']['mean']:.1f} | "
        f"{stratum['refined']['dsc']['mean']:.3f} "
        f"| {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] "
        f"| {100 * stratum['paired']['harmed']['share']:.1f} % |"
    )


def test_the_page_shows_the_strata() -> None:
    page = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads((_ROOT / "docs" / "results" / "busbra_unet_fold3.json").read_text())
    strata = result["strata"]["size"] | result["strata"]["label"]
    assert len(strata) == 5
    assert [name for name, found in strata.items() if stratum_row(name, found) not in page] == []


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
    assert (
        row("default", result["variants"]["default"]).replace("default", "UltraRefiner") in readme
    )

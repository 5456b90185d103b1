"""The printed tables are those of the page, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrarefiner.experiments.tables import markdown

_DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["busbra_rough", "busbra_unet_fold3"])
def test_the_page_is_what_is_printed(name: str) -> None:
    page = (_DOCS / "results.md").read_text(encoding="utf-8").splitlines()
    result = json.loads((_DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    lines = markdown(result).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    num_strata = sum(len(group) for group in result.get("strata", {}).values())
    heads = 4 if num_strata else 2
    assert len(rows) == len(result["variants"]) + num_strata + heads
    assert [row for row in rows if row not in page] == []
    assert any(line.endswith(lines[0]) for line in page)

"""What authors take away: tables for TeX, sheets, figures, a checklist; the same each time."""

import csv
import io
import json
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import Case, evaluate_cases, evaluate_mask
from ultrarefiner.metrics.comparison import compare_methods
from ultrarefiner.report.paper import write_paper, write_paper_of
from ultrarefiner.report.paper.checklist import fill_checklist
from ultrarefiner.report.paper.figures import draw_figures
from ultrarefiner.report.paper.latex import differences_table, escape, metrics_table, strata_table
from ultrarefiner.report.paper.sheets import cases_sheet

FIGURES = ("paired", "bland_altman", "strata")
EVALUATION = {
    "num_images": 40,
    "num_patients": 20,
    "failures": [],
    "manifest_sha256": "ab" * 32,
    "versions": {"torch": "2.0"},
    "settings": {"policy": "declared", "boundary": "pixel", "tolerance": 1.0, "fold": "3"},
}


def disc(radius_px: float) -> np.ndarray:
    centres = np.arange(64) + 0.5
    return np.hypot(centres - 32, centres[:, None] - 32) < radius_px


def method(rng: np.random.Generator, spread: float) -> list[Case]:
    return [
        Case(
            image=f"image-{i:02d}",
            patient=f"patient-{i // 2}",
            metrics=evaluate_mask(disc(15 + i / 8 + rng.normal(0, spread)), disc(15 + i / 8)),
            strata={"label": "benign" if i % 4 < 2 else "malignant"},
        )
        for i in range(40)
    ]


@pytest.fixture(scope="module")
def methods() -> dict[str, list[Case]]:
    rng = np.random.default_rng(0)
    return {"coarse_50%": method(rng, 2.5), "refined & gated": method(rng, 0.8)}


@pytest.fixture(scope="module")
def comparison(methods) -> dict:
    return compare_methods(methods).to_json()


@pytest.fixture(scope="module")
def cases(methods) -> dict:
    return {name: evaluate_cases(cases).to_json()["cases"] for name, cases in methods.items()}


@pytest.fixture(scope="module")
def paper(tmp_path_factory, comparison, cases):
    out = tmp_path_factory.mktemp("paper")
    write_paper(out, comparison, cases, evaluation=EVALUATION)
    return out


def rows_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.endswith(r"\\")]
    return [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]


def sheet(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("make", [metrics_table, differences_table, strata_table])
def test_every_row_fills_the_columns_that_the_table_declares(comparison, make):
    table = make(comparison)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", table)[1]
    assert {len(row) for row in rows_of(table)} == {len(columns)}
    assert table.count("{") == table.count("}")
    assert table.count(r"\midrule") >= 1
    assert not table.isascii() or "²" not in table


def test_names_cannot_break_the_table(comparison):
    table = metrics_table(comparison)
    assert r"coarse\_50\%" in table
    assert r"refined \& gated" in table
    assert escape("[a]\\b") == r"{[}a]\textbackslash{}b"


def test_differences_are_in_the_order_of_the_page_and_no_zero_has_a_sign(comparison):
    test = comparison["pairs"][0]["tests"]["dsc"]
    zero = test | {"difference": {"mean": -0.0001, "low": -0.01, "high": 0.0001}}
    pair = comparison["pairs"][0] | {"tests": {"hd95": test, "dsc": zero}}
    rows = rows_of(differences_table(comparison | {"pairs": [pair]}))
    assert [row[1].strip() for row in rows[1:]] == ["DSC", "HD95 {[}px]"]
    assert rows[1][2].strip() == "0.000 [$-0.010$, 0.000]"


def test_characters_that_tex_reads_its_own_way():
    assert escape('<3 | "x"') == r'\textless{}3 \textbar{} "x"'
    assert escape("*a\n\nb") == "{*}a  b"


def test_a_spreadsheet_runs_no_name_as_a_formula(comparison):
    names = ("=1+1", "+x", "-x", "@x", "\t=1", "plain", "a=b")
    text = cases_sheet({name: [{"image": name, "dsc": -0.5, "hd95": None}] for name in names})
    rows = list(csv.DictReader(io.StringIO(text)))
    shown = [f"'{name}" for name in names[:5]] + ["plain", "a=b"]
    assert [row["image"] for row in rows] == [row["method"] for row in rows] == shown
    assert [(row["dsc"], row["hd95"]) for row in rows] == [("-0.5", "")] * 7


def test_names_are_no_formulas_in_figures_and_no_file_is_lost(cases):
    rows = dict(zip(("a$\\frac{$b", "a$\\frac{_b", "c"), [*cases.values()] * 2, strict=False))
    methods = {name: [Case.from_json(row) for row in own] for name, own in rows.items()}
    files = draw_figures(compare_methods(methods).to_json(), rows, {})
    assert sum(name.startswith("paired_") and name.endswith(".svg") for name in files) == 3


def test_perfect_masks_and_unknown_areas_are_drawn(cases):
    perfect = [row | {"dsc": 1.0} for row in cases["coarse_50%"]]
    for row in perfect:
        del row["area_pred"]
    rows = {"a": perfect, "b": perfect}
    methods = {name: [Case.from_json(row) for row in own] for name, own in rows.items()}
    files = draw_figures(compare_methods(methods).to_json(), rows, {})
    assert "paired.svg" in files
    assert "bland_altman.svg" not in files


def test_the_table_says_what_the_comparison_found(comparison):
    found = comparison["summaries"]["refined & gated"]["metrics"]["dsc"]
    cell = f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    assert cell in metrics_table(comparison)
    assert "40 images of 20 patients" in metrics_table(comparison)


def test_sheets_are_not_rounded_and_complete(paper, comparison, cases):
    rows = sheet(paper / "metrics.csv")
    found = comparison["summaries"]["coarse_50%"]["metrics"]["hd95"]
    row = next(r for r in rows if (r["method"], r["metric"]) == ("coarse_50%", "hd95"))
    assert [float(row[part]) for part in ("mean", "low", "high")] == [
        found[part] for part in ("mean", "low", "high")
    ]
    assert row["unit"] == "px"
    tests = sheet(paper / "differences.csv")
    assert [row["metric"] for row in tests] == comparison["metrics"]
    by_case = sheet(paper / "cases.csv")
    assert len(by_case) == 80
    assert float(by_case[3]["dsc"]) == cases["coarse_50%"][3]["dsc"]
    assert {row["label"] for row in by_case} == {"benign", "malignant"}
    levels = {(row["kind"], row["level"]) for row in sheet(paper / "strata.csv")}
    assert ("label", "malignant") in levels


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_vectors(paper, name):
    svg = ElementTree.fromstring((paper / "figures" / f"{name}.svg").read_bytes())
    assert svg.tag.endswith("svg")
    assert (paper / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_scatter_has_one_mark_per_image(paper):
    svg = (paper / "figures" / "paired.svg").read_text(encoding="utf-8")
    axes, legend = svg.split('<g id="legend_1">')
    assert axes.count('<g id="PathCollection_') == 3
    scatters = re.findall(r'<g id="PathCollection_\d+">(.*?)\n   </g>', axes, flags=re.DOTALL)
    assert sum(part.count("<use ") for part in scatters) == 40
    assert legend.count('<g id="PathCollection_') == 3


def test_the_same_input_gives_the_same_bytes(tmp_path, paper, comparison, cases):
    files = write_paper(tmp_path, comparison, cases, evaluation=EVALUATION)
    assert len(files) == 14
    for path in files:
        assert path.read_bytes() == (paper / path.relative_to(tmp_path)).read_bytes()


def test_reliability_is_drawn_where_there_are_probabilities(tmp_path, comparison, cases):
    bins = [{"count": 9, "confidence": x, "frequency": x**2} for x in (0.1, 0.5, 0.9)]
    empty = {"count": 0, "confidence": None, "frequency": None}
    found = {"ece": 0.1, "bins": [*bins, empty]}
    evaluation = EVALUATION | {"probabilities": {"refined": found}}
    files = write_paper(tmp_path, comparison, cases, evaluation=evaluation)
    assert tmp_path / "figures" / "reliability.svg" in files


def test_the_checklist_claims_only_what_the_files_say(comparison):
    text = fill_checklist(EVALUATION, comparison, None)
    answers = dict(re.findall(r"^\| (\d+) \|.*\| (.*) \|$", text, flags=re.MULTILINE))
    assert len(answers) == 44
    assert answers["35"].startswith("40 images of 20 patients were scored; 0 could not be.")
    assert "Fold 3" in answers["19"]
    assert answers["44"] == answers["11"] == "**to be filled in by the authors**"
    known = sum("to be filled" not in answer for answer in answers.values())
    assert f"{known} of 44 items" in text


def test_names_cannot_break_the_checklist(comparison):
    evaluation = EVALUATION | {"versions": {"a|b": "1\n\n# 2"}}
    evaluation["settings"] = EVALUATION["settings"] | {"fold": 0}
    lines = fill_checklist(evaluation, comparison, None).splitlines()
    assert "| 23 | Model | Software with versions (MI-CLAIM 3, 6) | a\\|b 1 # 2 |" in lines
    assert sum(line.startswith("| 19 |") and "Fold 0" in line for line in lines) == 1


def test_a_given_comparison_is_the_one_of_the_paper(tmp_path, methods):
    one, two = methods.values()
    rows = evaluate_cases(two, one).to_json()
    content = json.loads(json.dumps(rows)) | EVALUATION
    (tmp_path / "eval.json").write_text(json.dumps(content), encoding="utf-8")
    given = compare_methods({"coarse": one, "refined": two}, metrics=["dsc"]).to_json()
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    write_paper_of([tmp_path / "eval.json", path], tmp_path / "paper")
    assert [row["metric"] for row in sheet(tmp_path / "paper" / "differences.csv")] == ["dsc"]
    other = compare_methods({"a": one, "b": two}, metrics=["dsc"]).to_json()
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(InputError, match=r"not among the sources.*a, b.*coarse, refined"):
        write_paper_of([tmp_path / "eval.json", path], tmp_path / "paper")


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path, comparison, cases):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"ultrarefiner\[paper\]"):
        write_paper(tmp_path, comparison, cases, evaluation=EVALUATION)
    assert list(tmp_path.iterdir()) == []

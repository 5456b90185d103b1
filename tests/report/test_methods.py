"""Several evaluations of one data set in one report."""

import json

import numpy as np
import pytest
from report_runs import evaluate, make_case

from ultrarefiner.errors import InputError
from ultrarefiner.report.methods import compare_evaluations
from ultrarefiner.report.run import write_report

RADII = [(12, 16), (13, 18), (14, 19), (15, 20), (20, 15), (19, 14), (21, 26), (19, 19)]


def evaluation(shift_px: float, *, coarse_px: float = 0.0, num: int = 8) -> dict:
    """Return ``eval.json`` of discs whose refined radius is shifted."""
    cases = [
        make_case(f"case-{i}", coarse + coarse_px, refined + shift_px)
        for i, (coarse, refined) in enumerate(RADII[:num])
    ]
    content = evaluate(cases)
    if "baseline_cases" not in content:
        content["baseline_cases"] = [{"image": c.stem, **c.baseline} for c in cases]
    return json.loads(json.dumps(content))


def test_coarse_masks_that_are_the_same_are_one_method():
    found = compare_evaluations([("a", evaluation(0)), ("b", evaluation(1))])
    assert found["methods"] == ["coarse", "a", "b"]
    assert found["reference"] == "coarse"
    assert found["num_images"] == 8


def test_coarse_masks_that_differ_are_told_apart():
    found = compare_evaluations([("a", evaluation(0)), ("b", evaluation(0, coarse_px=1))])
    assert found["methods"] == ["coarse of a", "coarse of b", "a", "b"]


def test_differences_are_those_of_the_cases():
    first, second = evaluation(0), evaluation(1)
    found = compare_evaluations([("a", first), ("b", second)])
    refined = np.mean([c["dsc"] for c in first["cases"]])
    coarse = np.mean([c["dsc"] for c in first["baseline_cases"]])
    pair = next(p for p in found["pairs"] if (p["method"], p["reference"]) == ("a", "coarse"))
    assert pair["tests"]["dsc"]["difference"]["mean"] == pytest.approx(refined - coarse)


def test_a_run_that_is_called_coarse_does_not_replace_the_coarse_masks():
    first, second = evaluation(0), evaluation(1)
    found = compare_evaluations([("coarse", first), ("b", second)])
    assert found["methods"] == ["coarse (before)", "coarse", "b"]
    means = {n: found["summaries"][n]["metrics"]["dsc"]["mean"] for n in found["methods"]}
    before = np.mean([c["dsc"] for c in first["baseline_cases"]])
    assert means["coarse (before)"] == pytest.approx(before)
    assert means["coarse"] == pytest.approx(np.mean([c["dsc"] for c in first["cases"]]))


def test_a_delta_of_zero_is_kept():
    first = evaluation(0) | {"settings": {"delta": 0.0, "seed": 0}}
    assert compare_evaluations([("a", first), ("b", evaluation(1))])["delta"] == 0


def test_evaluations_of_other_images_do_not_compare():
    with pytest.raises(InputError, match="lacks"):
        compare_evaluations([("a", evaluation(0)), ("b", evaluation(0, num=6))])


def test_the_report_of_two_evaluations_compares_them(tmp_path):
    paths = []
    for name, shift in (("first", 0), ("second", 1)):
        paths.append(tmp_path / name / "eval.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(json.dumps(evaluation(shift)), encoding="utf-8")
    write_report(paths, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Comparison of coarse, first, second" in html
    assert "first against coarse" in html

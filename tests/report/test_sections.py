"""Every section of the page: there when it has data, absent when it has none."""

import copy
import re

import pytest
from report_runs import calibration_json, evaluate, rule_json, scored, small_run
from test_report import render, text_of

from fakes.results import SETTINGS, comparison, probabilities, write_training
from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report.calibrated import read_calibration
from ultrarefiner.report.learning import read_training


def complete(tmp_path) -> str:
    """Return a page with everything on it."""
    cases = [scored(case, -i / 4) for i, case in enumerate(small_run())]
    for i, case in enumerate(cases):
        strata = {"label": "malignant" if i % 3 else "benign", "birads": "", "device": "A"}
        case.metrics.update(strata=strata, area_pred=90.0 + i, area_target=100.0, patient=f"p{i}")
    evaluation = evaluate(cases) | {
        "comparison": comparison(),
        "probabilities": probabilities(),
        "settings": SETTINGS,
    }
    training = read_training(write_training(tmp_path / "net"), name="net")
    calibration = read_calibration(calibration_json(), name="net", path=tmp_path)
    return render(
        cases,
        evaluation,
        trainings=[training],
        rule=AcceptanceRule.from_json(rule_json()),
        calibrations=[calibration],
    )


def sections(html: str) -> list[str]:
    return re.findall(r'<section[^>]* id="([a-z]+)"', html)


def test_contents_lead_to_every_section_in_order(tmp_path):
    html = complete(tmp_path)
    contents = html.split('class="contents"')[1].split("</nav>")[0]
    linked = re.findall(r'href="#([a-z]+)"', contents)
    assert linked == sections(html)
    assert linked == [
        "first",
        "rule",
        "metrics",
        "tests",
        "figures",
        "selective",
        "strata",
        "sizes",
        "calibration",
        "gallery",
        "cases",
        "learning",
        "reading",
        "provenance",
    ]


def test_a_page_without_truth_has_no_section_on_quality():
    html = render(small_run(with_truth=False))
    assert sections(html) == ["first", "figures", "gallery", "cases", "reading", "provenance"]


def test_an_old_evaluation_is_reported_as_far_as_it_goes():
    cases = small_run()
    evaluation = evaluate(cases)
    for key in ("comparison", "probabilities", "settings", "command", "versions"):
        evaluation.pop(key, None)
    evaluation["paired"] = copy.deepcopy(evaluation["paired"])
    for kind in ("improved", "unchanged", "harmed"):
        for end in ("clustered_low", "clustered_high"):
            evaluation["paired"][kind].pop(end, None)
    evaluation["paired"]["harmed_clustered"] = (0.1, 0.4)
    html = render(cases, evaluation)
    assert "tests" not in sections(html)
    assert "metrics" in sections(html)
    text = text_of(html)
    assert "by the bootstrap over patients is 10 to 40 %" in text
    assert "Policy: declared" in text


def test_tests_stand_with_their_corrections(tmp_path):
    text = text_of(complete(tmp_path))
    assert "Holm's correction is over all 3 tests" in text
    assert "DSC +0.090 +0.060 to +0.120 &lt; 0.001 0.001 +0.83" in text
    assert "NSD +0.090 +0.040 to +0.140 0.030 0.060" in text


def test_shares_have_intervals_over_patients_where_there_are_some(tmp_path):
    cases = small_run()
    evaluation = evaluate(cases)
    evaluation["paired"]["harmed"] |= {"clustered_low": 0.07, "clustered_high": 0.61}
    assert "95 % interval 7 to 61 %" in text_of(render(cases, evaluation))


def test_counts_stand_beside_the_means(tmp_path):
    html = complete(tmp_path)
    hero = text_of(html.split('class="hero"')[1].split("</dl>")[0])
    assert hero.count("1 missed, 0 false positive") == 2


def test_strata_are_columns_only_where_cases_differ(tmp_path):
    header = text_of(complete(tmp_path).split('class="cases"')[1].split("</thead>")[0])
    assert "Pathology" in header
    assert "Device" not in header
    assert "BI-RADS" not in header


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("declared", "distances the image diagonal"),
        ("metrics-reloaded", "DSC and lesion F1 1, distances 0"),
        ("strict", "nothing is made up"),
        ("ignore", "left out of its mean"),
    ],
)
def test_the_policy_for_empty_masks_is_written_out(policy, said):
    cases = small_run()
    settings = SETTINGS | {"policy": policy, "tolerance": 2.0, "boundary": "surfel"}
    text = text_of(render(cases, evaluate(cases) | {"settings": settings}))
    assert f"Policy: {policy}" in text
    assert said in text
    assert "within 2 px of each other" in text
    assert "surface elements" in text


def test_a_comparison_of_several_methods_needs_no_case():
    text = text_of(render([], comparison=comparison("first", "second")))
    assert "No image was refined" not in text
    assert "first against coarse" in text
    assert "second against coarse" in text
    assert "All cases" not in text


def test_images_that_a_mean_leaves_out_are_counted():
    cases = small_run()
    evaluation = evaluate(cases) | {"undefined": {"hd95": 3}}
    table = text_of(render(cases, evaluation).split('id="metrics"')[1].split("</table>")[0])
    assert table.count("left out") == 1
    assert re.search(r"HD95 \[px\].*left out 3 images", table)


def test_values_that_are_null_are_dashes():
    cases = small_run()
    content = comparison()
    content["pairs"][0]["tests"]["dsc"] |= {"p_wilcoxon": None, "mixed": None, "p_sign": None}
    evaluation = evaluate(cases) | {"comparison": content}
    evaluation["summary"] = evaluation["summary"] | {"nsd": None}
    text = text_of(render(cases, evaluation))
    assert "DSC +0.090 +0.060 to +0.120 &lt; 0.001 0.001 +0.83 – – +0.71 – –" in text


def test_same_input_gives_the_same_bytes_with_every_section(tmp_path):
    assert complete(tmp_path / "a") == complete(tmp_path / "b")

"""Which numbers the viewer says of a case, and that its data is safe inside the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from report_runs import disc, evaluate, make_case, renamed, small_run

from ultrarefiner.report import render_report
from ultrarefiner.report.overlay import draw_overlay
from ultrarefiner.report.viewer import build_gallery, compare_metrics, describe_case


def build(cases, **settings):
    settings = {"delta": 0.02, "distance_unit": "px"} | settings
    return build_gallery(dict(enumerate(cases)), **settings)


def scored(after: dict, before: dict | None):
    return replace(make_case("a", 15, 18), metrics=after, baseline=before)


class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "before", "after", "expected"),
        [
            ("dsc", 0.8, 0.85, ["DSC", "0.800", "0.850", "+0.050", "better"]),
            ("dsc", 0.8, 0.8002, ["DSC", "0.800", "0.800", "0.000", ""]),
            ("hd95", 4.0, 5.5, ["HD95 [mm]", "4.00", "5.50", "+1.50", "worse"]),
            ("hd95", 5.5, 4.0, ["HD95 [mm]", "5.50", "4.00", "−1.50", "better"]),
            ("diameter_error", -3.0, 1.0, ["Diameter error [mm]", *["−3.00", "+1.00", "+4.00"]]),
            ("diameter_error", 1.0, -3.0, ["Diameter error [mm]", *["+1.00", "−3.00", "−4.00"]]),
            ("recall", None, 0.5, ["Recall", "–", "0.500", "–", ""]),
            ("recall", 0.5, None, ["Recall", "0.500", "–", "–", ""]),
        ],
    )
    def test_a_change_is_judged_in_the_direction_of_its_metric(
        self, name: str, before: float | None, after: float | None, expected: list[str]
    ):
        (row,) = compare_metrics(scored({name: after}, {name: before}), distance_unit="mm")
        assert list(row)[: len(expected)] == expected
        if name == "diameter_error":
            assert row[-1] == ("better" if abs(after) < abs(before) else "worse")

    def test_without_a_baseline_there_is_no_change(self):
        (row,) = compare_metrics(scored({"dsc": 0.5}, None), distance_unit="px")
        assert list(row) == ["DSC", "", "0.500", "", ""]

    def test_without_truth_there_is_no_metric(self):
        assert compare_metrics(make_case("a", 9, 9, with_truth=False), distance_unit="px") == []

    def test_every_metric_of_the_evaluation_is_there(self):
        labels = [row[0] for row in compare_metrics(make_case("a", 15, 18), distance_unit="px")]
        assert {"DSC", "IoU", "Precision", "Recall", "HD95 [px]", "ASSD [px]", "NSD"} <= {*labels}

    def test_facts_name_the_decision_the_strata_and_the_gate(self):
        case = make_case("a", 15, 18)
        case.metrics.update(outcome="missed", strata={"label": "benign", "birads": "4"})
        gate = np.array([[0.0, 0.7]], dtype=np.float32)
        facts = dict(describe_case(case, draw_overlay(replace(case.load(), gate=gate))))
        assert facts["Decision"] == "accepted"
        assert facts["Outcome"].startswith("missed")
        assert (facts["Pathology"], facts["BI-RADS"]) == ("benign", "4")
        assert facts["Predicted IoU"] == "0.900"
        assert facts["Area ratio"] == f"× {disc(18).sum() / disc(15).sum():.2f}"
        assert facts["Gate"] == "0.00 to 0.70"
        assert facts["Time"] == "0.50\xa0s"

    def test_what_is_unknown_is_left_out(self):
        case = replace(make_case("a", 9, 9, with_truth=False), row={})
        assert describe_case(case) == []


class TestGallery:
    def test_every_case_has_its_data_and_a_picture_here_or_in_a_tile(self):
        cases = [make_case(f"c{i:02d}", 12 + i / 8, 16 + i / 9) for i in range(30)]
        gallery = build(cases)
        data = json.loads(gallery.data)
        tiles = [tile for _, tiles in gallery.groups for tile in tiles]
        assert [data[str(i)]["stem"] for i in range(30)] == [case.stem for case in cases]
        assert len(tiles) < 30
        for index in range(30):
            in_tile = [tile.index for tile in tiles].count(index)
            assert in_tile + (data[str(index)]["picture"] is not None) == 1
        assert all(tile.case is cases[tile.index] for tile in tiles)

    def test_layers_that_no_picture_has_are_not_offered(self):
        assert build(small_run()).layers == {"coarse", "refined", "truth", "boxes"}
        assert "truth" not in build(small_run(with_truth=False)).layers

    def test_beyond_the_budget_only_tiles_have_pictures(self):
        gallery = build([make_case(f"c{i}", 12, 16) for i in range(30)], budget_bytes=1000)
        data = json.loads(gallery.data)
        assert {entry["picture"] for entry in data.values()} == {None}
        assert len(gallery.notes) == 1
        assert gallery.groups

    def test_a_name_cannot_leave_the_data(self):
        evil = "</script><script>alert(1)</script><!--&amp;\u2028"
        data = build([renamed(make_case("a", 15, 18), evil)]).data
        assert json.loads(data)["0"]["stem"] == evil
        assert not set("<>&\u2028") & set(data)

    def test_same_run_gives_the_same_data(self):
        assert build(small_run()).data == build(small_run()).data

    def test_without_a_script_the_page_has_the_outlines_of_every_tile(self):
        cases = small_run()
        html = render_report(cases, title="A run", evaluation=evaluate(cases), provenance={})
        page = html.split('<template id="blank-picture">')[0]
        assert page.count('<figure class="tile"') == 12
        for case in cases:
            overlay = draw_overlay(case.load())
            for outline in (overlay.coarse, overlay.refined, overlay.truth):
                assert f'd="{outline}"' in page

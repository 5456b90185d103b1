"""Plots of measured against true sizes: what is drawn, and what is left out."""

import pytest
from report_runs import small_run

from ultrarefiner.report.bland_altman import compare_sizes


class TestPlots:
    def sized(self) -> dict:
        cases = small_run()
        for i, case in enumerate(cases):
            for table, factor in ((case.metrics, 1.1), (case.baseline, 1.5)):
                table |= {"area_target": 100.0 * (i + 1), "area_pred": 100.0 * (i + 1) * factor}
                table |= {"diameter_target": 10.0, "diameter_pred": 10.0, "patient": f"p{i // 2}"}
        return dict(enumerate(cases))

    def test_limits_and_ratios_of_both_methods(self):
        rows, figures = compare_sizes(self.sized(), distance_unit="mm", delta=0.02)
        assert [(row.size, row.method, row.unit) for row in rows] == [
            ("area", "coarse", "mm²"),
            ("area", "refined", "mm²"),
            ("longest diameter", "coarse", "mm"),
            ("longest diameter", "refined", "mm"),
        ]
        coarse, refined = rows[:2]
        assert coarse.difference.bias.value == pytest.approx(50 * 6.5)
        assert refined.difference.bias.value == pytest.approx(10 * 6.5)
        assert coarse.ratio.bias.value == pytest.approx(1.5)
        assert coarse.ratio.upper.value == pytest.approx(1.5)
        assert coarse.difference.num_patients == 6
        assert [figure.svg.count("data-case") for figure in figures] == [12] * 4

    def test_a_missed_lesion_counts_in_the_difference_alone(self):
        cases = self.sized()
        cases[0].metrics["area_pred"] = 0.0
        refined = compare_sizes(cases, distance_unit="px", delta=0.02)[0][1]
        assert (refined.difference.num_images, refined.ratio.num_images) == (12, 11)

    def test_both_methods_share_their_axes(self):
        _, figures = compare_sizes(self.sized(), distance_unit="mm", delta=0.02)
        ticks = [figure.svg.split('class="zero"')[0].split("aria-label")[1] for figure in figures]
        assert ticks[0].split(">", 1)[1] == ticks[1].split(">", 1)[1]

    def test_evaluations_without_sizes_have_none(self):
        cases = small_run()
        for case in cases:
            for table in (case.metrics, case.baseline):
                for name in [name for name in table if name.startswith(("area", "diameter"))]:
                    del table[name]
        assert compare_sizes(dict(enumerate(cases)), distance_unit="px", delta=0.02) == ([], [])

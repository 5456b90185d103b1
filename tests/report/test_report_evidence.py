"""What a comparison says: sentences no surer than the intervals, tables, forest plots."""

import re

import pytest

from fakes.results import comparison, estimate, paired_test, probabilities
from ultrarefiner.report.evidence import count_tests, sample_sentence, weigh_pairs
from ultrarefiner.report.page import render_report
from ultrarefiner.report.reliability import draw_reliability
from ultrarefiner.report.strata import tabulate_strata
from ultrarefiner.report.summaries import tabulate_comparison


def sentences_of(test: dict, name: str = "dsc") -> str:
    content = comparison()
    content["pairs"][0]["tests"] = {name: test}
    return " ".join(weigh_pairs(content)[0].sentences)


class TestSentences:
    def test_an_interval_beside_zero_is_a_difference(self):
        said = sentences_of(paired_test(0.09, 0.03))
        assert "higher for refined than for coarse by 0.090 (95 % interval 0.060 to 0.120)." in said
        assert "over 22 patients gives p < 0.001" in said

    def test_an_interval_over_zero_leaves_it_open(self):
        said = sentences_of(paired_test(0.01, 0.03, p_permutation=0.4, p_permutation_holm=1.0))
        assert "Whether the mean DSC differs is open" in said
        assert "includes zero" in said
        assert "higher" not in said
        assert "p = 0.400, and p = 1.000 after Holm's correction" in said

    @pytest.mark.parametrize(
        ("name", "mean", "worse"),
        [
            ("dsc", -0.09, True),
            ("dsc", 0.09, False),
            ("hd95", 9.0, True),
            ("area_error", -9.0, False),
        ],
    )
    def test_which_direction_is_worse(self, name, mean, worse):
        assert ("which is worse" in sentences_of(paired_test(mean, 0.01), name)) == worse

    def test_few_patients_are_no_evidence_whatever_their_interval(self):
        content = comparison() | {"num_patients": 2}
        content["pairs"][0]["tests"] = {"dsc": paired_test(0.155, 0.0, p_permutation=0.5)}
        said = weigh_pairs(content)[0].sentences[0]
        assert (
            said
            == "The mean DSC changes by +0.155 over 2 patients, too few to tell it from chance."
        )

    def test_a_test_that_does_not_bear_out_the_interval_is_said(self):
        said = sentences_of(paired_test(0.09, 0.08, p_permutation=0.07, p_permutation_holm=0.3))
        assert "it does not bear out the interval, so the difference stays open" in said

    def test_what_holm_takes_back_is_said(self):
        said = sentences_of(paired_test(0.09, 0.08, p_permutation=0.03, p_permutation_holm=0.2))
        assert "taken alone it would count, among so many tests it does not" in said

    @pytest.mark.parametrize(
        ("equivalent", "non_inferior", "said"),
        [
            (True, True, "equivalent within the margin (p = 0.010)"),
            (False, True, "not inferior (p = 0.020); equivalence was not shown"),
            (False, False, "neither equivalence nor non-inferiority was shown"),
        ],
    )
    def test_equivalence(self, equivalent, non_inferior, said):
        found = {"margin": 0.02, "low": -0.01, "high": 0.01, "p_equivalent": 0.01}
        found |= {"p_non_inferior": 0.02, "equivalent": equivalent, "non_inferior": non_inferior}
        assert said in sentences_of(paired_test(0.0, 0.012, equivalence=found))

    def test_values_that_are_not_there_are_not_spoken_of(self):
        test = paired_test(0.09, 0.03, p_permutation=None, p_permutation_holm=None, mixed=None)
        assert "permutation" not in sentences_of(test)
        assert "mixed model" not in sentences_of(test)

    def test_a_mixed_model_is_spoken_of_where_patients_repeat(self):
        content = comparison()
        assert "mixed model" in " ".join(weigh_pairs(content)[0].sentences)
        content["num_patients"] = content["num_images"]
        assert "mixed model" not in " ".join(weigh_pairs(content)[0].sentences)

    def test_sample_size(self):
        said = sample_sentence(comparison()["sample_size"])
        assert (
            "about 11 patients with 12 images (design effect of several images a patient 1.03)"
            in said
        )
        assert sample_sentence(None) == ""

    def test_tests_are_counted_over_all_pairs(self):
        content = comparison("first", "second")
        assert count_tests(content) == 6
        content["pairs"][0]["tests"]["dsc"]["p_permutation"] = None
        assert count_tests(content) == 5


class TestStrata:
    def rows(self, *methods: str):
        return [row for group in tabulate_strata(comparison(*methods)).groups for row in group.rows]

    def test_levels_keep_their_order_and_kinds_theirs(self):
        table = tabulate_strata(comparison())
        assert [group.title for group in table.groups] == ["Lesion size", "Pathology"]
        levels = [row.level for row in table.groups[0].rows]
        assert levels == ["smallest third", "middle third", "largest third"]

    def test_sizes_go_up_whatever_the_order_of_the_file(self):
        content = comparison()
        level = content["strata"]["size"]["middle third"]
        content["strata"]["size"] = dict.fromkeys(("large", "medium", "small"), level)
        rows = tabulate_strata(content).groups[0].rows
        assert [row.level for row in rows] == ["small", "medium", "large"]

    def test_several_methods_have_a_row_each(self):
        rows = self.rows("first", "second")
        assert [(row.level, row.method) for row in rows[:2]] == [
            ("smallest third", "first"),
            ("", "second"),
        ]

    def test_the_drawing_agrees_with_the_numbers(self):
        """Positions on the axis are linear in the values, zero and all ends alike."""
        places, values = [], []
        for row in self.rows():
            zero = float(re.search(r'class="zero" d="M([\d.]+)', row.forest)[1])
            ends = re.search(r'whisker" d="M([\d.]+) 13H([\d.]+)', row.forest)
            places += [zero, float(ends[1]), float(ends[2])]
            values += [0, row.difference["low"], row.difference["high"]]
        slope = (places[2] - places[1]) / (values[2] - values[1])
        for place, value in zip(places, values, strict=True):
            assert place - places[0] == pytest.approx(slope * value, abs=0.02)

    def test_shape_says_whether_zero_is_inside(self):
        smallest, middle, *_ = self.rows()
        assert 'class="square open"' in smallest.forest  # -0.02 to +0.20
        assert 'class="square clear"' in middle.forest

    def test_what_the_table_does_not_show_is_said(self):
        more = {"size_cuts": [812.4, 2001.0], "strata_left_out": {"birads": ["6"]}}
        remarks = tabulate_strata(comparison() | more).remarks
        assert "to 812 px², to 2001 px², above" in remarks[0]
        assert remarks[1] == "BI-RADS, left out with fewer than two patients: 6."
        assert tabulate_strata(comparison()).remarks == ()

    def test_no_strata_no_table(self):
        assert tabulate_strata(comparison() | {"strata": {}}) is None


class TestTable:
    def test_two_methods_have_their_change(self):
        table = tabulate_comparison(comparison())
        assert table.methods == ("coarse", "refined")
        assert table.rows[0].label == "DSC"
        assert table.rows[0].change == estimate(0.09, 0.03)
        assert ("Missed lesions", (1, 0)) in table.counts
        assert "Both masks empty" not in dict(table.counts)

    def test_three_have_none(self):
        table = tabulate_comparison(comparison("first", "second"))
        assert not table.has_change
        assert [len(row.cells) for row in table.rows] == [3, 3, 3]


class TestReliability:
    def test_empty_bins_are_not_drawn(self):
        figure = draw_reliability(probabilities())
        assert figure.svg.count('class="mark improved"') == 9
        assert figure.svg.count('class="mark unchanged"') == 9
        assert [(method, note) for method, _, note in figure.key] == [
            ("coarse", "ECE 0.084"),
            ("refined", "ECE 0.021"),
        ]

    @pytest.mark.parametrize("content", [{}, {"refined": {"ece": 0.0, "bins": []}}])
    def test_no_probabilities_no_figure(self, content):
        assert draw_reliability(content) is None


def test_names_of_methods_keep_their_capitals():
    content = comparison("TransUNet")
    page = render_report(
        [], title="t", evaluation=None, provenance={}, comparison=content, with_pictures=False
    )
    assert "TransUNet</th>" in page
    assert "Transunet" not in page

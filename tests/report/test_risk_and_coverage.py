"""Risk and coverage of a run: numbers against a count by hand, and what stays unknown."""

from dataclasses import replace

import numpy as np
import pytest
from report_runs import evaluate, make_case, rule_json, scored
from test_report import render, text_of

from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report.selective import pick_steps, select_cases, step_at


def judged(stem: str, gain: float, score: float, patient: str, reason: str = "accepted"):
    """Return a case of which only gain, score, patient and decision are known."""
    bare = make_case(stem, 15, 16, reason=reason)
    bare = replace(bare, metrics={"dsc": 0.5 + gain}, baseline={"dsc": 0.5})
    return scored(bare, score, patient=patient)


def small() -> dict:
    """Return five images of three patients; two images have one score."""
    cases = [
        judged("a", 0.10, -0.1, "p"),
        judged("b", -0.05, -0.5, "p"),
        judged("c", 0.20, -0.5, "q"),
        judged("d", -0.01, -0.8, "q"),
        judged("e", -0.30, -2.0, "r"),
    ]
    return dict(enumerate(cases))


def rule(**changes) -> AcceptanceRule:
    return AcceptanceRule.from_json(rule_json(**changes))


class TestSteps:
    def test_solved_by_hand(self):
        """b is half of its patient's images, e all of its; d loses no more than delta."""
        found = select_cases(small(), None, delta=0.02)
        assert [step.threshold for step in found.listed] == [-0.1, -0.5, -0.8, -2.0]
        assert [step.coverage for step in found.listed] == pytest.approx([0.2, 0.6, 0.8, 1.0])
        harmed = [0, 0.5 / 3, 0.5 / 3, 1.5 / 3]
        assert [step.harmed_share for step in found.listed] == pytest.approx(harmed)
        gains = [0.10 / 5, 0.25 / 5, 0.24 / 5, -0.06 / 5]
        assert [step.gain for step in found.listed] == pytest.approx(gains)
        assert (found.num_images, found.num_unknown, found.chosen) == (5, 0, None)

    def test_against_a_plain_loop(self):
        rng = np.random.default_rng(3)
        rows = [
            (float(rng.normal(0.02, 0.05)), -float(rng.integers(6)), f"p{rng.integers(9)}")
            for _ in range(40)
        ]
        cases = {i: judged(f"i{i}", *row) for i, row in enumerate(rows)}
        found = select_cases(cases, None, delta=0.01)
        for step in found.listed:
            accepted = [(g, p) for g, s, p in rows if s >= step.threshold]
            by_patient = [
                np.mean([g < -0.01 and s >= step.threshold for g, s, p in rows if p == own])
                for own in {p for _, _, p in rows}
            ]
            assert step.coverage == pytest.approx(len(accepted) / 40)
            assert step.harmed_share == pytest.approx(np.mean(by_patient))
            assert step.gain == pytest.approx(sum(g for g, _ in accepted) / 40)

    def test_the_delta_of_the_rule_goes_before_that_of_the_evaluation(self):
        found = select_cases(small(), rule(delta=0.1), delta=0.02)
        assert found.delta == 0.1
        assert found.listed[-1].harmed_share == pytest.approx(1 / 3)

    def test_what_the_rule_refused_is_not_known(self):
        cases = small()
        cases[4] = judged("e", 0.0, -2.0, "r", reason="calibrated rule: moved far")
        found = select_cases(cases, rule(threshold=-1.0), delta=0.02)
        assert (found.num_images, found.num_unknown) == (5, 1)
        assert found.listed[-1].coverage == pytest.approx(0.8)
        assert found.chosen == found.listed[-1]
        assert found.chosen.threshold == -1.0  # of the rule, not of the image nearest to it
        assert all("in random order" not in [k for k, *_ in f.key] for f in found.figures)

    def test_what_the_stabiliser_refused_is_unchanged_and_known(self):
        cases = small()
        cases[0] = judged("a", 0.0, 0.0, "p", reason="area changed too much")
        found = select_cases(cases, rule(threshold=-9.0), delta=0.02)
        assert found.num_unknown == 0
        assert found.chosen.coverage == 1

    @pytest.mark.parametrize(
        ("threshold", "coverage"), [(-0.5, 0.6), (-0.4999999, 0.6), (-0.49, 0.2), (0.0, None)]
    )
    def test_the_step_of_a_threshold(self, threshold, coverage):
        """Results hold scores with six decimals, so that one may stand just below its threshold."""
        found = select_cases(small(), None, delta=0.02)
        step = step_at(found.listed, threshold)
        assert (step and step.coverage) == (coverage and pytest.approx(coverage))

    def test_a_long_curve_is_listed_in_a_few_steps(self):
        cases = {i: judged(f"i{i}", 0.01, -i / 100, f"p{i}") for i in range(100)}
        steps = select_cases(cases, None, delta=0.02)
        coverage = [step.coverage for step in steps.listed]
        assert coverage == pytest.approx([0.25, 0.5, 0.75, 0.9, 1.0])
        chosen = steps.listed[1]
        assert chosen in pick_steps(steps.listed, chosen)

    @pytest.mark.parametrize("missing", ["score", "truth"])
    def test_without_score_or_truth_there_is_none(self, missing):
        cases = small()
        for index, known in cases.items():
            row = known.row | {"score": ""}
            changes = {"row": row} if missing == "score" else {"metrics": None, "baseline": None}
            cases[index] = replace(known, **changes)
        assert select_cases(cases, rule(), delta=0.02) is None

    def test_nothing_accepted_leaves_nothing_to_draw(self):
        cases = {0: judged("a", 0.0, -1.0, "p", reason="calibrated rule: moved far")}
        assert select_cases(cases, rule(threshold="none"), delta=0.02) is None


class TestPage:
    def run(self) -> list:
        return [
            scored(make_case(f"case-{i}", 14 + i % 3, 13 + i % 7), -i / 10, patient=f"p{i // 2}")
            for i in range(20)
        ]

    def test_section_has_curves_bound_threshold_and_table(self):
        cases = self.run()
        html = render(cases, evaluate(cases), rule=rule(threshold=-1.0, alpha=0.05))
        section = html.split('id="selective"')[1].split("</section>")[0]
        assert section.count('class="curve"') == 2 + 2  # and their keys
        assert "bound 5.0\xa0%" in section
        assert section.count('class="mark best"') == 2 + 2
        assert section.count('class="chosen"') == 1
        assert "−1.00 the rule's threshold 55 %" in text_of(section).replace("&#39;", "'")
        aria = section.split('aria-label="Line chart, ')[1].split('"')[0]
        assert "at the rule&#39;s threshold, 55\xa0% accepted" in aria

    @pytest.mark.parametrize(
        ("method", "words"),
        [
            ("learn-then-test", "with its own confidence;"),
            ("conformal-risk-control", "holds in expectation"),
            ("cross-conformal", "an estimate across folds"),
        ],
    )
    def test_a_confidence_only_where_there_is_one(self, method, words):
        cases = self.run()
        html = render(cases, evaluate(cases), rule=rule(method=method))
        section = text_of(html.split('id="selective"')[1].split("</section>")[0])
        assert words in section
        assert ("own confidence" in section) == (method == "learn-then-test")

    def test_the_whole_curve_ends_where_the_headline_does(self):
        cases = self.run()
        evaluation = evaluate(cases)
        found = select_cases(dict(enumerate(cases)), None, delta=0.02)
        gain = evaluation["paired"]["differences"]["dsc"]["mean"]
        assert found.listed[-1].gain == pytest.approx(gain)

    def test_a_run_without_rule_has_no_section(self):
        cases = [make_case("a", 14, 18), make_case("b", 15, 18)]
        assert 'id="selective"' not in render(cases, evaluate(cases))

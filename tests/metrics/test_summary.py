"""Summaries: hand-counted shares and counts, closed forms for intervals, the eval.json contract."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import (
    METRICS,
    Case,
    MaskMetrics,
    compare_paired,
    evaluate_cases,
    evaluate_mask,
    summarise,
)

TEMPLATE = MaskMetrics(
    dsc=0.8,
    iou=0.7,
    precision=0.9,
    recall=0.75,
    specificity=0.95,
    boundary_iou=0.5,
    lesion_f1=1.0,
    hd=6.0,
    hd95=4.0,
    assd=1.5,
    nsd=0.6,
    area_pred=90.0,
    area_target=100.0,
    diameter_pred=11.0,
    diameter_target=12.0,
    tolerance=1.0,
    distance_unit="px",
    outcome="ok",
)


def case(image: str, patient: str = "", **metrics) -> Case:
    return Case(image=image, patient=patient, metrics=dataclasses.replace(TEMPLATE, **metrics))


def cases_of(dsc, patients=None) -> list[Case]:
    patients = patients if patients is not None else [""] * len(dsc)
    return [
        case(f"{i}.png", str(patient), dsc=float(value))
        for i, (value, patient) in enumerate(zip(dsc, patients, strict=True))
    ]


def width(estimate) -> float:
    return estimate.high - estimate.low


class TestSummarise:
    def test_mean_and_median(self):
        summary = summarise(cases_of([0.1, 0.2, 0.9]), ["dsc"])
        assert summary.metrics.keys() == {"dsc"}
        assert summary.metrics["dsc"].mean == pytest.approx(0.4)
        assert summary.metrics["dsc"].median == 0.2
        assert (summary.num_images, summary.num_patients) == (3, 3)

    def test_one_case_has_a_point_interval(self):
        estimate = summarise([case("a.png", dsc=0.5)]).metrics["dsc"]
        assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.5, 0.5)

    def test_counts_and_hd95_on_detected_lesions(self):
        summary = summarise(
            [
                case("a.png", hd95=2.0),
                case("b.png", hd95=4.0),
                case("c.png", hd95=100.0, outcome="missed"),
                case("d.png", hd95=100.0, outcome="false_positive"),
                case("e.png", hd95=0.0, outcome="both_empty"),
            ]
        )
        assert dataclasses.asdict(summary.counts) == {
            "missed": 1,
            "false_positive": 1,
            "both_empty": 1,
        }
        assert summary.metrics["hd95"].mean == pytest.approx(206 / 5)
        assert summary.metrics["hd95"].median == 4.0
        assert summary.metrics["hd95_detected"].mean == 3.0

    def test_without_any_detection_there_is_no_hd95_detected(self):
        assert "hd95_detected" not in summarise([case("a.png", outcome="missed")]).metrics

    def test_interval_is_the_normal_one_when_every_image_is_a_patient(self):
        dsc = np.random.default_rng(1).normal(0.8, 0.05, 400)
        estimate = summarise(cases_of(dsc)).metrics["dsc"]
        half = 1.96 * dsc.std() / np.sqrt(len(dsc))
        assert estimate.low == pytest.approx(dsc.mean() - half, abs=0.15 * half)
        assert estimate.high == pytest.approx(dsc.mean() + half, abs=0.15 * half)

    def test_copies_within_a_patient_narrow_nothing(self):
        dsc = np.random.default_rng(2).normal(0.8, 0.05, 100)
        copies, patients = np.repeat(dsc, 4), np.repeat(np.arange(100), 4)
        alone = summarise(cases_of(dsc, np.arange(100))).metrics["dsc"]
        clustered = summarise(cases_of(copies, patients)).metrics["dsc"]
        naive = summarise(cases_of(copies)).metrics["dsc"]
        assert dataclasses.astuple(clustered) == pytest.approx(dataclasses.astuple(alone))
        assert width(clustered) == pytest.approx(2 * width(naive), rel=0.1)

    def test_same_seed_same_interval_in_any_order(self):
        cases = cases_of(np.random.default_rng(3).uniform(size=30), np.arange(30) // 3)
        assert summarise(cases[::-1]) == summarise(cases)
        assert summarise(cases, seed=1).metrics["dsc"] != summarise(cases).metrics["dsc"]

    def test_refuses_what_cannot_be_averaged(self):
        with pytest.raises(InputError, match="no case"):
            summarise([])
        with pytest.raises(InputError, match=r"a\.png comes 2 times"):
            summarise([case("a.png"), case("a.png")])
        with pytest.raises(InputError, match=r"1 mm, .* \(b\.png\) and .* 1 px, .* \(a, c\)"):
            summarise([case("a"), case("b.png", distance_unit="mm"), case("c")])
        with pytest.raises(InputError, match=r"tolerance 1 px, .* and tolerance 2 px, "):
            summarise([case("a.png"), case("b.png", tolerance=2.0)])
        with pytest.raises(InputError, match=r"pixel boundaries, .* and .* surfel boundaries"):
            summarise([case("a.png"), case("b.png", boundary="surfel")])
        with pytest.raises(InputError, match=r"policy declared .* and .* policy ignore"):
            summarise([case("a.png"), case("b.png", policy="ignore")])
        with pytest.raises(ConfigError, match="unknown metric 'dice': expected one of dsc"):
            summarise([case("a.png")], ["dice"])


def test_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the very thing under test
    summarise(cases_of([0.1, 0.2]))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


class TestUndefined:
    """What the policy leaves undefined is left out of means, and counted."""

    CASES = (
        case("a.png", dsc=0.9, policy="ignore"),
        case("b.png", dsc=0.7, policy="ignore"),
        case("c.png", dsc=math.nan, hd95=math.nan, outcome="both_empty", policy="ignore"),
    )

    def test_mean_of_the_others(self):
        summary = summarise(self.CASES)
        assert summary.metrics["dsc"].mean == pytest.approx(0.8)
        assert summary.metrics["dsc"].median == pytest.approx(0.8)
        assert summary.undefined == {"dsc": 1, "hd95": 1}
        assert summary.num_images == 3
        assert summary.metrics["iou"].mean == pytest.approx(0.7)

    def test_a_metric_that_no_image_has_has_no_mean(self):
        summary = summarise(self.CASES[2:])
        assert "dsc" not in summary.metrics
        assert "hd95_detected" not in summary.metrics
        assert summary.counts.both_empty == summary.undefined["dsc"] == 1

    def test_pairs_without_a_dice_do_not_count(self):
        other = [
            dataclasses.replace(self.CASES[0], image=one.image, patient="") for one in self.CASES
        ]
        paired = compare_paired(self.CASES, other)
        assert (paired.improved.num, paired.unchanged.num, paired.harmed.num) == (0, 1, 1)
        assert paired.harmed.share == 1 / 2
        assert paired.differences["dsc"].mean == pytest.approx(-0.1)
        with pytest.raises(InputError, match="no image has a DSC in both"):
            compare_paired(self.CASES[2:], self.CASES[2:])

    def test_json_says_null(self):
        content = evaluate_cases(self.CASES).to_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert content["cases"][2]["dsc"] is None
        assert content["undefined"] == {"dsc": 1, "hd95": 1}


class TestComparePaired:
    def test_shares_by_hand(self):
        baseline = cases_of([0.5] * 8)
        paired = compare_paired(
            cases_of([0.6, 0.7, 0.8, 0.51, 0.5, 0.49, 0.4, 0.5]), baseline, delta=0.02
        )
        assert (paired.improved.num, paired.unchanged.num, paired.harmed.num) == (3, 4, 1)
        assert paired.harmed.share == 1 / 8
        wilson = stats.binomtest(1, 8).proportion_ci(method="wilson")
        assert (paired.harmed.low, paired.harmed.high) == pytest.approx(tuple(wilson))
        assert paired.differences["dsc"].mean == pytest.approx(0.5 / 8)
        assert paired.differences["hd95"].mean == 0.0

    def test_a_change_of_exactly_delta_is_none(self):
        paired = compare_paired(cases_of([0.75, 0.25]), cases_of([0.5, 0.5]), delta=0.25)
        assert paired.unchanged.num == 2

    def test_baseline_is_paired_by_image(self):
        cases, baseline = cases_of([0.9, 0.5, 0.1]), cases_of([0.8, 0.4, 0.0])
        estimate = compare_paired(cases, baseline[::-1]).differences["dsc"]
        assert dataclasses.astuple(estimate) == pytest.approx((0.1, 0.1, 0.1, 0.1))

    def test_pairing_removes_what_both_share(self):
        rng = np.random.default_rng(4)
        difficulty = rng.uniform(0.2, 0.9, 100)
        cases = cases_of(difficulty + 0.05 + rng.normal(0, 0.01, 100))
        baseline = cases_of(difficulty)
        difference = compare_paired(cases, baseline).differences["dsc"]
        assert difference.low > 0
        assert width(difference) < 0.1 * width(summarise(cases).metrics["dsc"])

    def test_harm_within_one_patient_is_less_certain_than_wilson_says(self):
        dsc = np.where(np.arange(40) < 4, 0.2, 0.8)
        patients = np.arange(40) // 4
        paired = compare_paired(cases_of(dsc, patients), cases_of([0.8] * 40, patients))
        harmed = paired.harmed
        # One of 10 patients: the number of times it is drawn is Binomial(10, 1/10), in tenths.
        assert 10 * harmed.clustered_low == pytest.approx(round(10 * harmed.clustered_low))
        assert harmed.clustered_high - harmed.clustered_low > harmed.high - harmed.low

    def test_refuses_what_does_not_pair(self):
        cases = cases_of([0.5, 0.6])
        with pytest.raises(InputError, match=r"the baseline lacks 1 of 2 images: .* no 1\.png"):
            compare_paired(cases, cases[:1])
        with pytest.raises(InputError, match="found patient p, tolerance 1 px"):
            compare_paired(cases, [cases[0], dataclasses.replace(cases[1], patient="p")])
        in_mm = [case(c.image, distance_unit="mm") for c in cases]
        with pytest.raises(InputError, match=r"tolerance 1 px, .*found patient .*, tolerance 1 mm"):
            compare_paired(cases, in_mm)
        other_truth = [case(c.image, area_target=101.0) for c in cases]
        with pytest.raises(InputError, match=r"a truth of 100 px², found .* a truth of 101 px²"):
            compare_paired(cases, other_truth)
        with pytest.raises(ConfigError, match="delta"):
            compare_paired(cases, cases, delta=1.0)


class TestEvaluation:
    def square(self, shift: int) -> np.ndarray:
        mask = np.zeros((16, 16), dtype=bool)
        mask[4:10, 4 + shift : 10 + shift] = True
        return mask

    def cases(self, shift: int) -> list[Case]:
        metrics = evaluate_mask(self.square(shift), self.square(0), (0.1, 0.1))
        missed = evaluate_mask(np.zeros((16, 16), dtype=bool), self.square(0), (0.1, 0.1))
        return [
            Case(image="images/a_1.png", patient="a", metrics=metrics),
            Case(image="images/b_1.png", metrics=missed),
        ]

    def test_unknown_patient_is_the_image(self):
        assert [case.patient for case in self.cases(0)] == ["a", "images/b_1.png"]

    def test_unknown_patients_of_dotted_names_stay_apart(self):
        assert summarise([case("1.2.840.1"), case("1.2.840.2")]).num_patients == 2

    def test_json_keeps_the_contract(self):
        found = json.loads(
            json.dumps(evaluate_cases(self.cases(1), self.cases(2)).to_json(), allow_nan=False)
        )
        assert found["summary"].keys() == {*METRICS, "hd95_detected"}
        assert found["summary"]["dsc"].keys() == {"mean", "low", "high", "median"}
        assert found["baseline"].keys() == found["summary"].keys()
        assert found["counts"] == {"missed": 1, "false_positive": 0, "both_empty": 0}
        assert found["distance_unit"] == "mm"
        assert found["paired"]["improved"]["num"] == 1
        assert found["cases"][0] | {"image": "images/a_1.png", "patient": "a"} == found["cases"][0]
        assert found["cases"][0]["hd95"] == pytest.approx(0.1)
        assert found["cases"][1]["outcome"] == "missed"

    def test_without_a_baseline(self):
        found = evaluate_cases(self.cases(1)).to_json()
        assert found["baseline"] is None
        assert found["paired"] is None
        assert "baseline_cases" not in found


class TestRows:
    """A case comes back from its row of JSON."""

    def test_round_trip(self):
        metrics = dataclasses.replace(TEMPLATE, hd=math.nan, nsd_at=((0.5, 0.1), (2.0, math.nan)))
        first = Case(image="a", patient="p", metrics=metrics, strata={"label": "benign"})
        row = json.loads(json.dumps(first.to_json(), allow_nan=False))
        assert row["area_error"] == -10.0
        assert row["diameter_error"] == -1.0
        again = Case.from_json(row)
        assert again.to_json() == row
        assert math.isnan(again.metrics.hd)
        assert again.metrics.nsd_at[0] == (0.5, 0.1)
        assert again.strata == first.strata

    def test_what_an_older_row_lacks_is_undefined(self):
        row = {
            name: value
            for name, value in case("a").to_json().items()
            if name not in {"boundary_iou", "nsd_at", "boundary", "policy", "strata"}
        }
        again = Case.from_json(row)
        assert math.isnan(again.metrics.boundary_iou)
        assert (again.metrics.boundary, again.metrics.policy) == ("pixel", "declared")
        assert again.metrics.dsc == 0.8

    @pytest.mark.parametrize(
        "change", [{"image": 3}, {"dsc": "good"}, {"tolerance": None}, {"strata": 3}]
    )
    def test_a_row_that_is_none(self, change):
        with pytest.raises(InputError, match="is not of an evaluated image"):
            Case.from_json(case("a").to_json() | change)

    @pytest.mark.parametrize("name", ["outcome", "distance_unit"])
    def test_a_row_that_lacks_what_it_needs(self, name):
        row = case("a").to_json()
        del row[name]
        with pytest.raises(InputError, match=f"the row of a .*expected {name}"):
            Case.from_json(row)


class TestFurtherTolerances:
    def cases(self, *values: float, tolerance: float = 2.0) -> list[Case]:
        return [
            case(f"{i}", nsd=value / 2, nsd_at=((tolerance, value), (5.0, 1.0)))
            for i, value in enumerate(values)
        ]

    def test_nsd_is_summed_up_at_each(self):
        found = summarise(self.cases(0.2, 0.6, 1.0)).metrics
        means = {name: found[name].mean for name in ("nsd", "nsd@2", "nsd@5")}
        assert means == pytest.approx({"nsd": 0.3, "nsd@2": 0.6, "nsd@5": 1.0})
        assert found["nsd@2"].low < 0.6 < found["nsd@2"].high

    def test_they_belong_to_nsd(self):
        assert set(summarise(self.cases(0.2, 0.6), ["dsc"]).metrics) == {"dsc"}

    def test_differences_are_taken_at_each(self):
        paired = compare_paired(self.cases(0.6, 0.8), self.cases(0.2, 0.6))
        assert paired.differences["nsd@2"].mean == pytest.approx(0.3)
        assert paired.differences["nsd@5"].mean == 0

    def test_others_do_not_mix(self):
        mixed = [*self.cases(0.2), *self.cases(0.2, 0.6, tolerance=3.0)[1:]]
        with pytest.raises(InputError, match="tolerance 1, 3, 5 px"):
            summarise(mixed)

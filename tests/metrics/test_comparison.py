"""Comparisons: every number again from scipy, statsmodels or all flips of the patients."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import METRICS, Case, compare_methods, compare_paired, evaluate_mask

NUM_PATIENTS = 12
PATIENTS = [f"p{i // 2}" for i in range(2 * NUM_PATIENTS)]
METRICS_TESTED = ("dsc", "hd95", "nsd")
TEMPLATE = evaluate_mask(np.eye(9, dtype=bool), np.eye(9, dtype=bool))


def method(dsc, *, strata=None, **columns) -> list[Case]:
    """Return one case per Dice; other metrics by name."""
    return [
        Case(
            image=f"{i:02d}",
            patient=PATIENTS[i],
            metrics=dataclasses.replace(
                TEMPLATE,
                dsc=float(value),
                area_target=float(10 + i),
                **{name: float(column[i]) for name, column in columns.items()},
            ),
            strata=strata[i] if strata else {},
        )
        for i, value in enumerate(dsc)
    ]


def drawn(seed: int, gain: float) -> list[Case]:
    rng = np.random.default_rng(seed)
    num = len(PATIENTS)
    patient = np.repeat(rng.normal(0, 0.03, NUM_PATIENTS), 2)
    base = np.random.default_rng(99).uniform(0.5, 0.9, num)
    return method(
        base + gain + patient + rng.normal(0, 0.03, num),
        hd95=20 - 40 * gain + rng.normal(0, 3, num),
        nsd=rng.uniform(0.2, 0.8, num),
    )


@pytest.fixture(scope="module")
def methods() -> dict[str, list[Case]]:
    return {"coarse": drawn(0, 0.0), "refined": drawn(1, 0.03), "other": drawn(2, 0.01)}


@pytest.fixture(scope="module")
def comparison(methods):
    return compare_methods(methods, metrics=METRICS_TESTED, margin=0.05)


def change(methods, name: str, reference: str, metric: str) -> np.ndarray:
    columns = (
        np.array([getattr(case.metrics, metric) for case in methods[which]])
        for which in (name, reference)
    )
    own, other = columns
    return own - other


def all_flips(differences: np.ndarray) -> float:
    """Return the exact p-value of the sign-flip test, patient by patient."""
    sums = differences.reshape(NUM_PATIENTS, 2).sum(axis=1)
    reached = [
        abs(np.dot(signs, sums)) >= abs(sums.sum()) * (1 - 1e-12)
        for signs in itertools.product((-1, 1), repeat=NUM_PATIENTS)
    ]
    return float(np.mean(reached))


class TestPairs:
    def test_every_pair_once_and_the_earlier_is_the_reference(self, comparison):
        assert [(pair.method, pair.reference) for pair in comparison.pairs] == [
            ("refined", "coarse"),
            ("other", "coarse"),
            ("other", "refined"),
        ]
        assert comparison.methods == ("coarse", "refined", "other")
        assert (comparison.num_images, comparison.num_patients) == (24, 12)

    def test_the_reference_can_be_chosen(self, methods):
        found = compare_methods(methods, metrics=["dsc"], reference="other")
        assert found.methods == ("other", "coarse", "refined")
        assert found.pairs[0].reference == found.reference == "other"

    @pytest.mark.parametrize("metric", METRICS_TESTED)
    def test_tests_over_images_equal_scipy(self, methods, comparison, metric):
        for pair in comparison.pairs:
            test = pair.tests[metric]
            differences = change(methods, pair.method, pair.reference, metric)
            wilcoxon = stats.wilcoxon(differences, method="exact")
            assert test.p_wilcoxon == pytest.approx(wilcoxon.pvalue)
            ranks = stats.rankdata(np.abs(differences))
            expected = np.sum(ranks * np.sign(differences)) / ranks.sum()
            assert test.rank_biserial == pytest.approx(expected)
            up = int((differences > 0).sum())
            assert test.p_sign == pytest.approx(stats.binomtest(up, 24).pvalue)
            assert test.sign_balance == pytest.approx((2 * up - 24) / 24)

    def test_tests_over_patients(self, methods, comparison):
        for pair in comparison.pairs:
            differences = change(methods, pair.method, pair.reference, "dsc")
            means = differences.reshape(NUM_PATIENTS, 2).mean(axis=1)
            test = pair.tests["dsc"]
            assert test.p_permutation == pytest.approx(all_flips(differences))
            assert test.difference.mean == pytest.approx(differences.mean())
            assert test.standardised_mean == pytest.approx(means.mean() / means.std(ddof=1))
            # The interval of so many patients is near Student's of their means.
            low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
            assert test.difference.low == pytest.approx(low, abs=0.25 * (high - low))
            assert test.difference.high == pytest.approx(high, abs=0.25 * (high - low))

    def test_the_mixed_model_equals_statsmodels(self, methods, comparison):
        differences = 100 * change(methods, "refined", "coarse", "dsc")  # it warns of small ones
        model = MixedLM(differences, np.ones((24, 1)), groups=np.array(PATIENTS)).fit(reml=True)
        mixed = comparison.pairs[0].tests["dsc"].mixed
        between, within = model.cov_re.item(), model.scale
        assert 100 * mixed.mean == pytest.approx(model.fe_params.item())
        assert mixed.icc == pytest.approx(between / (between + within), abs=2e-3)

    def test_holm_is_over_all_metrics_and_pairs(self, comparison):
        tests = [test for pair in comparison.pairs for test in pair.tests.values()]
        assert len(tests) == 9
        expected = multipletests([test.p_permutation for test in tests], method="holm")[1]
        assert [test.p_permutation_holm for test in tests] == pytest.approx(list(expected))

    def test_shares_and_differences_are_those_of_two(self, methods, comparison):
        two = compare_paired(methods["refined"], methods["coarse"], METRICS_TESTED)
        pair = comparison.pairs[0]
        assert (pair.improved, pair.unchanged, pair.harmed) == (
            two.improved,
            two.unchanged,
            two.harmed,
        )
        assert {name: test.difference for name, test in pair.tests.items()} == two.differences

    def test_methods_that_are_the_same_do_not_differ(self, methods):
        test = compare_methods({"a": methods["coarse"], "b": methods["coarse"]}).pairs[0]
        for found in test.tests.values():
            assert found.p_permutation == found.p_wilcoxon == found.p_sign == 1.0
            assert found.p_permutation_holm == 1.0
            assert found.rank_biserial == found.standardised_mean == found.difference.mean == 0.0
        assert test.unchanged.share == 1.0


def test_many_tests_leave_room_for_a_small_adjusted_p():
    rng = np.random.default_rng(0)
    methods = {
        f"{step}": [
            dataclasses.replace(case, patient=case.image)
            for case in method(0.1 * step + rng.normal(0, 0.01, 24), hd95=rng.uniform(size=24))
        ]
        for step in range(9)
    }
    found = compare_methods(methods, metrics=METRICS_TESTED)
    test = found.pairs[0].tests["dsc"]
    assert test.p_permutation == pytest.approx(1 / (1 + 100 * 36 * 3))
    assert test.p_permutation_holm <= 0.01


class TestMargins:
    def test_a_bare_number_is_of_the_dice(self, comparison):
        for pair in comparison.pairs:
            found = {name: test.equivalence for name, test in pair.tests.items()}
            assert found["hd95"] is found["nsd"] is None
            assert found["dsc"].margin == 0.05

    def test_less_distance_is_not_inferior(self):
        rng = np.random.default_rng(5)
        hd95 = rng.uniform(5, 9, 24)
        cases = method(np.full(24, 0.8), hd95=hd95)
        shorter = method(np.full(24, 0.8), hd95=hd95 - 2 + rng.normal(0, 0.1, 24))
        for order, expected in (((cases, shorter), True), ((shorter, cases), False)):
            two = dict(zip("ab", order, strict=True))
            found = compare_methods(two, margin={"hd95": 1.0}).pairs[0].tests["hd95"].equivalence
            assert found.non_inferior is expected
            assert not found.equivalent

    def test_without_a_margin_nothing_is_equivalent(self, methods):
        found = compare_methods(methods, metrics=["dsc"])
        assert found.margin is None
        assert all(pair.tests["dsc"].equivalence is None for pair in found.pairs)

    @pytest.mark.parametrize(
        ("margin", "words"),
        [
            (0.0, "margin of dsc: expected above 0"),
            (math.nan, "margin of dsc: expected above 0"),
            ({"hd95": -1.0}, "margin of hd95: expected above 0"),
            ({"iou": 0.1}, "found of iou"),
            ({"area_error": 1.0}, "found of area_error"),
        ],
    )
    def test_a_margin_that_is_none(self, methods, margin, words):
        with pytest.raises(ConfigError, match=words):
            compare_methods(methods, metrics=["dsc", "hd95", "area_error"], margin=margin)


class TestStrata:
    def strata(self) -> list[dict[str, str]]:
        return [
            {
                "label": "benign" if i < 16 else "malignant",
                "device": "rare" if i < 2 else "usual",
                "dataset": "one",
                "birads": "" if i < 4 else "4",
                "site": "north" if i % 4 < 2 else "south",
            }
            for i in range(24)
        ]

    def compared(self):
        rng = np.random.default_rng(7)
        two = {
            "a": method(rng.uniform(size=24), strata=self.strata()),
            "b": method(rng.uniform(size=24)),
        }
        return two, compare_methods(two, metrics=["dsc"])

    def test_kinds_and_levels(self):
        _, found = self.compared()
        levels = {kind: list(own) for kind, own in found.strata.items()}
        assert levels == {
            "size": ["small", "medium", "large"],
            "label": ["benign", "malignant"],
            "birads": ["4"],
            "device": ["usual"],
            "site": ["north", "south"],
        }
        assert found.strata_left_out == {"device": ["rare"]}

    def test_numbers_are_those_of_the_part(self):
        two, found = self.compared()
        part = found.strata["label"]["malignant"]
        alone = compare_methods({name: own[16:] for name, own in two.items()}, metrics=["dsc"])
        assert (part.num_images, part.num_patients) == (8, 4)
        assert part.differences["b"]["dsc"] == alone.pairs[0].tests["dsc"].difference
        assert part.harmed["b"] == alone.pairs[0].harmed
        assert part.summaries["a"] == alone.summaries["a"].metrics

    def test_empty_masks_are_counted_beside_the_means(self):
        two, _ = self.compared()
        a, b = two["a"], list(two["b"])
        b[3], b[20] = (
            dataclasses.replace(b[i], metrics=dataclasses.replace(b[i].metrics, outcome="missed"))
            for i in (3, 20)
        )
        found = compare_methods({"a": a, "b": b}, metrics=["dsc"]).strata["label"]
        assert [part.counts["b"].missed for part in found.values()] == [1, 1]
        assert [part.counts["a"].missed for part in found.values()] == [0, 0]

    def test_sizes_are_thirds_at_stated_cuts(self):
        _, found = self.compared()
        sizes = found.strata["size"]
        assert [part.num_images for part in sizes.values()] == [8, 8, 8]
        areas = np.arange(10.0, 34.0)
        assert found.size_cuts == pytest.approx(tuple(np.quantile(areas, [1 / 3, 2 / 3])))

    def test_an_image_without_a_lesion_has_no_size(self):
        cases = method(np.linspace(0.1, 0.9, 24))
        empty = dataclasses.replace(cases[0].metrics, area_target=0.0)
        cases[0] = dataclasses.replace(cases[0], metrics=empty)
        found = compare_methods({"a": cases, "b": cases}, metrics=["dsc"])
        assert sum(part.num_images for part in found.strata["size"].values()) == 23

    def test_methods_that_disagree_on_an_image_are_refused(self):
        one = method(np.full(24, 0.5), strata=self.strata())
        other = [dataclasses.replace(case, strata={"label": "malignant"}) for case in one]
        with pytest.raises(InputError, match=r"00 was measured .*label benign, found .*malignant"):
            compare_methods({"a": one, "b": other})


class TestUndefined:
    """Under the policy `ignore` a pair without a value is left out, of each metric by itself."""

    def test_pairs_are_left_out(self):
        rng = np.random.default_rng(8)
        dsc, hd95 = rng.uniform(size=(2, 24)), rng.uniform(1, 9, size=(2, 24))
        hd95[0, 3] = hd95[1, 10] = math.nan
        two = {name: method(dsc[i], hd95=hd95[i]) for i, name in enumerate(("a", "b"))}
        found = compare_methods(two, metrics=["dsc", "hd95"])
        differences = hd95[1] - hd95[0]
        test = found.pairs[0].tests["hd95"]
        assert test.difference.mean == pytest.approx(np.nanmean(differences))
        there = differences[~np.isnan(differences)]
        assert test.p_wilcoxon == pytest.approx(stats.wilcoxon(there, method="exact").pvalue)
        assert found.summaries["a"].undefined == {"hd95": 1}
        assert found.summaries["a"].metrics["hd95"].mean == pytest.approx(np.nanmean(hd95[0]))
        json.dumps(found.to_json(), allow_nan=False)

    def test_a_metric_of_no_image_is_not_tested(self):
        nothing = np.full(24, math.nan)
        two = {"a": method(np.full(24, 0.5), assd=nothing), "b": method(np.full(24, 0.6))}
        assert set(METRICS) - set(compare_methods(two).metrics) == {"assd"}
        found = compare_methods(two, metrics=["dsc", "assd"])
        assert list(found.pairs[0].tests) == ["dsc"]
        assert found.pairs[0].tests["dsc"].p_permutation_holm == pytest.approx(2 / 2**12)


class TestStudyPlan:
    def test_power_is_that_of_the_t_test(self, methods, comparison):
        plan = comparison.sample_size
        differences = change(methods, "refined", "coarse", "dsc")
        assert plan.effect == pytest.approx(differences.mean())
        assert plan.sd == pytest.approx(differences.std(ddof=1))
        assert plan.icc == comparison.pairs[0].tests["dsc"].mixed.icc
        assert plan.images_per_patient == 2.0
        sd_patient = plan.sd * math.sqrt((1 + plan.icc) / 2)
        for num, is_enough in ((plan.num_patients, True), (plan.num_patients - 1, False)):
            shift = plan.effect / sd_patient * math.sqrt(num)
            critical = stats.t.ppf(0.975, num - 1)
            power = stats.nct.sf(critical, num - 1, shift) + stats.nct.cdf(
                -critical, num - 1, shift
            )
            assert bool(power >= 0.8) is is_enough

    def test_a_given_effect(self, methods):
        small, large = (
            compare_methods(methods, metrics=["dsc"], effect=effect).sample_size
            for effect in (0.005, 0.05)
        )
        assert small.effect == 0.005
        assert small.num_patients > 20 * large.num_patients

    def test_an_effect_of_nothing_is_refused(self, methods):
        with pytest.raises(ConfigError, match="effect: expected a difference other than 0"):
            compare_methods(methods, metrics=["dsc"], effect=0.0)

    def test_nothing_to_plan_by(self):
        same = method(np.full(24, 0.5))
        assert compare_methods({"a": same, "b": same}, metrics=["dsc"]).sample_size is None


class TestContract:
    def test_json(self, comparison):
        content = comparison.to_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert content.keys() >= {
            *("methods", "reference", "metrics", "distance_unit", "num_images", "num_patients"),
            *("delta", "margin", "seed", "summaries", "pairs", "strata", "sample_size"),
        }
        assert content["summaries"]["coarse"].keys() == {"metrics", "counts", "undefined"}
        assert content["margin"] == {"dsc": 0.05}
        pair = content["pairs"][0]
        assert pair["harmed"].keys() >= {"num", "share", "low", "high", "clustered_low"}
        assert pair["tests"]["dsc"].keys() == {
            *("difference", "p_permutation", "p_permutation_holm", "p_wilcoxon", "rank_biserial"),
            *("p_sign", "sign_balance", "standardised_mean", "mixed", "equivalence"),
        }
        assert content["strata"]["size"]["small"].keys() == {
            *("num_images", "num_patients", "summaries", "counts", "differences", "harmed"),
        }

    def test_the_order_of_images_changes_no_bit(self, methods, comparison):
        shuffled = {
            name: [cases[i] for i in np.random.default_rng(seed).permutation(24)]
            for seed, (name, cases) in enumerate(methods.items())
        }
        found = compare_methods(shuffled, metrics=METRICS_TESTED, margin=0.05)
        assert json.dumps(found.to_json()) == json.dumps(comparison.to_json())

    def test_one_patient_gives_no_test_over_patients(self):
        cases = [
            dataclasses.replace(case, patient="p") for case in method(np.linspace(0.1, 0.9, 24))
        ]
        better = [
            dataclasses.replace(case, patient="p") for case in method(np.linspace(0.2, 0.9, 24))
        ]
        found = compare_methods({"a": cases, "b": better}, metrics=["dsc"], margin=0.01)
        content = found.to_json()
        test = content["pairs"][0]["tests"]["dsc"]
        assert test["p_permutation"] == 1.0
        assert test["mixed"] is test["standardised_mean"] is test["equivalence"]["low"] is None
        assert content["strata"] == {}
        assert content["strata_left_out"] == {"size": ["small", "medium", "large"]}
        json.dumps(content, allow_nan=False)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"reference": "none"}, "reference: expected one of coarse"),
            ({"metrics": ["dice"]}, "unknown metric 'dice'"),
            ({"metrics": ["dsc", "dsc"]}, "metrics: expected each once"),
            ({"metrics": []}, "metrics: expected one or more"),
            ({"delta": 1.0}, "delta"),
        ],
    )
    def test_settings_out_of_range(self, methods, arguments, words):
        with pytest.raises(ConfigError, match=words):
            compare_methods(methods, **arguments)

    def test_one_method_is_no_comparison(self, methods):
        with pytest.raises(ConfigError, match="methods: expected two or more, found coarse"):
            compare_methods({"coarse": methods["coarse"]})

    def test_images_that_one_lacks_are_named(self, methods):
        with pytest.raises(InputError, match=r"b lacks 2 of 24 images: .* no 00, 01\."):
            compare_methods({"a": methods["coarse"], "b": methods["other"][2:]})

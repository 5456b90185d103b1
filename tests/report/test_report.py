"""The page without a browser: what it says, what it shows, and that it is safe and repeatable."""

import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from report_runs import broken, disc, evaluate, make_case, renamed, small_run, speckle

from ultrarefiner.errors import InputError
from ultrarefiner.report import CaseImages, render_report
from ultrarefiner.report.cases import judge_change
from ultrarefiner.report.gallery import MAX_SHOWN, choose_groups
from ultrarefiner.report.headline import count_decisions, gain_sentence
from ultrarefiner.report.overlay import jpeg_data_uri, lesion_window, outline_path

PROVENANCE = {"Run a": {"command": "ultrarefiner refine", "ultrarefiner": "0.1.0"}}


def render(cases, evaluation=None, **changes) -> str:
    settings = {"title": "A run", "provenance": PROVENANCE} | changes
    return render_report(cases, evaluation=evaluation, **settings)


def text_of(html: str) -> str:
    """Return what a reader sees: no style, script or tag, blanks collapsed."""
    bare = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", bare).replace("&nbsp;", " ").split())


def stems_by_group(groups) -> dict[str, list[str]]:
    return {group.title: [case.stem for case in group.cases] for group in groups}


def filled(path: str, shape) -> np.ndarray:
    """Return the pixels whose centre an SVG path encloses, by the even-odd rule."""
    inside = np.zeros(shape, dtype=bool)
    for ring in re.findall(r"M([^Z]*)Z", path):
        polygon = np.array([point.split() for point in ring.split("L")], dtype=np.float32)
        for y, x in np.ndindex(*shape):
            inside[y, x] ^= cv2.pointPolygonTest(polygon, (x + 0.5, y + 0.5), False) > 0
    return inside


class TestPage:
    def test_same_input_gives_the_same_bytes(self):
        cases = small_run()
        evaluation = evaluate(cases)
        assert render(cases, evaluation) == render(cases, evaluation)

    def test_headline_states_the_numbers_of_the_evaluation(self):
        cases = small_run()
        evaluation = evaluate(cases)
        text = text_of(render(cases, evaluation))
        before, after = evaluation["baseline"]["dsc"], evaluation["summary"]["dsc"]
        assert f"Coarse DSC {before['mean']:.3f} 95 % interval {before['low']:.3f} to" in text
        assert f"Refined DSC {after['mean']:.3f} 95 % interval {after['low']:.3f} to" in text
        assert "improved 41.7 % 5 images" in text
        assert "harmed 25.0 % 3 images" in text
        assert text.count("1 missed, 0 false positive") == 2
        assert "Missed lesions 1 1" in text
        assert "Research software, not a medical device." in text

    def test_without_truth_no_quality_is_claimed(self):
        text = text_of(render(small_run(with_truth=False)))
        assert "Images refined 12" in text
        assert "Accepted 9 Rejected 3" in text
        assert "not whether they got better" in text
        assert "DSC" not in text
        assert "truth" not in text

    def test_truth_without_a_baseline(self):
        cases = [replace(case, baseline=None) for case in small_run()]
        text = text_of(render(cases, evaluate(cases, paired=False)))
        assert "Mean over 12 images of 12 patients." in text
        assert "Most harmed" not in text
        assert "DSC coarse" not in text

    def test_no_case_at_all(self):
        text = text_of(render([], provenance={}))
        assert "No image was refined." in text
        assert "All cases" not in text

    def test_only_broken_cases(self):
        text = text_of(render([broken("torn", "cannot read torn.png")]))
        assert "1 image could not be read" in text
        assert "No image was refined." in text

    def test_broken_cases_are_listed_apart(self):
        cases = small_run()
        html = render([*cases, broken("torn", "cannot read torn.png: found 3 bytes")])
        assert "1 image could not be read" in html
        assert "cannot read torn.png: found 3 bytes" in html
        assert 'data-key="torn"' not in html

    def test_pixels_that_are_gone_are_named_and_the_rest_is_shown(self):
        def gone():
            raise InputError("cannot read case-00.png", fix="Put it back.")

        first, *others = small_run(with_truth=False)
        text = text_of(render([replace(first, load=gone), *others]))
        assert "case-00 cannot be shown: cannot read case-00.png. Put it back." in text
        assert "Enlarge" not in text
        assert "case-01" in text

    def test_everything_from_outside_is_escaped(self):
        evil = '"><script>alert(1)</script>'
        cases = [renamed(make_case("a", 15, 18, reason=evil), evil), broken(evil, evil)]
        provenance = {evil: {evil: evil}}
        html = render(cases, evaluate(cases), title=evil, provenance=provenance, notes=[evil])
        assert html.count("<script>") == 1
        escaped = r"(&lt;|\\u003c)script(&gt;|\\u003e)alert\(1\)"
        assert "alert(1)" not in re.sub(escaped, "", html)

    def test_nothing_is_loaded_from_elsewhere(self):
        cases = small_run()
        html = render(cases, evaluate(cases))
        assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
        assert "http://" not in html
        assert "https://" not in html
        assert "default-src 'none'" in html


class TestGallery:
    def test_groups_hold_the_right_cases(self):
        groups = stems_by_group(choose_groups(small_run(), delta=0.02))
        assert groups["Most harmed"] == ["case-06", "case-05", "case-07"]
        assert groups["Most improved"] == ["case-01", "case-02", "case-03"]
        assert groups["Rejected"] == ["missed", "refused-a", "refused-b"]
        assert groups["Worst"][0] == "case-00"

    def test_no_case_is_shown_twice_and_at_most_eighteen(self):
        cases = [make_case(f"case-{i:02d}", 10 + i / 3, 12 + i / 4) for i in range(40)]
        groups = choose_groups(cases, delta=0.02)
        shown = [case.stem for group in groups for case in group.cases]
        assert len(shown) == len(set(shown)) <= MAX_SHOWN

    def test_best_and_median(self):
        cases = [make_case(f"r{radius}", radius, radius) for radius in range(6, 21)]
        groups = stems_by_group(choose_groups(cases, delta=0.02))
        assert groups["Worst"] == ["r6", "r7", "r8"]
        assert groups["Median"][0] == "r13"
        assert groups["Best"] == ["r20", "r19", "r18"]
        assert "Most harmed" not in groups

    def test_without_truth_the_least_agreement_comes_first(self):
        groups = choose_groups(small_run(with_truth=False), delta=0.02)
        assert [group.title for group in groups] == ["Least trusted", "Rejected", "Typical"]
        first = [case.number("iou_with_coarse") for case in groups[0].cases]
        assert first == sorted(first)
        assert len(first) == 6
        assert {case.stem for case in groups[1].cases} == {"refused-a", "refused-b", "missed"}


class TestOverlay:
    def test_outline_of_a_rectangle_runs_along_its_pixel_edges(self):
        mask = np.zeros((8, 10), dtype=bool)
        mask[2:5, 3:8] = True
        assert outline_path(mask) == "M3 2L3 5L8 5L8 2Z"

    def test_outline_of_nothing_is_empty(self):
        assert outline_path(np.zeros((4, 4), dtype=bool)) == ""

    def test_outline_at_the_border_is_not_cut(self):
        assert outline_path(np.ones((2, 3), dtype=bool)) == "M0 0L0 2L3 2L3 0Z"

    def test_hole_and_second_blob_have_rings_of_their_own(self):
        mask = np.zeros((12, 12), dtype=bool)
        mask[1:8, 1:8] = True
        mask[3:6, 3:6] = False
        mask[9:11, 9:11] = True
        path = outline_path(mask)
        assert path.count("M") == 3
        assert np.array_equal(filled(path, mask.shape), mask)

    def test_simplified_outline_keeps_to_its_mask(self):
        mask = disc(17.3, 40.2, 51.7)
        wrong = np.count_nonzero(filled(outline_path(mask), mask.shape) ^ mask)
        assert wrong < 0.03 * np.count_nonzero(mask)

    def test_window_holds_all_masks_and_stays_inside(self):
        corner, centre = disc(10, 5, 90), disc(10, 30, 70)
        x, y, width, height = lesion_window([corner, centre])
        inside = np.zeros_like(corner)
        inside[y : y + height, x : x + width] = True
        assert not ((corner | centre) & ~inside).any()
        assert (x, y + height) == (0, 96)
        assert width == height

    def test_window_of_empty_masks_is_the_image(self):
        assert lesion_window([np.zeros((30, 40), dtype=bool)]) == (0, 0, 40, 30)

    def test_jpeg_is_small_and_looks_the_same(self):
        ramp = np.linspace(0, 1, 1000, dtype=np.float32)[None].repeat(600, axis=0)
        head, data = jpeg_data_uri(ramp).split(",")
        decoded = cv2.imdecode(
            np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert head == "data:image/jpeg;base64"
        assert decoded.shape == (307, 512)
        assert np.abs(decoded[150] / 255 - np.linspace(0, 1, 512)).max() < 0.02

    def test_masks_of_another_size_are_refused(self):
        with pytest.raises(InputError, match="the truth mask and its image differ in size"):
            CaseImages(
                image=speckle(),
                coarse=disc(5),
                refined=disc(5),
                truth=np.zeros((3, 3), dtype=bool),
                boxes_xyxy=(),
            )


class TestNumbers:
    @pytest.mark.parametrize(
        ("gain", "change"),
        [(0.02, "unchanged"), (-0.02, "unchanged"), (0.021, "improved"), (-0.021, "harmed")],
    )
    def test_change_is_judged_as_by_the_metrics(self, gain, change):
        assert judge_change(gain, 0.02) == change

    def test_unknown_cells_are_none(self):
        case = replace(small_run()[0], row={"seconds": "", "predicted_iou": "nan"})
        assert case.number("seconds") is None
        assert case.number("predicted_iou") is None
        assert case.area_ratio is None
        assert (case.accepted, case.reason) == (False, "rejected")

    def test_reasons_of_several_lesions_are_counted_apart(self):
        both = "area changed too much; too many fragments"
        cases = [make_case("a", 9, 9, reason=both), make_case("b", 9, 9, reason=both[:21])]
        decisions = count_decisions(cases)
        assert (decisions.num_accepted, decisions.num_rejected) == (0, 2)
        assert decisions.reasons == (("area changed too much", 2), ("too many fragments", 1))

    @pytest.mark.parametrize("num_patients", [1, 2, 5])
    def test_few_patients_are_no_evidence_whatever_their_interval(self, num_patients):
        paired = {"differences": {"dsc": {"mean": 0.155, "low": 0.155, "high": 0.155}}}
        evaluation = {"paired": paired, "num_images": 9, "num_patients": num_patients}
        sentence = gain_sentence(evaluation)
        assert "too few patients to tell it from chance" in sentence
        assert "raised" not in sentence

    @pytest.mark.parametrize(
        ("low", "mean", "high", "said"),
        [
            (0.01, 0.02, 0.03, "raised the mean DSC by 0.020 (95 % interval 0.010 to 0.030)"),
            (-0.03, -0.02, -0.01, "lowered the mean DSC by 0.020 (95 % interval 0.010 to 0.030)"),
            (-0.01, 0.02, 0.05, "(−0.010 to +0.050) includes zero"),
        ],
    )
    def test_sentence_claims_no_more_than_the_interval(self, low, mean, high, said):
        dsc = {"mean": mean, "low": low, "high": high}
        paired = {"differences": {"dsc": dsc}}
        evaluation = {"paired": paired, "num_images": 9, "num_patients": 9}
        sentence = gain_sentence(evaluation)
        assert said in sentence
        assert "9 images of 9 patients" in sentence

"""The images to look at first: in which order, for which reason, and where on the page."""

from dataclasses import replace

import pytest
from report_runs import evaluate, make_case, scored, small_run
from test_report import render, text_of

from ultrarefiner.report.look_first import MAX_LISTED, look_first, rank_by_trust


def case(stem: str, *, predicted: str = "", iou: str = "", score: str = "", reason="accepted"):
    """Return a case that has these cells and no others."""
    row = {"accepted": str(reason == "accepted"), "reason": reason, "score": score}
    row |= {"predicted_iou": predicted, "iou_with_coarse": iou}
    return replace(make_case(stem, 15, 16, with_truth=False), row=row)


def stems(cases) -> list[str]:
    return [entry.case.stem for entry in rank_by_trust(dict(enumerate(cases)))]


class TestOrder:
    def test_by_score_the_lowest_first_and_refused_before_accepted(self):
        cases = [
            case("fine", score="-0.1"),
            case("unrefined", score="0", predicted="0.9", reason="area changed too much"),
            case("doubted", score="0", predicted="0.2", reason="area changed too much"),
            case("poor", score="-0.9"),
            case("refused", score="-2.5", reason="calibrated rule: moved far"),
            case("worst", score="-3", reason="area changed too much; calibrated rule: moved far"),
        ]
        assert stems(cases) == ["worst", "refused", "doubted", "unrefined", "poor", "fine"]
        scores = [entry.score for entry in rank_by_trust(dict(enumerate(cases)))]
        assert scores == [-3, -2.5, None, None, -0.9, -0.1]

    def test_without_score_by_the_mean_of_two_ranks(self):
        """Ranks from below: a 1 and 3, b 2 and 1, c 3 and 2; the numbers' own size is no matter."""
        cases = [
            case("a", predicted="0.10", iou="0.99"),
            case("b", predicted="0.90", iou="0.97"),
            case("c", predicted="0.91", iou="0.98"),
        ]
        assert stems(cases) == ["b", "a", "c"]

    def test_agreement_of_a_refused_image_does_not_count(self):
        cases = [
            case("a", predicted="0.9", iou="0.5", reason="too many fragments"),
            case("b", predicted="0.8", iou="1.0", reason="too many fragments"),
            case("c", predicted="0.1", iou="0.1"),
        ]
        assert stems(cases) == ["b", "a", "c"]

    def test_ties_keep_their_order_and_what_is_unknown_comes_last(self):
        cases = [
            case("unknown"),
            case("a", predicted="0.5", iou="0.5"),
            case("b", predicted="0.5", iou="0.5"),
            case("half-known", predicted="0.1"),
        ]
        assert stems(cases) == ["half-known", "a", "b", "unknown"]

    def test_images_that_no_run_decided_on_are_not_listed(self):
        assert look_first({0: replace(case("a"), row={})}) is None

    def test_reason_of_the_decision_or_what_is_low(self):
        cases = [
            case("a", reason="area changed too much"),
            case("b", predicted="0.5", iou="0.9"),
            case("c", predicted="0.8", iou="0.7"),
        ]
        assert [entry.why for entry in rank_by_trust(dict(enumerate(cases)))] == [
            "area changed too much",
            "accepted; predicted IoU higher in 75\xa0% of those accepted",
            "accepted; IoU with the coarse mask higher in 75\xa0% of those accepted",
        ]


class TestPage:
    def listed(self, html: str) -> list[str]:
        table = html.split('class="first"')[1].split("</table>")[0]
        return [part.split("</a>")[0].split(">")[1] for part in table.split("<a ")[1:]]

    @pytest.mark.parametrize("with_truth", [True, False])
    def test_refused_come_first_with_and_without_truth(self, with_truth):
        cases = small_run(with_truth=with_truth)
        html = render(cases, evaluate(cases) if with_truth else None)
        listed = self.listed(html)
        assert len(listed) == MAX_LISTED == 10
        assert set(listed[:3]) == {"refused-a", "refused-b", "missed"}
        assert "The 10 least trusted of 12 images" in text_of(html)
        assert "there is no score of a calibrated rule" in text_of(html)

    def test_scores_stand_beside_their_images(self):
        cases = [scored(c, -i / 4) for i, c in enumerate(small_run(with_truth=False))]
        text = text_of(render(cases))
        assert "by the score of the acceptance rule" in text
        assert "case-07 −1.75" in text
        assert "refused-b –" in text

    def test_every_name_leads_to_its_row(self):
        html = render(small_run(with_truth=False))
        for part in html.split('class="open-case" href="#')[1:]:
            anchor, stem = part.split('"')[0], part.split(">")[1].split("<")[0]
            row = html.split(f'<tr id="{anchor}"')
            assert len(row) == 2
            assert f'data-key="{stem}"' in row[1].split("</tr>")[0]

    def test_the_pictures_of_a_page_without_truth_follow_the_same_order(self):
        cases = small_run(with_truth=False)
        html = render(cases)
        tiles = [part.split("<")[0] for part in html.split('class="stem" title=')[1:]]
        first = [tile.split(">")[1] for tile in tiles[:6]]
        assert (
            first == [stem for stem in self.listed(html) if stem.startswith(("case", "same"))][:6]
        )

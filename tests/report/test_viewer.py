"""The gallery and its viewer in a browser: slider, zoom, layers, every case, by keyboard too."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from browsing import NEEDS_CHROMIUM, launched, watched
from PIL import Image
from report_runs import evaluate, make_case, small_run

from ultrarefiner.errors import InputError
from ultrarefiner.report import ReportCase, render_report
from ultrarefiner.report.viewer import compare_metrics

pytestmark = NEEDS_CHROMIUM

ORANGE, BLUE = (230, 159, 0), (86, 180, 233)  # outlines of coarse and refined masks
EXTRA = 18  # cases beside the small run's, so that some have no tile


def complete(case: ReportCase) -> ReportCase:
    """Return the case with points and a gate map that rises from left to right."""
    gate = np.tile(np.linspace(0, 1, 24, dtype=np.float32), (24, 1))
    points = ((48.0, 48.0), (10.0, 12.0))
    images = replace(case.load(), points_xy=points, point_labels=(1, 0), gate=gate)
    return replace(case, load=lambda: images)


def run_of_many() -> list[ReportCase]:
    """Return 30 cases, the last but one without pixels."""

    def gone():
        raise InputError("cannot read it")

    more = [make_case(f"more-{i:02d}", 17 + i / 40, 18) for i in range(EXTRA)]
    cases = [complete(case) for case in [*small_run(), *more]]
    return [*cases[:-2], replace(cases[-2], load=gone), cases[-1]]


CASES = run_of_many()


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    scored = [*small_run(), *(make_case(case.stem, 17, 18) for case in CASES[12:])]
    path = tmp_path_factory.mktemp("viewer") / "report.html"
    html = render_report(CASES, title="A run", evaluation=evaluate(scored), provenance={})
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture
def page(browser, report):
    with watched(browser, report) as page:
        yield page


@pytest.fixture
def viewer(page):
    """The viewer on the first tile."""
    page.locator(".tile button").first.click()
    return page.locator("#viewer")


def num_coloured(locator, colour: tuple[int, int, int]) -> int:
    """Return how many pixels of a screenshot are nearly of a colour."""
    pixels = np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), dtype=int)
    return int((np.abs(pixels - colour).max(axis=-1) < 30).sum())


def frame(page) -> tuple[float, ...]:
    """Return x, y, width and height of what the viewer shows [px of the image]."""
    box = page.locator(".stage svg.overlay").get_attribute("viewBox")
    return tuple(map(float, box.split()))


def show_case(page, index: int) -> None:
    page.evaluate(
        "index => document.dispatchEvent(new CustomEvent('show-case', {detail: index}))", index
    )


def case_without_tile(page) -> int:
    tiles = page.locator(".tile").evaluate_all("all => all.map(tile => Number(tile.dataset.case))")
    return next(i for i in range(12, 12 + EXTRA) if i not in tiles)


class TestTile:
    def test_both_outlines_at_rest_and_one_at_each_end_of_the_slider(self, page):
        tile = page.locator(".tile").first
        picture, slider = tile.locator("button"), tile.locator("input[type=range]")
        assert min(num_coloured(picture, colour) for colour in (ORANGE, BLUE)) > 50
        slider.focus()
        page.keyboard.press("End")
        assert num_coloured(picture, BLUE) == 0
        assert num_coloured(picture, ORANGE) > 50
        page.keyboard.press("Home")
        assert num_coloured(picture, BLUE) > 50
        assert num_coloured(picture, ORANGE) == 0
        assert slider.get_attribute("aria-valuetext") == "0 % coarse, 100 % refined"

    def test_the_line_is_where_the_slider_is(self, page):
        tile = page.locator(".tile").first
        slider = tile.locator("input[type=range]")
        box = slider.bounding_box()
        slider.click(position={"x": 0.75 * box["width"], "y": box["height"] / 2})
        box = slider.bounding_box()
        line = tile.locator("path.divider").first.bounding_box()
        share = (line["x"] + line["width"] / 2 - box["x"]) / box["width"]
        assert share == pytest.approx(0.75, abs=0.02)

    def test_another_slider_puts_the_first_picture_to_rest(self, page):
        for number in (0, 1):
            page.locator(".tile input[type=range]").nth(number).focus()
            page.keyboard.press("ArrowRight")
        split = page.locator(".tile svg.overlay.split")
        assert split.count() == 1
        assert page.locator(".tile").nth(1).locator("svg.split").count() == 1

    @pytest.mark.parametrize("how", ["print", "no script"])
    def test_on_paper_and_without_a_script_outlines_are_there_and_controls_are_not(
        self, browser, report, how
    ):
        settings = {"java_script_enabled": False} if how == "no script" else {}
        with watched(browser, report, **settings) as page:
            page.emulate_media(media="print" if how == "print" else "screen")
            tile = page.locator(".tile").first
            assert tile.locator("input[type=range]").is_hidden()
            for layer in ("coarse", "refined", "truth"):
                assert tile.locator(f"path.line.{layer}").is_visible()
            assert tile.locator(".fill").first.is_hidden()


class TestSlider:
    def test_by_keyboard_it_moves_the_line_and_not_the_case(self, page, viewer):
        name = viewer.locator("#viewer-name").text_content()
        slider, stage = viewer.locator("input[type=range]"), viewer.locator(".canvas")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == "51"
        assert viewer.locator("#viewer-name").text_content() == name
        page.keyboard.press("End")
        assert num_coloured(stage, BLUE) == 0
        page.keyboard.press("Home")
        assert num_coloured(stage, ORANGE) == 0

    def test_by_pointer_on_the_picture(self, page, viewer):
        box = viewer.locator(".canvas").bounding_box()
        middle = box["y"] + box["height"] / 2
        before = frame(page)
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
        page.mouse.up()
        assert viewer.locator("input[type=range]").input_value() == "25"
        assert frame(page) == before

    def test_switched_off_both_outlines_are_whole(self, page, viewer):
        page.keyboard.press("s")
        assert viewer.locator("svg.split").count() == 0
        assert min(num_coloured(viewer.locator(".canvas"), c) for c in (ORANGE, BLUE)) > 300
        viewer.locator("input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        assert viewer.locator("svg.split").count() == 1
        assert viewer.locator("input[data-layer=slider]").is_checked()


class TestZoom:
    def test_keys_and_buttons(self, page, viewer):
        whole = frame(page)
        page.keyboard.press("+")
        close = frame(page)
        assert close[2] == pytest.approx(whole[2] / 1.5)
        viewer.get_by_role("button", name="Zoom in").click()
        assert frame(page)[2] == pytest.approx(whole[2] / 2.25)
        page.keyboard.press("-")
        viewer.get_by_role("button", name="Zoom out").click()
        assert frame(page)[2] == pytest.approx(whole[2], rel=1e-3)
        page.keyboard.press("+")
        page.keyboard.press("0")
        assert frame(page) == pytest.approx(whole)

    def test_the_wheel_keeps_what_is_under_the_pointer(self, page, viewer):
        box = viewer.locator(".canvas").bounding_box()
        share = (0.3, 0.7)

        def under_pointer():
            x, y, w, h = frame(page)
            return x + share[0] * w, y + share[1] * h

        page.mouse.move(box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"])
        before, width = under_pointer(), frame(page)[2]
        page.mouse.wheel(0, -300)
        page.wait_for_function(
            "width => document.querySelector('.stage svg').viewBox.baseVal.width < width", arg=width
        )
        assert under_pointer() == pytest.approx(before, abs=0.5)

    def test_the_picture_moves_with_the_pointer_and_with_shifted_arrows(self, page, viewer):
        for _ in range(3):
            page.keyboard.press("+")
        box = viewer.locator(".canvas").bounding_box()
        x, y, w, _ = frame(page)
        per_px = w / box["width"]
        start = (box["x"] + 60, box["y"] + 60)
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(start[0] + 100, start[1] + 40, steps=5)
        page.mouse.up()
        assert frame(page)[:2] == pytest.approx((x - 100 * per_px, y - 40 * per_px), abs=0.2)
        name = viewer.locator("#viewer-name").text_content()
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("ArrowDown")
        expected = (x - 40 * per_px, y + 20 * per_px)
        assert frame(page)[:2] == pytest.approx(expected, abs=0.2)
        assert viewer.locator("#viewer-name").text_content() == name

    def test_no_further_out_than_the_whole_image(self, page, viewer):
        for _ in range(12):
            page.keyboard.press("-")
        w, h = frame(page)[2:]
        assert min(w, h) == pytest.approx(96, rel=1e-3)


class TestLayers:
    def test_closed_it_is_not_fitted_to_a_window_that_changes(self, page, viewer):
        page.keyboard.press("Escape")
        page.set_viewport_size({"width": 900, "height": 700})
        page.keyboard.press("z")  # an error would be logged, which fails the page
        page.wait_for_timeout(100)
        assert not page.evaluate("document.getElementById('viewer').open")

    def test_the_gate_comes_with_its_key(self, page, viewer):
        gate = viewer.locator("image.gate")
        assert gate.is_hidden()
        page.keyboard.press("g")
        assert gate.is_visible()
        key = viewer.locator(".gate-key")
        assert key.text_content().split() == ["0", "1"] or key.text_content() == "01"
        assert page.locator("#show-gate").is_checked()

    def test_points_on_and_beside_the_lesion(self, viewer):
        assert viewer.locator("path.points_on").last.get_attribute("d") == "M48.0 48.0h0"
        assert viewer.locator("path.points_beside").last.get_attribute("d") == "M10.0 12.0h0"

    def test_letters_typed_into_the_search_are_no_commands(self, page):
        page.locator("#search-cases").fill("")
        page.locator("#search-cases").press_sequentially("more tcrpgz")
        assert page.locator("#search-cases").input_value() == "more tcrpgz"
        assert page.locator("#show-truth").is_checked()
        assert not page.locator("#show-gate").is_checked()


class TestEveryCase:
    def test_an_event_opens_a_case_without_a_tile(self, page):
        index = case_without_tile(page)
        show_case(page, index)
        viewer = page.locator("#viewer")
        assert viewer.locator("#viewer-name").text_content() == CASES[index].stem
        assert viewer.locator(".viewer-place").text_content() == f"{index + 1} of {len(CASES)}"
        assert min(num_coloured(viewer.locator(".canvas"), c) for c in (ORANGE, BLUE)) > 100
        size = viewer.locator("image.photo").evaluate(
            "async image => { const i = new Image(); i.src = image.getAttribute('href');"
            " await i.decode(); return [i.naturalWidth, i.naturalHeight]; }"
        )
        assert size == [96, 96]

    def test_its_picture_is_drawn_like_one_with_a_tile(self, page):
        def drawing(index):
            show_case(page, index)
            svg = page.locator(".stage svg.overlay")
            return svg.evaluate(
                "svg => [svg.dataset.window, svg.dataset.whole, ...[...svg.querySelectorAll('*')]"
                ".map(part => [part.tagName, part.getAttribute('class')].join(' '))]"
            )

        assert drawing(case_without_tile(page))[1:] == drawing(0)[1:]

    def test_all_numbers_of_the_case_are_there(self, page):
        show_case(page, 3)
        rows = page.locator("#viewer table.numbers tbody tr")
        expected = compare_metrics(CASES[3], distance_unit="px")
        assert rows.count() == len(expected) >= 8
        for number, (label, before, after, change, verdict) in enumerate(expected):
            cells = rows.nth(number).locator("th, td")
            assert cells.all_text_contents() == [label, before, after, change]
            assert verdict in cells.last.get_attribute("class")
        facts = page.locator("#viewer dl").inner_text()
        assert "accepted" in facts
        assert "0.00 to 1.00" in facts

    def test_a_case_without_pixels_still_shows_its_numbers(self, page):
        show_case(page, len(CASES) - 2)
        viewer = page.locator("#viewer")
        assert viewer.locator(".no-picture").is_visible()
        assert viewer.locator("table.numbers tbody tr").count() >= 8
        for key in ("+", "-", "0", "z", "s", "ArrowDown"):
            page.keyboard.press(key)
        page.keyboard.press("ArrowRight")
        assert viewer.locator(".no-picture").is_hidden()
        assert "cannot be shown: cannot read it" in page.locator(".page-head").text_content()

    def test_the_rows_on_show_are_stepped_through_in_their_order(self, page):
        page.locator("#search-cases").fill("refused")
        page.locator("table.cases thead button").first.click()
        page.locator("table.cases thead button").first.click()
        stems = page.locator("table.cases tbody tr:visible th").all_text_contents()
        assert stems == ["refused-b", "refused-a"]
        page.locator("table.cases tbody tr:visible .open-case").first.click()
        name = page.locator("#viewer-name")
        assert name.text_content() == "refused-b"
        page.keyboard.press("ArrowRight")
        assert name.text_content() == "refused-a"
        page.keyboard.press("ArrowRight")
        assert name.text_content() == "refused-b"

    def test_focus_returns_to_the_row_of_the_case_last_seen(self, page):
        buttons = page.locator("table.cases .open-case")
        buttons.nth(14).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        expect = pytest.importorskip("playwright.sync_api").expect
        expect(buttons.nth(15)).to_be_focused()

    def test_a_mark_in_a_figure_opens_its_case(self, page):
        mark = page.locator("svg.chart .mark[data-case]").last
        mark.dispatch_event("click")
        index = int(mark.get_attribute("data-case"))
        assert page.locator("#viewer-name").text_content() == CASES[index].stem


class TestAccess:
    def test_every_control_of_the_viewer_has_a_name_and_can_be_reached(self, page, viewer):
        controls = viewer.locator("button, input, [tabindex='0']")
        names = controls.evaluate_all(
            "all => all.map(part => part.ariaLabel || part.labels?.[0]?.textContent.trim() || '')"
        )
        assert len(names) > 12
        assert all(names), names
        reached = set()
        for _ in range(2 * len(names)):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "[...document.querySelectorAll('#viewer *')].indexOf(document.activeElement)"
                )
            )
        assert len(reached - {-1}) == len(names)

    def test_nothing_moves_by_itself(self, page, viewer):
        assert page.evaluate("document.getAnimations().length") == 0

    @pytest.mark.parametrize("width_px", [400, 1400])
    def test_picture_slider_and_numbers_do_not_overlap(self, page, viewer, width_px):
        page.set_viewport_size({"width": width_px, "height": 800})
        stage, slider, facts = (
            viewer.locator(part).bounding_box() for part in (".stage", ".wipe", ".viewer-facts")
        )
        assert stage["y"] + stage["height"] <= slider["y"]
        below = slider["y"] + slider["height"] <= facts["y"]
        beside = slider["x"] + slider["width"] <= facts["x"]
        assert below or beside
        expected = pytest.approx(stage["width"] / stage["height"], rel=0.01)
        for _ in range(50):  # the picture follows the window's size an event later
            w, h = frame(page)[2:]
            if w / h == expected:
                break
            page.wait_for_timeout(50)
        assert w / h == expected

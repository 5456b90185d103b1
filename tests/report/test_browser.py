"""The page in a browser: quiet, self-contained, usable by keyboard, no wider than the screen."""

from itertools import pairwise
from pathlib import Path

import pytest
from browsing import NEEDS_CHROMIUM, launched, watched
from report_runs import (
    broken,
    calibration_json,
    evaluate,
    make_case,
    rule_json,
    scored,
    small_run,
)

from fakes.results import comparison, probabilities, write_training
from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report import render_report
from ultrarefiner.report.calibrated import read_calibration
from ultrarefiner.report.learning import read_training

LAYERS = {"truth": "t", "coarse": "c", "refined": "r", "prompts": "p"}

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    evil = "<script>document.title = 'owned'</script>" + "long-" * 20
    done = [scored(case, -i / 4) for i, case in enumerate([*small_run(), make_case(evil, 14, 17)])]
    cases = [*done, broken("torn", "cannot read " + "x" * 200)]
    path = tmp_path_factory.mktemp("report") / "report.html"
    for case in cases[:-1]:
        case.metrics.update(area_pred=90.0, area_target=100.0)
    evaluation = evaluate(cases) | {"comparison": comparison("refined", "other " * 9)}
    html = render_report(
        cases,
        title="A run",
        evaluation=evaluation | {"probabilities": probabilities()},
        trainings=[read_training(write_training(path.with_name("net")), name="net-" * 20)],
        provenance={"Run": {"command": "ultrarefiner refine " + "--very-long-option " * 20}},
        notes=["A note."],
        rule=AcceptanceRule.from_json(rule_json(threshold=-2.0)),
        calibrations=[
            read_calibration(calibration_json(), name=f"fold-{i}-" * 12, path=path) for i in (1, 2)
        ],
    )
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture
def page(browser, report):
    """The open page; when the test is over, it has logged no error and asked for no other file."""
    with watched(browser, report) as page:
        yield page


def names(page) -> list[str]:
    return page.locator("table.cases tbody th").all_text_contents()


def test_page_is_quiet_and_runs_nothing_from_a_file_name(page):
    assert page.title() == "A run"
    assert page.locator("table.cases tbody tr").count() == 13


@pytest.mark.parametrize("width_px", [400, 768, 1400])
def test_page_is_no_wider_than_the_screen(page, width_px):
    page.set_viewport_size({"width": width_px, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    page.locator(".tile button").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    assert page.evaluate("document.getElementById('viewer').scrollWidth") <= width_px


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_goes_and_comes_by_checkbox_and_by_key(page, layer):
    outline = page.locator(f".tile path.line.{layer}").first
    assert outline.is_visible()
    page.locator(f"#show-{layer}").uncheck()
    assert outline.is_hidden()
    page.keyboard.press(LAYERS[layer])
    assert outline.is_visible()
    assert page.locator(f"#show-{layer}").is_checked()


def test_close_up_and_whole_image(page):
    picture = page.locator("svg.overlay").first
    close_up = picture.get_attribute("viewBox")
    page.keyboard.press("z")
    assert picture.get_attribute("viewBox") == "0 0 96 96" != close_up
    page.keyboard.press("z")
    assert picture.get_attribute("viewBox") == close_up


def test_viewer_by_keyboard(page):
    stems = page.locator(".tile .stem").all_text_contents()
    viewer, name = page.locator("#viewer"), page.locator("#viewer-name")
    assert viewer.is_hidden()
    page.locator(".tile button").first.focus()
    page.keyboard.press("Enter")
    assert viewer.is_visible()
    assert name.text_content() == stems[0]
    page.keyboard.press("ArrowRight")
    assert name.text_content() == stems[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert name.text_content() == stems[-1]
    page.keyboard.press("t")
    assert viewer.locator("path.line.truth").last.is_hidden()
    page.keyboard.press("Escape")
    assert viewer.is_hidden()
    # The dialog's close event comes a moment after the key, so that this has to wait for it.
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator(f'button[aria-label="Enlarge {stems[-1]}"]')).to_be_focused()


def test_viewer_shows_the_picture_large(page):
    page.locator(".tile button").first.click()
    box = page.locator("#viewer .stage svg.overlay").bounding_box()
    assert min(box["width"], box["height"]) > 600


def test_table_sorts_by_keyboard(page):
    header = page.locator("table.cases th", has_text="DSC refined")
    original = names(page)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    column = header.evaluate("cell => cell.cellIndex")
    cells = page.locator(f"table.cases tbody tr > :nth-child({column + 1})")
    rising = [float(text) for text in cells.all_text_contents()]
    assert rising == sorted(rising)
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in cells.all_text_contents()] == sorted(rising, reverse=True)
    assert sorted(names(page)) == sorted(original)


def test_unknown_values_sort_last_both_ways(page):
    header = page.locator("table.cases th", has_text="Area ratio")
    for _ in range(2):
        header.locator("button").click()
        assert names(page)[-1] == "missed"


def test_a_mark_opens_its_image_and_finds_its_row(page):
    mark = page.locator("#figures svg.chart .mark.harmed[data-case]").last
    index = mark.get_attribute("data-case")
    name = page.locator(f'table.cases tr[data-case="{index}"] th').text_content()
    mark.dispatch_event("click")
    assert page.locator("tr.found").get_attribute("data-case") == index
    assert page.locator("#viewer").is_visible()
    assert page.locator("#viewer-name").text_content() == name


def test_a_row_opens_its_image_by_keyboard(page):
    button = page.locator("table.cases .open-case").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    assert page.locator("#viewer-name").text_content() == button.text_content()


def test_the_first_to_look_at_opens_its_image_by_keyboard(page):
    link = page.locator("#first .open-case").nth(1)
    link.focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    assert page.locator("#viewer-name").text_content() == link.text_content()
    found = page.locator("tr.found")
    assert f"#{found.get_attribute('id')}" == link.get_attribute("href")


def shown(page) -> list[str]:
    return page.locator("table.cases tbody tr:visible th").all_text_contents()


def test_search_and_filters_of_the_table(page):
    everything = shown(page)
    page.locator("#search-cases").fill("REFUSED")
    assert shown(page) == ["refused-a", "refused-b"]
    assert page.locator(".filters output").text_content() == "2 of 13 cases"
    page.locator("#search-cases").fill("low refused")
    assert shown(page) == ["refused-b"]
    page.locator("#search-cases").fill("nothing has this")
    assert shown(page) == []
    page.locator("#search-cases").fill("")
    assert shown(page) == everything
    page.locator('[data-only="harmed"]').check()
    assert shown(page) == ["case-05", "case-06", "case-07"]
    page.locator('[data-only="rejected"]').check()
    assert shown(page) == ["case-05", "case-06", "case-07", "refused-a", "refused-b", "missed"]


def test_filters_survive_sorting_but_not_printing(page):
    page.locator('[data-only="harmed"]').check()
    page.locator("table.cases th", has_text="DSC refined").locator("button").click()
    assert len(shown(page)) == 3
    page.emulate_media(media="print")
    assert len(shown(page)) == 13
    assert page.locator(".filters").is_hidden()


def test_keys_typed_into_the_search_switch_no_layer(page):
    page.locator("#search-cases").focus()
    page.keyboard.type("trcpz")
    assert page.locator("#search-cases").input_value() == "trcpz"
    assert page.locator("#show-truth").is_checked()


def test_skip_link_and_contents_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for link in page.locator(".contents a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_headings_step_down_one_level_at_a_time(page):
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_print_shows_the_whole_table_and_no_controls(page):
    page.emulate_media(media="print")
    scroll = page.locator(".scroll.tall")
    assert scroll.evaluate("area => area.scrollHeight <= area.clientHeight")
    assert page.locator("#show-truth").is_hidden()

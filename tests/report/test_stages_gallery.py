"""The gallery of stages: what is drawn is what was done, where it was done; and it is quiet."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsing import launched, needs_chromium, watched

import ultrarefiner.cli.gallery as command
from fakes.busbra import write_fake_busbra
from ultrarefiner.cli import main
from ultrarefiner.errors import ConfigError, OutputError
from ultrarefiner.foundation import LiteMedSAM, lite_medsam
from ultrarefiner.metrics import evaluate_mask
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.report.hard_shapes import draw_hard_shapes
from ultrarefiner.report.overlay import outline_path
from ultrarefiner.report.panels import Panel, colour_map
from ultrarefiner.report.stages import STAGES, ShownCase, StagedCase, StagedVariant, show_case
from ultrarefiner.report.stages_gallery import (
    render_stages_gallery,
    write_stages_gallery,
    write_stages_picture,
)

_CONFIGS = {
    "literal": PRESETS["literal"],
    "default": RefinerConfig(),
    "close": RefinerConfig(roi=RoiConfig(crop=True)),
}


@pytest.fixture(scope="module")
def model() -> LiteMedSAM:
    return lite_medsam().requires_grad_(False)


@pytest.fixture(scope="module")
def refiners(model: LiteMedSAM) -> dict[str, Refiner]:
    return {name: Refiner(model, config, device="cpu") for name, config in _CONFIGS.items()}


@pytest.fixture(scope="module")
def cases() -> dict[str, StagedCase]:
    return {case.name: case for case in draw_hard_shapes(seed=0)}


@pytest.fixture(scope="module")
def shown(cases: dict[str, StagedCase], refiners: dict[str, Refiner]) -> tuple[ShownCase, ...]:
    """Two lesions, on a synthetic image; and one empty map, as if it were a patient's."""
    patient = replace(cases["Empty"], name='<b>"7"</b> & co', is_synthetic=False)
    two = cases["Two blobs"]
    return tuple(
        show_case(case, refiners, key=f"case-{i}") for i, case in enumerate((patient, two))
    )


def _panels(shown: ShownCase, variant: str) -> dict[str, Panel]:
    return dict(zip(STAGES, _variant(shown, variant).panels, strict=True))


def _variant(shown: ShownCase, name: str) -> StagedVariant:
    return next(variant for variant in shown.variants if variant.name == name)


def _path(panel: Panel, style: str) -> str:
    return "".join(mark.path for mark in panel.marks if mark.style == style)


def _numbers(path: str) -> np.ndarray:
    return np.array([float(text) for text in re.findall(r"-?\d+\.\d+", path)]).reshape(-1, 4, 2)


def _boxes(path: str) -> np.ndarray:
    """Boxes ``N 4`` xyxy of a path of boxes."""
    corners = _numbers(path)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


class TestHardShapes:
    """The lesions are there, and the maps are of them."""

    def test_the_same_seed_draws_the_same(self, cases: dict[str, StagedCase]) -> None:
        again = {case.name: case for case in draw_hard_shapes(seed=0)}
        other = {case.name: case for case in draw_hard_shapes(seed=1)}
        for name, case in cases.items():
            assert np.array_equal(case.image, again[name].image)
            assert np.array_equal(case.coarse, again[name].coarse)
            assert np.array_equal(case.truth, other[name].truth)
            assert not np.array_equal(case.image, other[name].image)

    def test_a_lesion_of_that_shape_is_dark_in_the_picture(
        self, cases: dict[str, StagedCase]
    ) -> None:
        for case in cases.values():
            around = cv2.dilate(case.truth.astype(np.uint8), np.ones((9, 9))) > case.truth
            assert case.image[case.truth].mean() < case.image[around].mean() - 0.08, case.name

    def test_the_maps_are_what_their_names_say(self, cases: dict[str, StagedCase]) -> None:
        for name, case in cases.items():
            assert case.coarse.dtype == np.float32
            assert 0 <= case.coarse.min() <= case.coarse.max() <= 1
            assert case.is_synthetic
            dsc = evaluate_mask(case.coarse > 0.5, case.truth).dsc
            if name in ("Empty", "Full", "One pixel"):
                assert dsc < 0.2
            else:
                assert 0.7 < dsc < 0.99, name
        assert cases["Empty"].coarse.max() == 0
        assert cases["Full"].coarse.min() == 1
        assert (cases["One pixel"].coarse > 0.5).sum() == 1
        floor = cases["Noisy floor 0.1"]
        assert floor.coarse[~floor.truth].mean() == pytest.approx(0.1, abs=0.01)
        num, *_ = cv2.connectedComponents((cases["Two blobs"].coarse > 0.5).astype(np.uint8))
        assert num == 3

    @pytest.mark.parametrize(("name", "borders"), [("Border", 1), ("Corner", 2), ("Disc", 0)])
    def test_borders_cut_what_they_should(
        self, cases: dict[str, StagedCase], name: str, borders: int
    ) -> None:
        truth = cases[name].truth
        touched = (truth[0], truth[-1], truth[:, 0], truth[:, -1])
        assert sum(bool(edge.any()) for edge in touched) == borders


class TestStages:
    """What is drawn is what the predictor does."""

    @pytest.mark.parametrize("name", _CONFIGS)
    def test_the_final_mask_and_boxes_are_those_of_the_predictor(
        self, shown: tuple[ShownCase, ...], refiners: dict[str, Refiner], name: str
    ) -> None:
        case, panels = shown[1].case, _panels(shown[1], name)
        alone = refiners[name](case.image, case.coarse)
        assert _path(panels["Final"], "refined") == outline_path(alone.mask)
        assert _variant(shown[1], name).reason == alone.reason
        first = [lesion.boxes_xyxy[0] for lesion in alone.lesions]
        others = [box for lesion in alone.lesions for box in lesion.boxes_xyxy[1:]]
        drawn = _path(panels["Prompts"], "first-box")
        assert np.allclose(_boxes(drawn), np.stack(first), atol=0.051)
        if others:
            drawn = _path(panels["Prompts"], "box")
            assert np.allclose(_boxes(drawn), np.stack(others), atol=0.051)
        assert len(refiners[name].pipeline._forward_hooks) == 0

    def test_dice_and_gain(self, shown: tuple[ShownCase, ...]) -> None:
        case = shown[1].case
        assert shown[1].dsc == pytest.approx(evaluate_mask(case.coarse > 0.5, case.truth).dsc)
        for variant in shown[1].variants:
            assert variant.gain == pytest.approx(variant.dsc - shown[1].dsc)
        assert "accepted" in _panels(shown[1], "default")["Final"].caption

    def test_prompts_lie_alike_on_image_and_view(self, shown: tuple[ShownCase, ...]) -> None:
        """The whole image is 256 px wide, so the model's frame has the native coordinates."""
        for name in ("literal", "default"):
            panels = _panels(shown[1], name)
            for style in ("first-box", "box"):
                assert _path(panels["View"], style) == _path(panels["Prompts"], style)

    def test_a_close_up_shows_its_window(self, shown: tuple[ShownCase, ...]) -> None:
        panels = _panels(shown[1], "close")
        windows = _boxes(_path(panels["Prompts"], "window"))
        boxes = _boxes(_path(panels["Prompts"], "first-box"))
        seen = _boxes(_path(panels["View"], "first-box"))
        assert panels["View"].extent_wh == (512, 256)
        for i in range(2):
            side = windows[i, 2] - windows[i, 0]
            expected = (boxes[i] - np.tile(windows[i, :2], 2)) * 256 / side
            expected += np.array([256, 0, 256, 0]) * i
            assert np.allclose(seen[i], expected, atol=0.5)
            left, top, right, bottom = np.rint(windows[i]).astype(int)
            native = shown[1].case.image[top:bottom, left:right]
            pixels = panels["View"].rasters[i].pixels[..., 0]
            small = cv2.resize(pixels, native.shape[::-1], interpolation=cv2.INTER_AREA) / 255
            assert np.corrcoef(small.ravel(), native.ravel())[0, 1] > 0.9

    def test_points_and_mask_prompt_of_the_literal_settings(
        self, shown: tuple[ShownCase, ...]
    ) -> None:
        panel = _panels(shown[1], "literal")["Prompts"]
        points = re.findall(r"M(-?[\d.]+) (-?[\d.]+)L(-?[\d.]+)", _path(panel, "positive"))
        centres = np.array([[(float(x) + float(u)) / 2, float(y)] for x, y, u in points[::2]])
        truth = shown[1].case.truth
        num, _, _, means = cv2.connectedComponentsWithStats(truth.astype(np.uint8))
        assert len(centres) == num - 1 == 2
        assert np.allclose(centres, means[1:] + 0.5, atol=6)
        masks = panel.rasters[1:]
        assert len(masks) == 2
        assert all(np.allclose(mask.box_xyxy, (0, 0, 256, 256), atol=1e-3) for mask in masks)
        assert panel.caption == "2 boxes, 4 points, mask"

    def test_maps_of_several_lesions_are_one(self, shown: tuple[ShownCase, ...]) -> None:
        panels = _panels(shown[1], "default")
        coarse = panels["Coarse map"].rasters[0].pixels[:192]
        assert np.abs(coarse - colour_map(shown[1].case.coarse).astype(float)).max() < 80
        assert panels["Coarse map"].caption.startswith("2 lesions")
        assert panels["Prompts"].caption == "18 boxes"

    def test_an_empty_map_has_no_lesion_and_no_point(self, shown: tuple[ShownCase, ...]) -> None:
        panels = _panels(shown[0], "literal")
        assert panels["Coarse map"].caption == "no lesion, up to 0.00"
        assert panels["Prompts"].caption == "1 box"
        assert _path(panels["Prompts"], "positive") == ""
        assert np.allclose(_boxes(_path(panels["Prompts"], "first-box")), [[0, 0, 256, 192]])


class TestPage:
    """One file, quiet, described, and safe with any name."""

    def test_it_loads_nothing_and_runs_nothing(self, shown: tuple[ShownCase, ...]) -> None:
        page = render_stages_gallery(shown)
        assert "<script" not in page
        assert "default-src 'none'" in page
        assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []

    def test_every_picture_is_there_and_described(self, shown: tuple[ShownCase, ...]) -> None:
        page = render_stages_gallery(shown)
        pictures = re.findall(r'<svg class="picture"[^>]*>', page)
        assert len(pictures) == len(shown) * (1 + len(_CONFIGS) * len(STAGES))
        assert all(re.search(r'role="img" aria-label="[^"]{10,}"', each) for each in pictures)
        assert shown[0].case.name not in page
        assert "&lt;b&gt;&#34;7&#34;&lt;/b&gt; &amp; co" in page

    def test_shared_pixels_are_defined_once(self, shown: tuple[ShownCase, ...]) -> None:
        page = render_stages_gallery(shown)
        defined = re.findall(r'<image id="([^"]+)"', page)
        assert defined == ["case-0", "case-1"]
        assert set(re.findall(r'<use href="#([^"]+)"', page)) == set(defined)

    def test_patients_are_named_as_such(self, shown: tuple[ShownCase, ...]) -> None:
        assert "images of patients" in render_stages_gallery(shown)
        assert "images of patients" not in render_stages_gallery(shown[1:])

    def test_twenty_four_cases_stay_below_twelve_megabytes(
        self, shown: tuple[ShownCase, ...], tmp_path: Path
    ) -> None:
        write_stages_gallery(tmp_path / "sub" / "a.html", shown)
        assert (tmp_path / "sub" / "a.html").stat().st_size / len(shown) * 24 < 12e6

    def test_a_page_that_cannot_be_written_is_named(
        self, shown: tuple[ShownCase, ...], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(OutputError, match="gallery"):
            write_stages_gallery(tmp_path / "file" / "gallery.html", shown)

    def test_the_picture_holds_no_patient(
        self, shown: tuple[ShownCase, ...], tmp_path: Path
    ) -> None:
        for name, some in (("both.jpg", shown), ("one.jpg", shown[1:])):
            write_stages_picture(tmp_path / name, some, ("literal", "default"))
        assert (tmp_path / "both.jpg").read_bytes() == (tmp_path / "one.jpg").read_bytes()
        assert (tmp_path / "one.jpg").stat().st_size < 30_000  # 300 kB for 12 shapes
        with pytest.raises(ConfigError, match="synthetic"):
            write_stages_picture(tmp_path / "none.jpg", shown[:1], ("default",))
        with pytest.raises(ConfigError, match=r"\.jpg"):
            write_stages_picture(tmp_path / "none.png", shown, ("default",))
        assert not list(tmp_path.glob("none*"))

    @needs_chromium
    @pytest.mark.parametrize("width_px", [400, 1500])
    def test_in_a_browser_it_is_quiet_and_fits(
        self, shown: tuple[ShownCase, ...], width_px: int, tmp_path: Path
    ) -> None:
        path = tmp_path / "gallery.html"
        write_stages_gallery(path, shown)
        viewport = {"width": width_px, "height": 900}
        with launched() as browser, watched(browser, path, viewport=viewport) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px
            line = page.locator("#shapes path.line.refined").last
            assert line.evaluate("path => getComputedStyle(path).stroke") == "rgb(86, 180, 233)"
            repeated = page.locator("#shapes use").first.bounding_box()
            picture = page.locator("#shapes .stages .picture").nth(1).bounding_box()
            assert repeated == pytest.approx(picture, abs=1)


class TestCommand:
    """Real images beside shapes; what cannot work is said before anything is refined."""

    def test_it_writes_page_and_picture(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(command, "draw_hard_shapes", lambda s: islice(draw_hard_shapes(s), 1))
        data = write_fake_busbra(tmp_path / "BUSBRA")
        out, picture = tmp_path / "gallery.html", tmp_path / "stages.jpg"
        arguments = ["--data", data, "--out", out, "--picture", picture, "--num", 1]
        code = main(["gallery", *map(str, arguments), "--folds", "1,3", "--device", "cpu"])
        assert code == 0, capsys.readouterr().err
        assert "2 cases" in capsys.readouterr().out
        page = out.read_text(encoding="utf-8")
        assert page.count('<article class="case"') == 2
        assert page.count('<div class="variant">') == 2 * 3
        assert re.search(r"BUS-BRA, fold [13], (malignant|benign)", page)
        assert picture.stat().st_size > 1000

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (("--num", "0"), "--num"),
            (("--seed", "-1"), "--seed"),
            (("--folds", "9"), "no image"),
            (("--picture", "a.png"), ".jpg"),
            (("--foundation", "sam-9"), "sam-9"),
        ],
    )
    def test_what_cannot_work_is_said(
        self,
        wrong: tuple[str, str],
        message: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        data = write_fake_busbra(tmp_path / "BUSBRA")
        out = tmp_path / "gallery.html"
        code = main(["gallery", "--data", str(data), "--out", str(out), *wrong])
        assert code == 2
        assert message in capsys.readouterr().err
        assert not out.exists()

"""Loading pictures: from the files of a run, within a budget, whatever is missing."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_runs import make_case, small_run

from ultrarefiner.data.writers import write_mask, write_probability
from ultrarefiner.errors import InputError
from ultrarefiner.report import CaseImages, ReportCase
from ultrarefiner.report.gate_map import GATE_COLOURS, gate_data_uri
from ultrarefiner.report.overlay import draw_overlay
from ultrarefiner.report.pictures import load_images, load_pictures


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def noisy(stem: str, side_px: int = 600) -> ReportCase:
    """Return a case whose picture compresses badly."""
    grey = np.random.default_rng(int(stem)).random((side_px, side_px), dtype=np.float32)
    mask = np.zeros(grey.shape, dtype=bool)
    mask[100:200, 150:300] = True
    images = CaseImages(image=grey, coarse=mask, refined=mask, truth=None, boxes_xyxy=())
    return ReportCase(stem=stem, row={}, metrics=None, baseline=None, load=lambda: images)


def num_bytes(pictures) -> int:
    return sum(
        len(value)
        for overlay in pictures.overlays.values()
        for value in vars(overlay).values()
        if isinstance(value, str)
    )


class TestBudget:
    CASES = {index: noisy(str(index)) for index in range(6)}

    def sides(self, budget_bytes: int, first=(4,)) -> dict[int, int]:
        pictures = load_pictures(self.CASES, first=first, budget_bytes=budget_bytes)
        return {k: decoded(overlay.jpeg).width for k, overlay in pictures.overlays.items()}

    def test_all_are_fine_where_there_is_room(self):
        assert set(self.sides(10**8).values()) == {512}

    def test_pictures_shrink_before_any_is_left_out_but_for_the_chosen(self):
        fine = num_bytes(load_pictures(self.CASES, first=(4,), budget_bytes=10**8))
        sides = self.sides(fine // 3)
        assert sides.keys() == self.CASES.keys()
        assert sides.pop(4) == 512
        assert len(set(sides.values())) == 1
        assert set(sides.values()) < {384, 320, 256}

    @pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.4])
    def test_the_budget_is_kept(self, share: float):
        fine = num_bytes(load_pictures(self.CASES, first=(), budget_bytes=10**8))
        pictures = load_pictures(self.CASES, first=(), budget_bytes=int(share * fine))
        assert num_bytes(pictures) <= share * fine
        assert pictures.overlays.keys() == self.CASES.keys()
        assert pictures.notes == ()

    def test_beyond_the_budget_the_chosen_remain_and_a_note_says_so(self):
        pictures = load_pictures(self.CASES, first=(4, 2), budget_bytes=1000)
        assert set(pictures.overlays) == {2, 4}
        (note,) = pictures.notes
        assert note.startswith("The pictures of 4 cases are left out")

    def test_beyond_the_budget_no_more_pixels_are_read(self):
        asked = []

        def counting(index):
            def load():
                asked.append(index)
                return self.CASES[index].load()

            return replace(self.CASES[index], load=load)

        cases = {index: counting(index) for index in self.CASES}
        load_pictures(cases, first=(4,), budget_bytes=1000)
        assert asked == [4, 0]

    def test_same_cases_give_the_same_pictures(self):
        first, again = (
            load_pictures(self.CASES, first=(1,), budget_bytes=200_000) for _ in range(2)
        )
        assert first.overlays == again.overlays


class TestLostPixels:
    def gone(self, case: ReportCase) -> ReportCase:
        def load():
            raise InputError(f"cannot read {case.stem}.png")

        return replace(case, load=load)

    def test_a_few_are_named_with_their_reasons(self):
        first, *others = small_run()
        pictures = load_pictures(dict(enumerate([self.gone(first), *others])), first=(0, 1))
        assert pictures.notes == ("case-00 cannot be shown: cannot read case-00.png",)
        assert set(pictures.overlays) == set(range(1, 12))

    def test_of_many_all_are_named_in_few_notes(self):
        cases = [self.gone(case) for case in small_run()]
        notes = load_pictures(dict(enumerate(cases)), first=()).notes
        assert len(notes) == 6
        assert notes[-1].startswith("Nor can 7 other cases: ")
        assert all(any(case.stem in note for note in notes) for case in cases)


class TestDrawing:
    def test_points_are_dots_by_label(self):
        images = replace(
            make_case("a", 15, 18).load(),
            points_xy=((48.0, 40.25), (10.0, 11.0), (50.0, 52.0)),
            point_labels=(1, 0, 1),
        )
        overlay = draw_overlay(images)
        assert overlay.points_on == "M48.0 40.2h0M50.0 52.0h0"
        assert overlay.points_beside == "M10.0 11.0h0"

    def test_a_point_without_a_label_is_an_error(self):
        with pytest.raises(InputError, match="points and their labels"):
            replace(make_case("a", 15, 18).load(), points_xy=((1.0, 2.0),))

    def test_the_gate_keeps_its_values_to_a_thirtieth(self):
        gate = np.random.default_rng(0).random((40, 60), dtype=np.float32)
        picture = decoded(gate_data_uri(gate))
        assert picture.size == (60, 40)
        assert np.abs(np.asarray(picture) / 15 - gate).max() <= 1 / 30 + 1e-6

    def test_the_gate_has_the_colours_of_viridis(self):
        viridis = pytest.importorskip("matplotlib").colormaps["viridis"]
        ramp = np.linspace(0, 1, 16, dtype=np.float32)[None]
        shown = np.asarray(decoded(gate_data_uri(ramp)).convert("RGB"))[0]
        expected = 255 * viridis(np.linspace(0, 1, 16))[:, :3]
        assert np.abs(shown - expected).max() <= 3
        assert len(GATE_COLOURS) == 16

    def test_a_large_gate_is_shrunk(self):
        gate = np.tile(np.linspace(0, 1, 900, dtype=np.float32), (300, 1))
        uri = gate_data_uri(gate)
        assert decoded(uri).size == (192, 64)
        assert len(uri) < 4000

    def test_the_overlay_says_how_far_the_gate_goes(self):
        images = make_case("a", 15, 18).load()
        gate = np.array([[0.2, 0.7]], dtype=np.float32)
        overlay = draw_overlay(replace(images, gate=gate))
        assert (overlay.gate_low, overlay.gate_high) == pytest.approx((0.2, 0.7))
        without = draw_overlay(images)
        assert (without.gate, without.gate_low, without.gate_high) == ("", None, None)


class TestFilesOfARun:
    @pytest.fixture
    def run(self, tmp_path):
        """Return a run's folder and the entry of its one case in run.json."""
        images = make_case("a", 15, 18).load()
        write_probability(tmp_path / "image.png", images.image)
        write_mask(tmp_path / "coarse.png", images.coarse)
        write_mask(tmp_path / "truth.png", images.truth)
        write_mask(tmp_path / "run" / "masks" / "a.png", images.refined)
        gate = np.full((8, 8), 0.4, dtype=np.float32)
        write_probability(tmp_path / "run" / "gates" / "a.png", gate)
        made = {
            "stem": "a",
            "image": str(tmp_path / "image.png"),
            "coarse": str(tmp_path / "coarse.png"),
            "boxes_xyxy": [[1.0, 2.0, 30.0, 40.0]],
            "points_xy": [[20.0, 21.0], [1.0, 1.0]],
            "point_labels": [1, 0],
        }
        return tmp_path / "run", json.loads(json.dumps(made))

    def test_everything_comes_back(self, run):
        folder, made = run
        expected = make_case("a", 15, 18).load()
        found = load_images(folder, "a", made, truth=str(folder.parent / "truth.png"))
        for name in ("coarse", "refined", "truth"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.image, expected.image, atol=1 / 500)
        assert found.boxes_xyxy == ((1.0, 2.0, 30.0, 40.0),)
        assert found.points_xy == ((20.0, 21.0), (1.0, 1.0))
        assert found.point_labels == (1, 0)
        np.testing.assert_allclose(found.gate, 0.4, atol=1e-6)

    def test_a_run_of_an_older_version_has_neither_points_nor_gate(self, run):
        folder, made = run
        (folder / "gates" / "a.png").unlink()
        older = {name: value for name, value in made.items() if not name.startswith("point")}
        found = load_images(folder, "a", older)
        assert found.points_xy == ()
        assert found.gate is None
        assert found.truth is None

    def test_a_case_that_the_run_does_not_know(self, run):
        with pytest.raises(InputError, match=r"run\.json in .* does not know b"):
            load_images(run[0], "b", None)

    def test_an_image_that_is_gone_is_named(self, run):
        folder, made = run
        (folder.parent / "image.png").unlink()
        with pytest.raises(InputError, match=r"image\.png"):
            load_images(folder, "a", made)

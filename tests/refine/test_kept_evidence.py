"""What a refinement keeps for its report: the gate that was applied, boxes and points as given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.foundation import LiteMedSAM
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.stabilization import NO_LESION, StabilizerConfig

_CONFIG = RefinerConfig(
    prompts=PromptConfig(jitter=0.0),
    gate=GateConfig(kind="constant", minimum=0.25, maximum=0.25),
    stabilizer=StabilizerConfig(min_iou=0.5),
)


@pytest.fixture(scope="module")
def example(examples):
    """The image of all cases here."""
    return examples[4]


@pytest.fixture(scope="module")
def refine(example, lite_medsam_model: LiteMedSAM):
    """Return a function from settings and a coarse mask to the result on that image."""
    model = RememberingModel(lite_medsam_model)

    def run(coarse: np.ndarray | None = None, config: RefinerConfig = _CONFIG) -> RefinedImage:
        mask = example.rough if coarse is None else coarse
        return Refiner(model, config, device="cpu", bf16=False)(
            example.image, mask.astype(np.float32)
        )

    return run


def test_a_constant_gate_comes_back_on_its_grid_and_on_the_image(example, refine) -> None:
    result = refine()
    assert result.accepted
    assert max(result.gate.shape) == 64 * 4  # the content of the model's 256 px mask grid
    rows, cols = example.image.shape
    assert result.gate.shape[0] / result.gate.shape[1] == pytest.approx(rows / cols, rel=0.01)
    assert result.native_gate.shape == example.image.shape
    for gate in (result.gate, result.native_gate):
        np.testing.assert_allclose(gate, 0.25, atol=1e-6)


def test_the_gate_explains_the_result_pixel_by_pixel(example, refine) -> None:
    """final = coarse + gate (refined - coarse), where gate 1 tells what ``refined`` was."""
    config = replace(_CONFIG, gate=GateConfig(kind="uncertainty", minimum=0.2, maximum=0.8))
    whole = replace(_CONFIG, gate=GateConfig(kind="none"))
    shut = replace(_CONFIG, gate=GateConfig(kind="constant", minimum=0.0, maximum=0.0))
    gated, refined, coarse = (refine(config=c) for c in (config, whole, shut))
    assert gated.accepted
    assert refined.accepted
    assert coarse.accepted
    # The gate is a probability map of its own: where it is flat, resampling commutes with it.
    gate = gated.native_gate
    expected = coarse.probs + gate * (refined.probs - coarse.probs)
    flat = np.abs(gate - 0.2) < 1e-3
    assert flat.sum() > 1000
    np.testing.assert_allclose(gated.probs[flat], expected[flat], atol=5e-3)
    assert 0.7 < gate.max() <= 0.8


def test_a_refused_lesion_has_gate_zero(refine) -> None:
    refusing = replace(_CONFIG, stabilizer=StabilizerConfig(min_iou=1.0))
    result = refine(config=refusing)
    assert not result.accepted
    assert not result.gate.any()


def test_of_two_lesions_each_has_its_own_gate(example, refine) -> None:
    rows, cols = example.image.shape
    ys, xs = np.nonzero(example.rough)
    top = 8 if ys.mean() > rows / 2 else rows - 20
    left = 8 if xs.mean() > cols / 2 else cols - 20
    speck = np.zeros_like(example.rough)
    speck[top : top + 12, left : left + 12] = True
    result = refine(example.rough | speck)
    assert [lesion.accepted for lesion in result.lesions] == [True, False]
    assert not result.native_gate[speck].any()
    middle = result.native_gate[int(ys.mean()), int(xs.mean())]
    assert middle == pytest.approx(0.25)


def test_where_there_was_no_coarse_mask_the_gate_is_bypassed(example, refine) -> None:
    believing = StabilizerConfig(min_predicted_iou=0.0, max_new_share=1.0, max_components=10**6)
    result = refine(np.zeros_like(example.rough), replace(_CONFIG, stabilizer=believing))
    assert result.reason != NO_LESION
    np.testing.assert_array_equal(result.gate, 1.0)


def test_points_come_back_in_native_px_with_their_labels(example, refine) -> None:
    asked = PromptConfig(jitter=0.0, foreground="centroid", background="ring", num_sectors=4)
    (lesion,) = refine(config=replace(_CONFIG, prompts=asked)).lesions
    assert lesion.points_xy.shape == (len(lesion.point_labels), 2)
    assert set(lesion.point_labels) == {0, 1}
    ys, xs = np.nonzero(example.rough)
    centre = lesion.points_xy[lesion.point_labels == 1]
    np.testing.assert_allclose(centre, [[xs.mean() + 0.5, ys.mean() + 0.5]], atol=3.0)
    x, y = lesion.points_xy[lesion.point_labels == 0].T.astype(int)
    assert not example.rough[y, x].any()


def test_a_box_that_was_not_given_is_not_kept(refine) -> None:
    asked = PromptConfig(boxes=False, foreground="interior", num_points=3)
    (lesion,) = refine(config=replace(_CONFIG, prompts=asked)).lesions
    assert lesion.boxes_xyxy.shape == (0, 4)
    assert lesion.points_xy.shape == (3, 2)


def test_an_empty_mask_is_asked_about_with_the_whole_image(example, refine) -> None:
    asked = PromptConfig(boxes=False, foreground="centroid")
    empty = np.zeros_like(example.rough)
    (lesion,) = refine(empty, replace(_CONFIG, prompts=asked)).lesions
    rows, cols = example.image.shape
    np.testing.assert_allclose(lesion.boxes_xyxy, [[0, 0, cols, rows]], atol=1e-3)
    assert lesion.points_xy.shape == (0, 2)

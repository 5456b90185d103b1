"""The pipeline with real LiteMedSAM: limits of its stages, gradients, batches, several lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ultrarefiner.foundation import LiteMedSAM
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.localization import LocalizerConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.selection import SelectionConfig
from ultrarefiner.refine.softening import SofteningConfig, split_lesions
from ultrarefiner.refine.stabilization import ACCEPTED, Stabilizer, StabilizerConfig

_LAX = StabilizerConfig(
    min_iou=0.0, min_area_ratio=0.0, max_area_ratio=1e9, max_components=10**6, min_predicted_iou=0
)
_STRICT = replace(_LAX, min_iou=1.0)


def _config(*, jitter: float = 0.0, gate: GateConfig | None = None) -> RefinerConfig:
    return RefinerConfig(
        softening=SofteningConfig(width=0.12, max_lesions=16),
        localizer=LocalizerConfig(
            box="statistics", margin=0.0, num_stds=2.35, floor=0.05, relative=0.4
        ),
        prompts=PromptConfig(jitter=jitter),
        selection=SelectionConfig(temperature=0.05, contrast_weight=0.3, stability_weight=1.0),
        gate=gate or GateConfig(kind="none"),
        stabilizer=_LAX,
    )


@pytest.fixture(scope="session")
def scenes(examples, lite_medsam_model: LiteMedSAM) -> tuple[Scene, Scene]:
    """Two phantoms with their rough masks, each encoded alone."""
    return tuple(_scene(example, lite_medsam_model) for example in examples[1:3])


def _scene(example, model: LiteMedSAM) -> Scene:
    frame = Letterbox(example.image.shape, 256)
    lesions = split_lesions(
        example.rough.astype(np.float32), is_hard=True, frame=frame, config=_config().softening
    )
    native_hw = torch.tensor([example.image.shape])
    scene = Scene(
        images=torch.from_numpy(example.image)[None, None],
        native_hw=native_hw,
        coarse=torch.from_numpy(lesions.probs)[:1, None],
        frames=Frames.letterboxed(native_hw, 256),
        image_index=torch.tensor([0]),
    )
    images, valid = scene.images_on(scene.frames, scene.image_index)
    with torch.no_grad():
        embeddings = model.encode(model.normalise(images, valid))
    return replace(scene, embeddings=embeddings)


def _together(scenes: tuple[Scene, Scene]) -> Scene:
    """Both images, padded to one size, each with its own lesion."""
    height, width = torch.stack([scene.native_hw[0] for scene in scenes]).amax(dim=0).tolist()
    padded = [
        F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))
        for images in (scene.images for scene in scenes)
    ]
    native_hw = torch.cat([scene.native_hw for scene in scenes])
    assert scenes[0].embeddings is not None
    assert scenes[1].embeddings is not None
    return Scene(
        images=torch.cat(padded),
        native_hw=native_hw,
        coarse=torch.cat([scene.coarse for scene in scenes]),
        frames=Frames.letterboxed(native_hw, 256),
        image_index=torch.tensor([0, 1]),
        embeddings=torch.cat([scenes[0].embeddings, scenes[1].embeddings]),
    )


def _pipeline(model: LiteMedSAM, config: RefinerConfig | None = None) -> RefinementPipeline:
    return build_pipeline(model, config or _config()).eval()


@torch.no_grad()
def _refine(pipeline: RefinementPipeline, scene: Scene) -> Refinement:
    return pipeline(scene)


def test_without_gate_and_rules_the_final_map_is_the_selected_one(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    refinement = _refine(_pipeline(lite_medsam_model), scenes[0])
    content = scenes[0].content()
    assert torch.equal(refinement.probs, refinement.selected.probs * content)
    assert torch.equal(refinement.refined, refinement.probs)
    assert not torch.equal(refinement.probs, refinement.coarse)
    assert refinement.final.reasons == (ACCEPTED,)
    # One box: the blend is the model's own answer.
    answer = refinement.proposals.logits.sigmoid()
    torch.testing.assert_close(refinement.probs, answer * content)


def test_with_a_closed_gate_the_final_map_is_the_coarse_one(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    closed = GateConfig(kind="constant", minimum=0.0, maximum=0.0)
    refinement = _refine(_pipeline(lite_medsam_model, _config(gate=closed)), scenes[0])
    assert torch.equal(refinement.probs, scenes[0].coarse)
    assert refinement.final.reasons == (ACCEPTED,)


def test_a_refused_item_is_the_coarse_one(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    pipeline = _pipeline(lite_medsam_model)
    pipeline.stabilizer = Stabilizer(_STRICT)
    refinement = _refine(pipeline, scenes[0])
    assert refinement.final.reasons != (ACCEPTED,)
    assert torch.equal(refinement.probs, scenes[0].coarse)


def test_gradients_reach_the_coarse_map_through_the_boxes(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    pipeline = _pipeline(lite_medsam_model)
    coarse = scenes[0].coarse.clone().requires_grad_()
    refinement = pipeline(replace(scenes[0], coarse=coarse))
    refinement.prompts.boxes.retain_grad()
    refinement.refined.mean().backward()
    assert refinement.prompts.boxes.grad is not None
    assert refinement.prompts.boxes.grad.abs().max() > 0
    gradient = coarse.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.count_nonzero() > 100
    # A step along the gradient changes the loss as the gradient says, but for the threshold of the
    # sharpening, which moves with the peak and is taken as given.
    step = 0.001 * gradient / gradient.abs().max()
    up, down = (
        _refine(pipeline, replace(scenes[0], coarse=scenes[0].coarse + sign * step)).refined.mean()
        for sign in (1, -1)
    )
    expected = 2 * (gradient * step).sum()
    assert (up - down).item() == pytest.approx(expected.item(), rel=0.2)


def test_a_batch_of_images_equals_one_by_one(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    uncertain = GateConfig(kind="uncertainty", minimum=0.1, maximum=0.9)
    pipeline = _pipeline(lite_medsam_model, _config(jitter=0.1, gate=uncertain))
    together = _refine(pipeline, replace(_together(scenes), embeddings=None))
    assert together.proposals.logits.shape == (2, 9, 256, 256)
    for item, scene in enumerate(scenes):
        alone = _refine(pipeline, scene)
        part = slice(item, item + 1)
        torch.testing.assert_close(together.probs[part], alone.probs, atol=3e-4, rtol=0)
        torch.testing.assert_close(together.gate[part], alone.gate, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.prompts.boxes[part], alone.prompts.boxes)


def test_embeddings_given_equal_encoding_inside(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    pipeline = _pipeline(lite_medsam_model)
    given = _refine(pipeline, scenes[0])
    inside = _refine(pipeline, replace(scenes[0], embeddings=None))
    torch.testing.assert_close(inside.probs, given.probs, atol=1e-5, rtol=0)


def test_several_lesions_of_one_image_equal_separate_runs(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    evidence = GateConfig(kind="evidence", minimum=0.1, maximum=0.9, contrast_gain=0.4)
    pipeline = _pipeline(lite_medsam_model, _config(gate=evidence))
    coarse = scenes[0].coarse
    lesions = torch.cat([coarse, 0.9 * coarse.roll((9, -14), dims=(-2, -1))])
    together = _refine(
        pipeline, replace(scenes[0], coarse=lesions, image_index=torch.tensor([0, 0]))
    )
    assert not torch.equal(together.probs[0], together.probs[1])
    for item in range(2):
        part = slice(item, item + 1)
        alone = _refine(pipeline, replace(scenes[0], coarse=lesions[part]))
        torch.testing.assert_close(together.probs[part], alone.probs, atol=1e-4, rtol=0)


def test_lesions_keep_to_their_own_image(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM
) -> None:
    pipeline = _pipeline(lite_medsam_model)
    together = _together(scenes)
    crossed = replace(together, coarse=together.coarse.flip(0), image_index=torch.tensor([1, 0]))
    probs = _refine(pipeline, crossed).probs
    for item, scene in enumerate(reversed(scenes)):
        alone = _refine(pipeline, scene).probs
        torch.testing.assert_close(probs[item : item + 1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bf16", [False, True])
def test_answers_are_float32_on_the_device_of_the_scene(
    scenes: tuple[Scene, Scene], lite_medsam_model: LiteMedSAM, bf16: bool
) -> None:
    pipeline = _pipeline(lite_medsam_model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        refinement = _refine(pipeline, scenes[0])
    for tensor in (refinement.probs, refinement.prompts.boxes, refinement.selected.predicted_iou):
        assert tensor.dtype == torch.float32
        assert tensor.device == scenes[0].coarse.device
        assert tensor.isfinite().all()

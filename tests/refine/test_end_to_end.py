"""What the whole promises: gradients through each prompt alone, recovery, no large tensors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import LesionFinder
from scenes import scene_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ultrarefiner.foundation import LiteMedSAM
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig, build_pipeline
from ultrarefiner.refine.candidates import model_prompts
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.localization import Lesions
from ultrarefiner.refine.prompts import LesionPrompts, PromptConfig
from ultrarefiner.refine.roi import RoiConfig, View
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.selection import SelectionConfig
from ultrarefiner.refine.stabilization import ACCEPTED, NO_LESION, TOO_LARGE, StabilizerConfig

_LAX = StabilizerConfig(
    min_iou=0.0, min_area_ratio=0.0, max_area_ratio=1e9, max_components=10**6, min_predicted_iou=0
)


def _image(side: int = 256, centre_xy: tuple[float, float] = (110.0, 140.0)) -> Tensor:
    """Speckle with a dark lesion of radius 30."""
    centres = torch.arange(side) + 0.5
    distance = ((centres - centre_xy[0]) ** 2 + (centres[:, None] - centre_xy[1]) ** 2).sqrt()
    speckle = 0.85 + 0.15 * torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    return speckle * (0.2 + 0.7 * torch.sigmoid((distance - 30) / 2))


class _CoarseNetwork(nn.Module):
    """A small network that has learned that lesions are dark."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        # Zeros beyond the border would be dark, too.
        self.blur = nn.Conv2d(1, 4, 5, padding=2, padding_mode="replicate")
        self.out = nn.Conv2d(4, 1, 5, padding=2, padding_mode="replicate")
        with torch.no_grad():
            for conv in (self.blur, self.out):
                conv.weight.mul_(0.1).add_(1 / conv.weight[0].numel())
            self.blur.bias.zero_()
            self.out.weight.mul_(-18)
            self.out.bias.fill_(9.0)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.relu(self.blur(image)))
        return logits.sigmoid()


_ONLY = {
    "centroid": PromptConfig(boxes=False, foreground="centroid"),
    "interior points": PromptConfig(boxes=False, foreground="interior", num_points=2),
    "box": PromptConfig(jitter=0.0),
    "nine boxes": PromptConfig(jitter=0.1),
    "mask, direct": PromptConfig(boxes=False, mask="direct"),
    "mask, logit": PromptConfig(boxes=False, mask="logit"),
    "mask, gaussian": PromptConfig(boxes=False, mask="gaussian"),
}


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    gradients = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} is not reached"
        assert parameter.grad.isfinite().all(), name
        gradients[name] = parameter.grad.clone()
        parameter.grad = None
    return gradients


@pytest.mark.parametrize("prompts", _ONLY.values(), ids=_ONLY)
@pytest.mark.parametrize("crop", [False, True], ids=["whole", "roi"])
def test_gradients_reach_the_coarse_network_through_each_prompt_alone(
    lite_medsam_model: LiteMedSAM, prompts: PromptConfig, crop: bool
) -> None:
    network, image = _CoarseNetwork(), _image()
    truth = (image < 0.5).float()[None, None]
    nn.functional.binary_cross_entropy(network(image[None, None]), truth).backward()
    reached = [name for name, gradient in _gradients(network).items() if gradient.any()]
    assert len(reached) == 4, "all parameters, weights and biases"

    config = RefinerConfig(
        roi=RoiConfig(crop=crop),
        prompts=prompts,
        selection=SelectionConfig(kind="single" if prompts.jitter == 0 else "quality"),
        gate=GateConfig(kind="none"),
        stabilizer=_LAX,
    )
    pipeline = build_pipeline(lite_medsam_model, config)
    refinement = pipeline(scene_of(network(image[None, None]), image))
    inside = _window_mask(refinement.view) if crop else torch.ones_like(truth)
    # In a crop, what lies outside is the coarse map itself, and not what is asked here.
    (inside * (refinement.refined - truth) ** 2).sum().backward()
    gradients = _gradients(network)
    for name in reached:
        assert gradients[name].any(), name


def _window_mask(view: View) -> Tensor:
    x0, y0, x1, y1 = view.frames.windows[0].tolist()
    inside = torch.zeros(1, 1, *view.scene.frames.grid_hw)
    inside[..., int(y0) + 2 : int(y1) - 2, int(x0) + 2 : int(x1) - 2] = 1
    return inside


class _WithoutGradient(nn.Module):
    """A prompt stage whose prompts are taken as they are."""

    def __init__(self, stage: nn.Module):
        super().__init__()
        self.stage = stage

    def forward(self, lesions: Lesions, view: View) -> LesionPrompts:
        with torch.no_grad():
            prompts: LesionPrompts = self.stage(lesions, view)
        return prompts


def test_gradients_reach_the_coarse_network_through_the_paste_alone(
    lite_medsam_model: LiteMedSAM,
) -> None:
    network, image = _CoarseNetwork(), _image()
    config = RefinerConfig(
        roi=RoiConfig(crop=True, gradient="full"),
        prompts=PromptConfig(jitter=0.0),
        gate=GateConfig(kind="none"),
        stabilizer=_LAX,
    )
    pipeline = build_pipeline(lite_medsam_model, config)
    pipeline.prompts = _WithoutGradient(pipeline.prompts)
    refinement = pipeline(scene_of(network(image[None, None]), image))
    answer = refinement.selected.probs.detach()
    scene = replace(refinement.scene, coarse=refinement.coarse.detach())
    pasted = replace(refinement.view, scene=scene).paste(answer)
    truth = (image < 0.5).float()[None, None]
    ((pasted - truth) ** 2).sum().backward()
    assert all(gradient.any() for gradient in _gradients(network).values())


@pytest.mark.parametrize("crop", [False, True], ids=["whole", "roi"])
def test_an_empty_coarse_map_is_recovered_where_the_model_finds_the_lesion(crop: bool) -> None:
    image = _image()
    truth, empty = image < 0.5, torch.zeros(1, 1, 256, 256)
    config = RefinerConfig(roi=RoiConfig(crop=crop))
    refinement = build_pipeline(LesionFinder(), config)(scene_of(empty, image))
    assert refinement.lesions.no_lesion.item()
    assert refinement.final.reasons == (ACCEPTED,)
    mask = refinement.probs[0, 0] > 0.5
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97


def test_the_literal_preset_leaves_an_empty_coarse_map_empty() -> None:
    empty = torch.zeros(1, 1, 256, 256)
    refinement = build_pipeline(LesionFinder(), PRESETS["literal"])(scene_of(empty, _image()))
    assert refinement.final.reasons == (NO_LESION,)
    assert torch.equal(refinement.probs, empty)


@pytest.mark.parametrize("level", [0.3, 0.48])
def test_a_lesion_that_is_only_suspected_is_recovered_too(level: float) -> None:
    image = _image()
    truth = image < 0.5
    coarse = (level * truth.float())[None, None]
    refinement = build_pipeline(LesionFinder(), RefinerConfig())(scene_of(coarse, image))
    assert not refinement.lesions.no_lesion.item()
    assert refinement.final.reasons == (ACCEPTED,)
    mask = refinement.probs[0, 0] > 0.5
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


class _SeesLesionsEverywhere(LesionFinder):
    """A model for which all is lesion, the padding too."""

    def encode(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 1, self.mask_size, self.mask_size)


@pytest.mark.parametrize("crop", [False, True], ids=["whole", "roi"])
@pytest.mark.parametrize("native_hw", [(100, 300), (300, 100)])
def test_the_padding_is_no_lesion(native_hw: tuple[int, int], crop: bool) -> None:
    pipeline = build_pipeline(_SeesLesionsEverywhere(), RefinerConfig(roi=RoiConfig(crop=crop)))
    empty, image = torch.zeros(1, 1, 256, 256), torch.rand(native_hw)
    refinement = pipeline(scene_of(empty, image))
    assert refinement.final.reasons == (TOO_LARGE,), "all of the image, a third of the grid"
    coarse = refinement.scene.content().float()
    refinement = pipeline(scene_of(coarse, image))
    assert refinement.final.reasons == (ACCEPTED,), "the model agrees, but for the padding"
    assert not (refinement.refined[~refinement.scene.content()]).any()


@pytest.mark.parametrize("crop", [False, True], ids=["whole", "roi"])
def test_coarse_maps_in_half_precision_are_taken(crop: bool) -> None:
    image = _image()
    coarse = torch.sigmoid((0.5 - image)[None, None] * 20)
    pipeline = build_pipeline(LesionFinder(), RefinerConfig(roi=RoiConfig(crop=crop)))
    exact = pipeline(scene_of(coarse, image))
    half = coarse.bfloat16().requires_grad_()
    found = pipeline(scene_of(half, image))
    assert found.probs.dtype == torch.float32
    torch.testing.assert_close(found.probs, exact.probs, atol=0.05, rtol=0)
    found.probs.sum().backward()
    assert half.grad is not None
    assert half.grad.isfinite().all()


def test_boxes_and_points_beyond_a_close_view_are_not_given() -> None:
    image = _image()
    coarse = torch.sigmoid((0.5 - image)[None, None] * 20)
    config = RefinerConfig(
        roi=RoiConfig(crop=True, expand=0.0),
        prompts=PromptConfig(foreground="interior", background="ring"),
    )
    refinement = build_pipeline(LesionFinder(), config)(scene_of(coarse, image))
    asked = model_prompts(refinement.view, refinement.prompts)
    assert asked.boxes is not None
    assert asked.point_coords is not None
    assert asked.point_labels is not None
    assert asked.boxes.min() >= 0
    assert asked.boxes.max() <= 256
    given = asked.point_coords[asked.point_labels >= 0]
    assert given.min() >= 0
    assert given.max() <= 256
    assert (asked.point_labels[:, 0] == 1).all()
    assert (refinement.prompts.point_labels >= 0).sum() > (asked.point_labels[0] >= 0).sum()


def test_the_literal_preset_is_the_source_document() -> None:
    literal = PRESETS["literal"]
    assert (literal.localizer.box, literal.localizer.num_stds) == ("statistics", 2.5)
    assert (literal.localizer.floor, literal.localizer.relative) == (0, 0)
    assert literal.localizer.temperature == 1
    assert (literal.prompts.foreground, literal.prompts.background) == ("centroid", "literal")
    assert (literal.prompts.mask, literal.prompts.mask_scale) == ("gaussian", 10)
    assert literal.prompts.jitter == 0
    assert literal.selection.kind == "soft"
    gate = literal.gate
    assert (gate.kind, gate.minimum, gate.maximum, gate.gamma) == ("uncertainty", 0, 0.8, 1)
    stabilizer = literal.stabilizer
    assert (stabilizer.min_iou, stabilizer.max_components) == (0.5, 5)
    assert (stabilizer.min_area_ratio, stabilizer.max_area_ratio) == (0.3, 3)


class _LargestTensor(TorchDispatchMode):
    """Remember the size of the largest tensor that is made, and every number format."""

    def __init__(self) -> None:
        super().__init__()
        self.num_values = self.num_pixels = 0
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.dtypes.add(tensor.dtype)
                self.num_values = max(self.num_values, tensor.numel())
                self.num_pixels = max(self.num_pixels, math.prod(tensor.shape[-2:]))
        return out


class _LargeInput(LesionFinder):
    """A model with SAM's sizes, whose embeddings are given."""

    def __init__(self) -> None:
        super().__init__(1024, 256)

    def encode(self, images: Tensor) -> Tensor:
        raise AssertionError("encoded before")


@pytest.mark.parametrize("preset", PRESETS)
def test_no_large_tensor_and_no_float64_before_the_answer(preset: str) -> None:
    """With SAM's 1024 px input nothing as large is made: 256 px grids are enough to the end."""
    native_hw = torch.tensor([[320, 360]] * 8)
    image = nn.functional.interpolate(_image()[None, None], (320, 360), mode="bilinear")
    native = Frames.native(native_hw, (320, 360))
    coarse = (nn.functional.interpolate(image, (224, 224), mode="area") < 0.5).float()
    scene = Scene(
        images=image.expand(8, 1, 320, 360),
        native_hw=native_hw,
        coarse=coarse.expand(8, 1, 224, 224),
        frames=Frames.filling(native.windows, (224, 224)),
        image_index=torch.arange(8),
        embeddings=nn.functional.interpolate(image, (256, 256), mode="area").expand(8, -1, -1, -1),
    )
    pipeline = build_pipeline(_LargeInput(), PRESETS[preset])
    with torch.inference_mode(), _LargestTensor() as seen:
        refinement = pipeline(scene)
    assert refinement.probs.shape == (8, 1, 224, 224)
    assert seen.num_pixels < 1024**2
    assert seen.num_values < 8 * 10 * 256**2 < 8 * 1024**2, "of nine candidates for each of eight"
    assert torch.float64 not in seen.dtypes

"""What the benchmarks of the refinement start from: soft lesions, and a model that knows them."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.foundation import Decoded, FoundationModel, Prompts
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.scene import Scene

BATCH = 8
COARSE_SIDE = 224
FAINTEST = 1e-6


def soft_ellipses(
    centres_xy: Tensor, half_axes_xy: Tensor, hw: tuple[int, int], *, softness: float = 0.15
) -> Tensor:
    """Return ``B 1 h w``, 1 inside each ellipse, 0 outside, 0.5 on its edge.

    All lengths are in px but the softness, which is in half axes.
    """
    y, x = (torch.arange(length) + 0.5 for length in hw)
    (cx, cy), (a, b) = (values.T[..., None, None] for values in (centres_xy, half_axes_xy))
    radius = torch.hypot((x - cx) / a, (y[:, None] - cy) / b)
    return torch.sigmoid((1 - radius) / softness)[:, None]


def draw_lesions(
    radius_px: tuple[float, float], hw: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Return coarse maps of 8 lesions somewhere in the middle of ``hw``, half axes as given.

    As a network's, they are nowhere 0.
    """
    room = torch.tensor([hw[1], hw[0]])
    centres = room * (0.35 + 0.3 * torch.rand(BATCH, 2, generator=generator))
    low, high = radius_px
    half_axes = low + (high - low) * torch.rand(BATCH, 2, generator=generator)
    return soft_ellipses(centres, half_axes, hw).clamp_min(FAINTEST)


def scene_of(coarse: Tensor, images: Tensor, **given: Tensor) -> Scene:
    """Return a scene of one coarse map, on its square grid, for each image, all of one size."""
    native_hw = torch.tensor(images.shape[-2:]).expand(len(images), 2)
    return Scene(
        images=images,
        native_hw=native_hw,
        coarse=coarse,
        frames=Frames.letterboxed(native_hw, coarse.shape[-1]),
        image_index=torch.arange(len(images)),
        **given,
    )


class StoredAnswers(FoundationModel):
    """A foundation model without networks: it answers what it was made with.

    The answers are tied to the prompts with weight zero, so that a backward pass runs through every
    prompt as it does with a network.
    """

    multimask_trained = False

    def __init__(self, answers: Tensor, *, input_size: int, mask_size: int = 256):
        super().__init__()
        self.answers = answers
        self.input_size, self.mask_size = input_size, mask_size

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid, images, 0)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(
        self, embeddings: Tensor, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        given = (prompts.boxes, prompts.point_coords, prompts.masks)
        tie = sum(0 * values.flatten(1).sum(dim=1) for values in given if values is not None)
        assert isinstance(tie, Tensor), "no prompt at all"
        assert prompts.image_index is not None
        num_candidates = 3 if multimask_output else 1
        scores = torch.linspace(0.9, 0.8, num_candidates) + tie[:, None]
        logits = self.answers[prompts.image_index] + tie[:, None, None, None]
        return Decoded(logits=logits.expand(-1, num_candidates, -1, -1), iou_predictions=scores)

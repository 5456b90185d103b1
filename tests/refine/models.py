"""Small foundation models for tests whose point is not the model."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.foundation import Decoded, FoundationModel, Prompts


class SizesOnly(FoundationModel):
    """A model that is only asked how large its frames are."""

    multimask_trained = False

    def __init__(self, input_size: int = 256, mask_size: int = 256):
        super().__init__()
        self.input_size, self.mask_size = input_size, mask_size

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(
        self, embeddings: Tensor, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        raise NotImplementedError


class LesionFinder(SizesOnly):
    """A model that finds what is dark in the box it is given, and is sure of it.

    Its embedding is the image itself.
    """

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid, images, 1.0)

    def encode(self, images: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(images, self.mask_size, mode="area")

    def decode(
        self, embeddings: Tensor, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        assert prompts.boxes is not None
        assert prompts.image_index is not None
        boxes = prompts.boxes * (self.mask_size / self.input_size)
        centres = torch.arange(self.mask_size) + 0.5
        inside = [
            (centres >= boxes[:, i : i + 1]) & (centres < boxes[:, i + 2 : i + 3]) for i in (0, 1)
        ]
        window = inside[1][:, None, :, None] & inside[0][:, None, None]
        logits = 20 * (0.5 - embeddings[prompts.image_index][:, :1]).masked_fill(~window, -1)
        num = 3 if multimask_output else 1
        return Decoded(
            logits=logits.expand(-1, num, -1, -1),
            iou_predictions=torch.full((len(boxes), num), 0.98),
        )

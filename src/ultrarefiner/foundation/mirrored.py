"""A foundation model that looks at the mirror image, too, and answers with the mean of both."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from ultrarefiner.foundation.protocol import Decoded, FoundationModel, Prompts
from ultrarefiner.shapes import Boxes, Embeddings, Images, Points


class Mirrored(FoundationModel):
    """Ask a model twice, about the image as it is and mirrored left to right, prompts and all.

    Its embeddings are those of both, one after the other along the channels. Errors that the model
    makes on one side alone are halved; encoding and decoding take twice the time. The frame is
    mirrored as a whole: the padding of an image that is higher than wide comes to the left. It is
    for prediction: it has no parts that could be trained.

    Args:
        model: to be asked.
    """

    def __init__(self, model: FoundationModel) -> None:
        super().__init__()
        self.model = model
        self.weights_sha256, self.multimask_trained = model.weights_sha256, model.multimask_trained
        self.input_size, self.mask_size = model.input_size, model.mask_size

    def normalise(self, images: Images, valid: Bool[Tensor, "B 1 H W"]) -> Images:
        """Scale intensities as the model expects."""
        return self.model.normalise(images, valid)

    def encode(self, images: Images) -> Embeddings:
        """Return the embeddings of the images and, behind them, of their mirror images."""
        return torch.cat([self.model.encode(images), self.model.encode(images.flip(-1))], dim=1)

    def decode(
        self, embeddings: Embeddings, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        """Return the mean of the logits and of the IoU predictions for both sides."""
        here, there = embeddings.chunk(2, dim=1)
        one = self.model.decode(here, prompts, multimask_output=multimask_output)
        mirrored = mirror_prompts(prompts, self.input_size)
        other = self.model.decode(there, mirrored, multimask_output=multimask_output)
        return Decoded(
            logits=(one.logits + other.logits.flip(-1)) / 2,
            iou_predictions=(one.iou_predictions + other.iou_predictions) / 2,
        )


def mirror_prompts(prompts: Prompts, width: int) -> Prompts:
    """Return the prompts of the mirror image.

    Args:
        prompts: of the image.
        width: of the frame that both fill [px].
    """
    return replace(
        prompts,
        boxes=None if prompts.boxes is None else _mirror_boxes(prompts.boxes, width),
        point_coords=(
            None if prompts.point_coords is None else _mirror_points(prompts.point_coords, width)
        ),
        masks=None if prompts.masks is None else prompts.masks.flip(-1),
    )


def _mirror_boxes(boxes: Boxes, width: int) -> Boxes:
    left, top, right, bottom = boxes.unbind(dim=-1)
    return torch.stack([width - right, top, width - left, bottom], dim=-1)


def _mirror_points(points: Points, width: int) -> Points:
    x, y = points.unbind(dim=-1)
    return torch.stack([width - x, y], dim=-1)

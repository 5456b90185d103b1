"""Ask the foundation model: what does it see at each box hypothesis?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ultrarefiner.foundation import FoundationModel, Prompts
from ultrarefiner.refine.prompts import BoxHypotheses
from ultrarefiner.refine.roi import Scene
from ultrarefiner.shapes import Candidates, Embeddings, Scores

_ITEMS_PER_CALL = {"cpu": 3}
"""Items decoded at once: on a CPU more than a few fall out of its cache (1.6 times slower)."""


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The foundation model's answers.

    Attributes:
        logits: ``B K h w`` mask logits of the K hypotheses of each lesion.
        iou_predictions: ``B K`` the model's own guesses of their IoU.
    """

    logits: Candidates
    iou_predictions: Scores


def propose(model: FoundationModel, view: Scene, hypotheses: BoxHypotheses) -> Proposals:
    """Encode each image once and decode every hypothesis of every lesion.

    Args:
        model: any foundation model.
        view: what it looks at; its embeddings are used if it has them.
        hypotheses: ``B M 4`` boxes on the coarse grid.
    """
    num_lesions, num_boxes = hypotheses.boxes.shape[:2]
    scale = model.input_size / view.coarse.shape[-1]
    prompts = Prompts(
        boxes=hypotheses.boxes.flatten(0, 1) * scale,
        image_index=view.image_index.repeat_interleave(num_boxes),
    )
    embeddings = _embed(model, view)
    limit = _ITEMS_PER_CALL.get(embeddings.device.type, len(prompts))
    everything = torch.arange(len(prompts), device=embeddings.device)
    answers = [
        model.decode(embeddings, prompts.select(part)) for part in torch.split(everything, limit)
    ]
    logits = torch.cat([answer.logits for answer in answers])
    scores = torch.cat([answer.iou_predictions for answer in answers])
    return Proposals(
        logits=logits.view(num_lesions, num_boxes, *logits.shape[-2:]),
        iou_predictions=scores.view(num_lesions, num_boxes),
    )


def _embed(model: FoundationModel, view: Scene) -> Embeddings:
    if view.embeddings is not None:
        return view.embeddings
    return model.encode(model.normalise(view.images, view.content_hw))

"""Ask the foundation model: what does it see at each prompt?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ultrarefiner.foundation import FoundationModel, Prompts
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.localization import clamp_boxes
from ultrarefiner.refine.prompts import ABSENT, LesionPrompts
from ultrarefiner.refine.roi import View
from ultrarefiner.refine.scene import Scene
from ultrarefiner.shapes import Candidates, Embeddings, Scores

_ITEMS_PER_CALL = {"cpu": 3}
"""Items decoded at once: on a CPU more than a few fall out of its cache (1.6 times slower)."""


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The foundation model's answers.

    Attributes:
        logits: ``B K h w`` mask logits of the K candidates of each lesion.
        iou_predictions: ``B K`` the model's own guesses of their IoU.
    """

    logits: Candidates
    iou_predictions: Scores


def propose(
    model: FoundationModel, view: View, prompts: LesionPrompts, *, multimask_output: bool
) -> Proposals:
    """Encode each view once and decode every box hypothesis of every lesion.

    Args:
        model: any foundation model.
        view: what it looks at; its embeddings are used if it has them.
        prompts: what it is asked.
        multimask_output: three candidates for each hypothesis instead of one.
    """
    questions = model_prompts(view, prompts)
    embeddings = _embed(model, view)
    limit = _ITEMS_PER_CALL.get(embeddings.device.type, len(questions))
    everything = torch.arange(len(questions), device=embeddings.device)
    answers = [
        model.decode(embeddings, questions.select(part), multimask_output=multimask_output)
        for part in torch.split(everything, limit)
    ]
    logits = torch.cat([answer.logits for answer in answers])
    scores = torch.cat([answer.iou_predictions for answer in answers])
    num_lesions = len(prompts.boxes)
    return Proposals(
        logits=logits.view(num_lesions, -1, *logits.shape[-2:]),
        iou_predictions=scores.view(num_lesions, -1),
    )


def embed_whole(model: FoundationModel, scene: Scene) -> Embeddings:
    """Return ``I D h w`` embeddings of the scene's whole images, as a view without a crop has."""
    everything = torch.arange(len(scene.images), device=scene.image_index.device)
    frames = Frames.letterboxed(scene.native_hw, model.input_size)
    return model.encode(model.normalise(*scene.images_on(frames, everything)))


def model_prompts(view: View, prompts: LesionPrompts) -> Prompts:
    """Return one item per lesion and box hypothesis, in the model's own frame.

    A close view may end before a box or a point: the box is clamped, the point is not given.
    """
    here, there = view.scene.lesion_frames(), view.lesion_frames()
    num_boxes = prompts.boxes.shape[1]
    boxes = there.boxes_from_native(here.boxes_to_native(prompts.boxes))
    boxes = clamp_boxes(boxes, there.content_boxes()[:, None].to(boxes)).flatten(0, 1)
    points, labels = prompts.point_coords, prompts.point_labels
    if points is not None and labels is not None:
        points = there.from_native(here.to_native(points))
        inside = (points >= 0) & (points <= there.content_wh[:, None])
        labels = labels.masked_fill(~inside.all(dim=-1), ABSENT)

    def of_each_box(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.repeat_interleave(num_boxes, dim=0)

    nowhere = prompts.has_box is not None and points is None and prompts.masks is None
    assert not nowhere, "no prompt at all"
    return Prompts(
        boxes=boxes,
        has_box=of_each_box(prompts.has_box),
        point_coords=of_each_box(points),
        point_labels=of_each_box(labels),
        masks=of_each_box(prompts.masks),
        has_mask=of_each_box(prompts.has_mask),
        image_index=view.view_index.repeat_interleave(num_boxes),
    )


def _embed(model: FoundationModel, view: View) -> Embeddings:
    if view.embeddings is not None:
        return view.embeddings
    return model.encode(model.normalise(*view.images()))

"""Which kinds of prompt help a frozen model: a box, a point, a mask, or several of them?

The model's own mask is scored, without gate and stabiliser, from one set of prompts per image read
off the same rough mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, open_rough
from ultrarefiner.experiments.scores import Scores, choose_records
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel, Prompts
from ultrarefiner.ops.frames import Letterbox
from ultrarefiner.ops.moments import centre_and_spread, sharpen, statistics_box
from ultrarefiner.precision import autocast, choose_device
from ultrarefiner.refine.prompts import BoxPromptConfig
from ultrarefiner.refine.softening import SofteningConfig, soften
from ultrarefiner.shapes import GreyImage, Mask, ProbMaps

KINDS = ("box", "point", "mask", "box+point", "box+mask", "point+mask", "box+point+mask")
_MASK_SCALE = 10.0


def run_prompt_kinds(
    experiment: RoughMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> dict[str, Any]:
    """Score every combination of prompts; the arguments are those of the rough-mask study.

    Box and point are those of the default refiner (one box, the lesion's centroid); the mask prompt
    is ``(2 P - 1) * 10``. The experiment's ``variants`` are not used.
    """
    records = choose_records(read_busbra(root), experiment)
    where = choose_device(device)
    model = FOUNDATION_MODELS[experiment.foundation]().to(where)
    scores = Scores(KINDS)
    for index, record in enumerate(track(records, len(records))):
        image, truth, rough = open_rough(scores, record, experiment, index)
        with torch.inference_mode(), autocast(where):
            masks = _answers(model, image, rough, where)
        for kind, mask in masks.items():
            scores.add(kind, record, mask, truth, "not judged")
    return scores.result(experiment, command)


def _answers(
    model: FoundationModel, image: GreyImage, rough: Mask, device: torch.device
) -> dict[str, Mask]:
    """Return the model's mask, on the native grid, for each kind of prompt."""
    frame = Letterbox(image.shape, model.input_size)
    view = torch.from_numpy(frame.shrink(image)).to(device)[None, None]
    content_hw = torch.tensor([frame.content_hw], device=device)
    embeddings = model.encode(model.normalise(view, content_hw))
    grid = Letterbox(image.shape, model.mask_size)
    soft = torch.from_numpy(soften(rough, grid, SofteningConfig().width)).to(device)[None, None]
    answers = {}
    for kind in KINDS:
        logits = model.decode(embeddings, _prompts(kind, soft, model)).logits[0, 0].float().cpu()
        answers[kind] = np.asarray(grid.enlarge(logits) > 0)
    return answers


def _prompts(kind: str, soft: ProbMaps, model: FoundationModel) -> Prompts:
    config = BoxPromptConfig()
    weights = sharpen(
        soft, floor=config.floor, relative=config.relative, temperature=config.temperature
    )
    scale = model.input_size / soft.shape[-1]
    boxes = statistics_box(weights, num_stds=config.num_stds)[0] * scale
    centre: Tensor = centre_and_spread(weights)[0] * scale
    kinds = kind.split("+")
    points = "point" in kinds
    return Prompts(
        boxes=boxes if "box" in kinds else None,
        point_coords=centre[:, None] if points else None,
        point_labels=torch.ones(1, 1, dtype=torch.long, device=soft.device) if points else None,
        masks=(2 * soft - 1) * _MASK_SCALE if "mask" in kinds else None,
    )

"""Which of an image's lesions a refined map is held to: the one that was asked about.

The pipeline refines one lesion at a time, in training the dominant one of each map. Held to all
lesions of the image, it would learn to find what lies beside its box.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from ultrarefiner.refine.localization import Lesions
from ultrarefiner.shapes import ProbMaps

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def truth_of_lesions(truth: ProbMaps, lesions: Lesions) -> ProbMaps:
    """Return the components of each truth that its lesion touches; all if it touches none.

    Args:
        truth: ``B 1 h w`` share of each px that is lesion.
        lesions: what the maps were localised as; a lesion is where its map is above half its
            maximum. A map without one stands for all lesions.
    """
    probs = lesions.probs.detach()
    touched = probs > 0.5 * probs.amax(dim=(-2, -1), keepdim=True)
    kept = [
        _keep(values, where) if not empty else values > 0
        for values, where, empty in zip(
            truth[:, 0].cpu(), touched[:, 0].cpu(), lesions.no_lesion.tolist(), strict=True
        )
    ]
    return truth * torch.stack(kept)[:, None].to(truth)


def _keep(truth: Tensor, touched: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    labels, num = ndimage.label(truth.numpy() > 0, structure=_EIGHT_NEIGHBOURS)
    if num < 2:
        return truth > 0
    hit = np.unique(labels[touched.numpy()])
    hit = hit[hit > 0]
    return torch.from_numpy(np.isin(labels, hit) if len(hit) else labels > 0)

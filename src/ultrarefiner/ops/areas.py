"""How many pixels masks have."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int32
from torch import Tensor


def area_px(masks: Bool[Tensor, "*B h w"]) -> Int32[Tensor, "*B"]:
    """Return the number of true pixels of each mask.

    Summed as bytes: on a CPU six times as fast as a sum of truth values.

    Args:
        masks: any number of binary masks; they are not copied if they are contiguous.

    Returns:
        Areas [px]; 0 for an empty mask.
    """
    return masks.contiguous().view(torch.uint8).flatten(-2).sum(dim=-1, dtype=torch.int32)

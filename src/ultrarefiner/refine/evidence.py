"""What the rules of stabilisation look at: one mask beside its coarse mask, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from ultrarefiner.ops.areas import area_px


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one mask, beside its coarse mask.

    Attributes:
        mask: ``h w`` the mask to judge.
        iou: with the coarse mask.
        area_ratio: of the mask to the coarse mask, which counts as 1 px at least.
        predicted_iou: the foundation model's opinion of its mask.
        trust: in the foundation model, in [0, 1].
        no_lesion: whether there was nothing in the coarse map.
        image_px: pixels of the grid that hold image.
    """

    mask: Bool[np.ndarray, "h w"]
    iou: float
    area_ratio: float
    predicted_iou: float
    trust: float
    no_lesion: bool
    image_px: float


def gather_evidence(
    coarse: Bool[Tensor, "B 1 h w"],
    masks: Bool[Tensor, "B N h w"],
    facts: Float[Tensor, "B 4"],
) -> list[list[Evidence]]:
    """Bring everything that the rules look at to the CPU, in one transfer.

    Args:
        coarse: ``B 1 h w`` coarse mask.
        masks: ``B N h w`` N masks to judge of each item.
        facts: ``B 4`` predicted IoU, trust, whether there was no coarse lesion, and the pixels that
            hold image.

    Returns:
        N pieces of evidence for each of the B items.
    """
    shared = facts.detach().float()[:, None].expand(-1, masks.shape[1], -1)
    numbers = torch.cat([_overlap(coarse, masks), shared], dim=-1).view(torch.uint8)
    packed = torch.cat([numbers, masks.flatten(2).view(torch.uint8)], dim=-1).cpu().numpy()
    length = numbers.shape[-1]
    return [
        [
            Evidence(
                mask=row[length:].view(np.bool_).reshape(masks.shape[-2:]),
                iou=float(values[0]),
                area_ratio=float(values[1]),
                predicted_iou=float(values[2]),
                trust=float(values[3]),
                no_lesion=bool(values[4]),
                image_px=float(values[5]),
            )
            for row, values in ((row, row[:length].view(np.float32)) for row in item)
        ]
        for item in packed
    ]


def _overlap(
    coarse: Bool[Tensor, "B 1 h w"], masks: Bool[Tensor, "B N h w"]
) -> Float[Tensor, "B N 2"]:
    """Return IoU and area ratio mask / coarse of each pair; an empty mask counts as 1 px."""
    shared_px, coarse_px, mask_px = area_px(coarse & masks), area_px(coarse), area_px(masks)
    union_px = (coarse_px + mask_px - shared_px).clamp_min(1)
    return torch.stack([shared_px / union_px, mask_px / coarse_px.clamp_min(1)], dim=-1)


def component_areas(mask: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "K"]:
    """Return the areas [px] of the 8-connected components of a mask that is not empty."""
    pixels = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(pixels)
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    _, _, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    areas: Int32[np.ndarray, "K"] = stats[1:, cv2.CC_STAT_AREA]
    return areas

"""Grey levels: scanners and exports differ, so every image is stretched to [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor


def stretch(image: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Stretch an image to [0, 1], as scanners and exports differ; a constant one becomes 0."""
    low, high = float(image.min()), float(image.max())
    stretched: Float32[np.ndarray, "H W"] = (image - low) / np.float32(max(high - low, 1e-8))
    return stretched


def stretch_content(
    images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B 1 H W"]
) -> Float[Tensor, "B C H W"]:
    """Stretch each image's content to [0, 1]; the padding is 0, a constant image too."""
    low = images.masked_fill(~valid, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    high = images.masked_fill(~valid, -torch.inf).amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(valid, (images - low) / (high - low).clamp_min(1e-8), 0)

"""A given mask as probabilities on the coarse grid, one map per lesion.

A hard mask says where the lesion is but not how sure it is; every uncertainty gate would be zero
and nothing could be refined. Its signed distance, squashed, is the honest stand-in: certain inside
and outside, undecided along the outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.special import expit

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.components import label_components, nearest_component
from ultrarefiner.ops.distance import signed_distance
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.shapes import Mask, ProbMap

_FAR_PX = 1e4


@dataclass(frozen=True, kw_only=True)
class SofteningConfig:
    """How a hard mask becomes soft.

    Attributes:
        width: temperature of the sigmoid in lesion radii, T = width * sqrt(area / pi).
        max_lesions: components refined at most, largest first; the others stay as they are.
    """

    width: float = 0.09
    max_lesions: int = 16

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ConfigError("softening width", expected="> 0", found=str(self.width))
        if self.max_lesions < 1:
            raise ConfigError("softening max_lesions", expected=">= 1", found=str(self.max_lesions))


@dataclass(frozen=True, kw_only=True)
class CoarseLesions:
    """The lesions of one coarse mask.

    Attributes:
        probs: ``L h w`` probability of each lesion on the coarse grid.
        masks: ``L H W`` each lesion's own native pixels.
        rest: ``H W`` native pixels of components beyond the limit, kept as they are.
    """

    probs: Float32[np.ndarray, "L h w"]
    masks: np.ndarray
    rest: Mask


def split_lesions(
    values: ProbMap, *, is_hard: bool, frame: Letterbox, config: SofteningConfig
) -> CoarseLesions:
    """Split a coarse mask into lesions and bring each to the coarse grid.

    Args:
        values: native coarse map in [0, 1].
        is_hard: whether it holds only 0 and 1; then each lesion is softened by its own distance.
            A probability map is instead divided between its lesions by proximity.
        frame: map from the native image to the coarse grid.
        config: how to soften.

    Returns:
        At least one lesion: a map with nothing above 0.5 is passed on whole, with an empty mask.
    """
    labels, areas = label_components(values > 0.5)
    num = min(len(areas), config.max_lesions)
    if num == 0:
        masks = np.zeros((1, *values.shape), dtype=bool)
        return CoarseLesions(probs=frame.shrink(values)[None], masks=masks, rest=masks[0])
    masks = np.stack([labels == k for k in range(1, num + 1)])
    if is_hard:
        maps = [soften(mask, frame, config.width) for mask in masks]
    else:
        nearest = nearest_component(labels)
        maps = [
            frame.shrink(np.where(nearest == k, values, np.float32(0))) for k in range(1, num + 1)
        ]
    return CoarseLesions(probs=np.stack(maps), masks=masks, rest=labels > num)


def soften(mask: Mask, frame: Letterbox, width: float) -> Float32[np.ndarray, "side side"]:
    r"""Return :math:`\sigma(\phi / T)` on the coarse grid, :math:`T = w\sqrt{A/\pi}`.

    The distance is measured on the native grid and then resampled, so that sub-pixel detail of the
    outline survives. Padding is 0.
    """
    radius_px = float(np.sqrt(mask.sum() / np.pi))
    phi = np.clip(signed_distance(mask), -_FAR_PX, _FAR_PX) / max(width * radius_px, 1e-6)
    soft: Float32[np.ndarray, "side side"] = expit(frame.shrink(phi.astype(np.float32)))
    soft[~frame.content_mask().numpy()] = 0
    return soft

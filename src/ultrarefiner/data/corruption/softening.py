"""A mask as a probability: its signed distance, squashed."""

from __future__ import annotations

import numpy as np

from ultrarefiner.data.corruption.lesion import Lesion
from ultrarefiner.shapes import Mask, ProbMap

GRID_PX = 224  # longer side of the grid that temperatures and small displacements refer to
_FAR = float(np.log(2**10 - 1))  # temperatures beyond which p < 2**-10: there it is 0


def pixels_per_grid_px(mask: Mask) -> float:
    """Return how many pixels of a mask one of the 224 px grid stands for."""
    return float(max(mask.shape) / GRID_PX)


def soften(mask: Mask, temperature_px: float) -> ProbMap:
    r"""Return the probability of a mask whose outline is undecided; above 0.5 is the mask.

    .. math:: P(x) = \sigma(\phi(x) / T)

    with the exact signed distance of the whole frame, and 0 where that is below :math:`2^{-10}`.

    Args:
        mask: empty, it stays 0; one that fills the frame stays 1.
        temperature_px: T > 0 [px of the mask].
    """
    probs = mask.astype(np.float32)
    lesion = Lesion(mask)
    if lesion.is_empty or lesion.area_px == mask.size:
        return probs
    distance, window = lesion.distance(_FAR * temperature_px + 1)
    far = distance < -_FAR * temperature_px
    # In place: most of the time of a corruption is spent here.
    distance *= np.float32(-1 / temperature_px)
    np.minimum(distance, np.float32(_FAR), out=distance)
    np.exp(distance, out=distance)
    distance += 1
    np.reciprocal(distance, out=distance)
    distance[far] = 0
    probs[window.slices] = distance
    return probs

"""What is wrong with a predicted mask, in numbers that do not depend on the lesion's size."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Shaped

from ultrarefiner.data.corruption.softening import GRID_PX
from ultrarefiner.ops.components import label_components
from ultrarefiner.ops.distance import signed_distance
from ultrarefiner.shapes import Mask, ProbMap

STATISTICS: Mapping[str, str] = {
    "dsc": "Dice coefficient",
    "log_area": "logarithm of the area ratio",
    "lost": "area of the truth that is not predicted [A]",
    "lost_deep": "the same, deeper than 0.4 r inside the truth [A]",
    "extra": "predicted area outside the truth [A]",
    "extra_far": "the same, further than 0.5 r from the truth [A]",
    "edge_mean": "mean signed distance of the predicted outline from the true one [r]",
    "edge_spread": "its standard deviation [r]",
    "parts": "connected parts of the prediction",
    "hollow": "area that the prediction encloses but does not cover [A]",
    "shift": "distance of the centroids [r]",
}
"""What is measured of a prediction; A is the true area, r = sqrt(A / pi). None if all is missed."""

_DEEP, _FAR = 0.4, 0.5
_LEAST_PART = 0.005  # of the true area; smaller specks are no parts
_DECIDED = 0.02  # probabilities as near as this to 0 or 1 say nothing about T


def to_grid(values: Shaped[np.ndarray, "H W"]) -> ProbMap:
    """Return a map whose longer side is 224 px, each pixel the mean of those that it covers."""
    scale = GRID_PX / max(values.shape)
    size_wh = (max(round(values.shape[1] * scale), 1), max(round(values.shape[0] * scale), 1))
    small: ProbMap = cv2.resize(values.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    return small


class Truth:
    """A true mask with which predictions are compared.

    Args:
        mask: on the 224 px grid, not empty.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.area_px = int(np.count_nonzero(mask))
        self.radius_px = float(np.sqrt(self.area_px / np.pi))
        self.distance = signed_distance(mask)
        self.centre_yx = np.argwhere(mask).mean(axis=0)

    def describe(self, pred: Mask) -> dict[str, float]:
        """Return the :data:`STATISTICS` of a prediction; NaN if it is empty.

        Args:
            pred: on the same grid.
        """
        pred_px = int(np.count_nonzero(pred))
        if pred_px == 0:
            return dict.fromkeys(STATISTICS, float("nan"))
        lost, extra = self.mask & ~pred, pred & ~self.mask
        hits_px = self.area_px - np.count_nonzero(lost)
        edge = self._edge(pred)
        shift_px = np.hypot(*(np.argwhere(pred).mean(axis=0) - self.centre_yx))
        least_px = max(_LEAST_PART * self.area_px, 2.0)
        _, areas_px = label_components(pred)
        return {
            "dsc": 2 * hits_px / (self.area_px + pred_px),
            "log_area": float(np.log(pred_px / self.area_px)),
            "lost": self._share(lost),
            "lost_deep": self._share(lost & (self.distance > _DEEP * self.radius_px)),
            "extra": self._share(extra),
            "extra_far": self._share(extra & (self.distance < -_FAR * self.radius_px)),
            "edge_mean": float(edge.mean()),
            "edge_spread": float(edge.std()),
            "parts": float(max(int(np.count_nonzero(areas_px >= least_px)), 1)),
            "hollow": _hollow_px(pred) / self.area_px,
            "shift": float(shift_px) / self.radius_px,
        }

    def _share(self, pixels: Mask) -> float:
        return int(np.count_nonzero(pixels)) / self.area_px

    def _edge(self, pred: Mask) -> np.ndarray:
        """Return the true signed distance of the prediction's outermost pixels [r], + outside."""
        if not np.isfinite(self.distance).all():
            return np.zeros(1)  # the truth fills the frame
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        eroded = cv2.erode(
            pred.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=1
        )
        values = self.distance[pred & (eroded == 0)]
        return (0.5 - values) / self.radius_px if len(values) else np.zeros(1)


def find_temperature(probs: ProbMap) -> float | None:
    r"""Return T for which :math:`\sigma(\phi / T)` is nearest to a map around its outline [px].

    Median of the distance to the outline over the logit there, over undecided pixels more than a
    pixel away from it. None where there are no such: the map is hard, empty or full.
    """
    distance = signed_distance(probs > 0.5)
    undecided = (probs > _DECIDED) & (probs < 1 - _DECIDED) & (np.abs(distance) > 1)
    if np.count_nonzero(undecided) < 8 or not np.isfinite(distance).all():
        return None
    p = probs[undecided].astype(float)
    logits = np.abs(np.log(p / (1 - p)))
    ratio = np.abs(distance[undecided]) / np.maximum(logits, 1e-3)
    return float(np.median(ratio))


def _hollow_px(pred: Mask) -> int:
    """Return how many pixels a mask encloses; what the frame closes counts as open."""
    padded = np.pad(1 - pred.astype(np.uint8), 1, constant_values=1)
    _, _, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=4)
    outside = int(stats[1:, cv2.CC_STAT_AREA].max())
    return int(np.count_nonzero(padded)) - outside

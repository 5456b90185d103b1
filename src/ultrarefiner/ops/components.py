"""Connected components of binary masks, and the part of the plane nearest to each."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Int32


def label_components(
    mask: Bool[np.ndarray, "H W"],
) -> tuple[Int32[np.ndarray, "H W"], Int32[np.ndarray, "K"]]:
    """Label 8-connected components, largest first.

    Args:
        mask: binary mask.

    Returns:
        Labels (0 background, 1..K components by falling area) and the K areas [px]. An empty mask
        gives zeros and no areas.
    """
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    rank = np.zeros(num, dtype=np.int32)
    rank[1 + order] = np.arange(1, num, dtype=np.int32)
    return rank[labels], areas[order].astype(np.int32)


def nearest_component(
    labels: Int32[np.ndarray, "H W"],
) -> Int32[np.ndarray, "H W"]:
    """Give every pixel the label of the component nearest to it.

    Args:
        labels: as from :func:`label_components`, at least one component.

    Returns:
        Labels 1..K everywhere; inside a component its own.
    """
    background = (labels == 0).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        background, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_zero_pixel = np.zeros(int(nearest.max()) + 1, dtype=np.int32)
    inside = labels > 0
    of_zero_pixel[nearest[inside]] = labels[inside]
    return of_zero_pixel[nearest]

"""Lesions, the 8-connected components of a mask: which of them are found, and how long they are.

A true lesion counts as found when one predicted lesion overlaps it with an IoU above one half, the
rule of panoptic quality (Kirillov et al., https://arxiv.org/abs/1801.00868). Lesions of one mask
do not overlap, so that above one half no lesion has two partners and no assignment is to be
solved. The F1 score of these counts is the recognition quality of that paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

_CONNECTIVITY = 8  # as findContours has it, without a choice


def lesion_outlines(mask: UInt8[np.ndarray, "h w"]) -> list[Int32[np.ndarray, "_ 2"]]:
    """Return the outer outline of each lesion, as the ``(x, y)`` of the pixels where it turns."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    is_hole = hierarchy[0, :, 3] >= 0
    return [c.reshape(-1, 2) for c, hole in zip(contours, is_hole, strict=True) if not hole]


def count_found(pred: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "h w"]) -> int:
    r"""Return how many lesions of one mask are found in the other.

    .. math:: \left|\{(i, j) : |P_i \cap T_j| > \tfrac{1}{2} |P_i \cup T_j|\}\right|

    Args:
        pred: predicted mask, 0/1.
        target: reference mask of the same shape, 0/1.

    Returns:
        The number of pairs whose IoU is above one half; the same when the masks change places.

    Example:
        >>> count_found(np.array([[1, 1, 0, 1]], np.uint8), np.array([[1, 1, 1, 0]], np.uint8))
        1
    """
    _, labels_p = cv2.connectedComponents(pred, connectivity=_CONNECTIVITY)
    _, labels_t = cv2.connectedComponents(target, connectivity=_CONNECTIVITY)
    areas_p, areas_t = np.bincount(labels_p.ravel()), np.bincount(labels_t.ravel())
    both = (pred & target).astype(bool)
    pairs = labels_p[both].astype(np.int64) * len(areas_t) + labels_t[both]
    pairs, overlaps = np.unique(pairs, return_counts=True)
    unions = areas_p[pairs // len(areas_t)] + areas_t[pairs % len(areas_t)] - overlaps
    return int(np.count_nonzero(2 * overlaps > unions))


def longest_diameter(
    outlines: Sequence[Int32[np.ndarray, "_ 2"]], spacing: tuple[float, float]
) -> float:
    r"""Return the greatest distance between two pixel centres of one lesion, over all lesions.

    .. math:: \max_k \max_{a, b \in T_k} \lVert a - b \rVert

    Both ends lie on a corner of the convex hull, which stretching an axis leaves one.

    Args:
        outlines: what :func:`lesion_outlines` gave.
        spacing: distance of neighbouring pixels ``(dy, dx)``, in the unit of the result.

    Returns:
        The diameter; 0 for one pixel and without a lesion.

    Example:
        >>> square = np.ones((4, 5), np.uint8)
        >>> longest_diameter(lesion_outlines(square), (1.0, 1.0))
        5.0
    """
    dy, dx = spacing
    longest = 0.0
    for outline in outlines:
        x, y = cv2.convexHull(outline).reshape(-1, 2).T
        steps_x, steps_y = dx * np.subtract.outer(x, x), dy * np.subtract.outer(y, y)
        longest = max(longest, (steps_x * steps_x + steps_y * steps_y).max())
    return math.sqrt(longest)

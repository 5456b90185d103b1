"""Signed Euclidean distance of binary masks, with the zero level on the pixel edge."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import distance_transform_edt

_ROUNDED_PX = 512.0  # OpenCV's squares are right to 0.1 up to here, and wrong by 1 from 885 px


def distance_to_zero(pixels: UInt8[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Return the Euclidean distance to the nearest zero, the same bits whenever it is asked.

    The last bit of OpenCV's precise transform differs between equal calls. The square is a whole
    number: rounded to it, and its root taken, the distance is exact. Maps that reach too far for
    that go through SciPy's slower transform.

    Args:
        pixels: at least one of them 0.

    Returns:
        Distance between pixel centres [px], correctly rounded to float32.

    Example:
        >>> distance_to_zero(np.array([[0, 1, 1], [1, 1, 1]], dtype=np.uint8))[1]
        array([1.       , 1.4142135, 2.236068 ], dtype=float32)
    """
    distance: Float32[np.ndarray, "H W"] = cv2.distanceTransform(
        pixels, cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    if distance.max(initial=0.0) > _ROUNDED_PX:
        return np.asarray(distance_transform_edt(pixels), dtype=np.float32)
    np.multiply(distance, distance, out=distance)
    np.rint(distance, out=distance)
    np.sqrt(distance, out=distance)
    return distance


def signed_distance(mask: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    r"""Return the signed distance to the mask boundary, positive inside.

    .. math:: \phi(x) = \begin{cases} d(x, \text{outside}) - \tfrac12 & x \in M \\
                                     -d(x, M) + \tfrac12 & x \notin M \end{cases}

    Distances run between pixel centres; the half pixel puts the zero level on the edge that two
    neighbouring pixels share, so that thresholding at 0 returns the mask exactly.

    Args:
        mask: binary mask.

    Returns:
        Distance in px of the mask's own grid, exact up to float32 and the same bits at every call.
        An empty mask gives ``-inf`` everywhere, a full mask ``+inf``: there is no boundary to be
        near to.

    Example:
        >>> signed_distance(np.array([[False, True, True]]))
        array([[-0.5,  0.5,  1.5]], dtype=float32)
    """
    if not mask.any():
        return np.full(mask.shape, -np.inf, dtype=np.float32)
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    inside = mask.astype(np.uint8)
    half = np.float32(0.5)
    return np.where(mask, distance_to_zero(inside) - half, half - distance_to_zero(1 - inside))

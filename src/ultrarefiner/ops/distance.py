"""Signed Euclidean distance of binary masks, with the zero level on the pixel edge."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32


def signed_distance(mask: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    r"""Return the signed distance to the mask boundary, positive inside.

    .. math:: \phi(x) = \begin{cases} d(x, \text{outside}) - \tfrac12 & x \in M \\
                                     -d(x, M) + \tfrac12 & x \notin M \end{cases}

    Distances run between pixel centres; the half pixel puts the zero level on the edge that two
    neighbouring pixels share, so that thresholding at 0 returns the mask exactly.

    Args:
        mask: binary mask.

    Returns:
        Distance in px of the mask's own grid, exact up to float32. An empty mask gives ``-inf``
        everywhere, a full mask ``+inf``: there is no boundary to be near to.

    Example:
        >>> signed_distance(np.array([[False, True, True]]))
        array([[-0.5,  0.5,  1.5]], dtype=float32)
    """
    if not mask.any():
        return np.full(mask.shape, -np.inf, dtype=np.float32)
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    inside = mask.astype(np.uint8)
    d_in = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    d_out = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, d_in - 0.5, 0.5 - d_out).astype(np.float32)

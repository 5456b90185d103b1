"""Brier score and expected calibration error of a lesion's probabilities, pixel by pixel.

Both are taken near the lesion. In a whole frame nine pixels in ten are background that any method
calls background, so that a score over the frame says how small the lesion is rather than how good
its probabilities are. The region is a box around the target and all that the method calls lesion
(p above one half), widened: the target keeps a method from hiding a miss, the prediction keeps it
from hiding a false alarm elsewhere. ``margin=None`` takes the whole frame.

Brier, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; the calibration error with
bins of one width is that of Guo et al., https://arxiv.org/abs/1706.04599, here of the probability
of the lesion itself as in torchmetrics (Apache-2.0), not of the likelier of two classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy.typing import NDArray

from ultrarefiner.errors import ConfigError, InputError

Bins = tuple[tuple[int, float, float], ...]
"""For each bin of probability: how many pixels, the sum of their p, how many are lesion."""


@dataclass(frozen=True, kw_only=True)
class ProbMetrics:
    """How good the probabilities of one image are.

    Args:
        brier: mean squared difference of probability and truth, in [0, 1]; NaN without a region.
        ece: expected calibration error, in [0, 1]; NaN without a region.
        bins: what the calibration error comes from; bins of images add up, see :func:`pool_bins`.
    """

    brier: float
    ece: float
    bins: Bins


def evaluate_probs(
    probs: NDArray[Any],
    target: NDArray[Any],
    *,
    num_bins: int = 15,
    margin: float | None = 0.25,
) -> ProbMetrics:
    r"""Return Brier score and calibration error of a lesion's probabilities.

    With probabilities :math:`p_i`, truth :math:`y_i` and the pixels :math:`B_k` of the region
    whose probability lies in :math:`[(k - 1) / K, k / K)`, 1 belonging to the last,

    .. math::
        \mathrm{Brier} = \frac{1}{N} \sum_i (p_i - y_i)^2 \qquad
        \mathrm{ECE} = \frac{1}{N} \sum_{k=1}^{K} \Bigl| \sum_{i \in B_k} (p_i - y_i) \Bigr|

    The region is the bounding box of the target and of all :math:`p > 1/2`, widened. When there is
    neither, it is empty: both scores are NaN and the bins count nothing, so that an image without
    a lesion that was rightly called so does not drown the others.

    Args:
        probs: probability ``(H, W)`` of the lesion, in [0, 1].
        target: reference mask of the same shape, bool or 0/1.
        num_bins: number of bins K of one width, at least 1.
        margin: how far the box goes beyond the lesion on each side, as a share of its height or
            width there, at least 0; None takes the whole frame.

    Returns:
        The scores and their bins.

    Raises:
        InputError: the probabilities are not 2D, not in [0, 1] or not of the target's shape, or
            the target is not binary.
        ConfigError: the number of bins or the margin is out of range.

    Example:
        >>> target = np.zeros((8, 8), dtype=bool)
        >>> target[2:6, 2:6] = True
        >>> metrics = evaluate_probs(np.where(target, 0.9, 0.2), target, num_bins=2)
        >>> round(metrics.brier, 4), round(metrics.ece, 4)
        (0.0267, 0.1556)
    """
    if num_bins < 1:
        raise ConfigError("num_bins is out of range", expected="at least 1", found=f"{num_bins}")
    if margin is not None and not 0 <= margin < math.inf:
        raise ConfigError(
            "margin is out of range", expected="a number >= 0, or None", found=f"{margin}"
        )
    p, y = _checked(probs, target)
    box = np.s_[:, :] if margin is None else _widened_box(y | (p > 0.5), margin)
    p, y = p[box].astype(np.float64).ravel(), y[box].ravel()
    bins = _fill_bins(p, y, num_bins)
    brier = float(np.mean((p - y) ** 2)) if p.size else math.nan
    return ProbMetrics(brier=brier, ece=calibration_error(bins), bins=bins)


def pool_bins(bins: Iterable[Bins]) -> Bins:
    """Return the bins of all pixels of several images.

    Args:
        bins: those of each image, at least one, all of one number.

    Returns:
        Bins whose :func:`calibration_error` is that of all pixels together.

    Raises:
        InputError: there is no image, or images differ in their number of bins.

    Example:
        >>> pool_bins([((2, 0.5, 1.0),), ((1, 0.25, 0.0),)])
        ((3, 0.75, 1.0),)
    """
    images = list(bins)
    numbers = sorted({len(image) for image in images})
    if len(numbers) != 1:
        raise InputError(
            "the bins of these images do not add up",
            expected="at least one image, and one number of bins",
            found=f"{len(images)} images" + "".join(f", {number} bins" for number in numbers),
            fix="Evaluate all images with the same num_bins.",
        )
    return tuple(
        (
            sum(c for c, _, _ in same),
            math.fsum(p for _, p, _ in same),
            math.fsum(y for *_, y in same),
        )
        for same in zip(*images, strict=True)
    )


def calibration_error(bins: Bins) -> float:
    """Return the expected calibration error of bins, in [0, 1]; NaN when they count nothing.

    Example:
        >>> calibration_error(((10, 1.0, 2.0), (10, 9.0, 9.0)))
        0.05
    """
    num = sum(count for count, _, _ in bins)
    return sum(abs(p - y) for _, p, y in bins) / num if num else math.nan


def _fill_bins(p: Float64[np.ndarray, " N"], y: Bool[np.ndarray, " N"], num_bins: int) -> Bins:
    index = np.minimum((p * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(index, minlength=num_bins).tolist()
    sums = (np.bincount(index, w, minlength=num_bins).astype(float).tolist() for w in (p, y))
    return tuple(zip(counts, *sums, strict=True))


def _widened_box(lesion: Bool[np.ndarray, "H W"], margin: float) -> tuple[slice, slice]:
    """Return the lesion's bounding box with a margin, inside the frame; empty without a lesion."""
    x, y, width, height = cv2.boundingRect(lesion.view(np.uint8))
    return _widened(y, height, margin), _widened(x, width, margin)


def _widened(start: int, length: int, margin: float) -> slice:
    extra = math.ceil(margin * length)
    return slice(max(0, start - extra), start + length + extra)


def _checked(
    probs: NDArray[Any], target: NDArray[Any]
) -> tuple[Shaped[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return probabilities and truth of one shape, or say why they are none."""
    p, t = np.asarray(probs), np.asarray(target)
    if p.ndim != 2 or p.size == 0 or p.shape != t.shape:
        raise InputError(
            "probs and target are not of one image",
            expected="two arrays of one shape (H, W) with at least one pixel",
            found=f"probs {p.shape}, target {t.shape}",
            fix="Resample the probabilities to the native grid of their target.",
        )
    if not (p.min() >= 0 and p.max() <= 1):  # so that NaN is refused too
        raise InputError(
            "probs are no probabilities",
            expected="numbers in [0, 1]",
            found=f"{p.dtype} from {p.min()} to {p.max()}",
            fix="Divide 8-bit maps by 255; put logits through a sigmoid.",
        )
    y = t.astype(bool)
    if not np.array_equal(y, t):
        raise InputError(
            "target is not binary",
            expected="bool, or only 0 and 1",
            found=f"{t.dtype} from {t.min()} to {t.max()}",
            fix="Threshold it first: mask > 127 for 0/255 images.",
        )
    return p, y

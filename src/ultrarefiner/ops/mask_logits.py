"""Mask prompts: a probability map as the logits that a foundation model takes for its own."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.ops.distance import signed_distance
from ultrarefiner.ops.smoothing import narrow_blur
from ultrarefiner.shapes import ProbMaps


def direct_logits(probs: ProbMaps, scale: float = 10.0) -> ProbMaps:
    r"""Return :math:`(2P - 1) s`, which has the same slope everywhere.

    Args:
        probs: ``B 1 h w`` probabilities.
        scale: s > 0, the magnitude where the map is certain [logits].

    Returns:
        ``B 1 h w`` in [-s, s], float32 or better; an empty map gives -s.
    """
    return 2 * scale * _at_least_float32(probs) - scale


def clipped_logits(probs: ProbMaps, limit: float = 10.0) -> ProbMaps:
    r"""Return :math:`\log(P / (1 - P))`, clipped.

    The gradient is :math:`1 / (P (1 - P))` inside the clip, at most about :math:`e^\text{limit}`
    (which cancels against the sigmoid that made P), and zero at and beyond it: a certain pixel does
    not move.

    Args:
        probs: ``B 1 h w`` probabilities.
        limit: > 0, the largest magnitude [logits]; float32 itself ends at 15.9.

    Returns:
        ``B 1 h w`` in [-limit, limit], float32 or better; an empty map gives -limit.
    """
    probs = _at_least_float32(probs)
    # Below a rounding step 1 - p is 1, and its logit infinite.
    smallest = max(1 / (1 + math.exp(limit)), torch.finfo(probs.dtype).eps)
    return torch.logit(probs, eps=smallest).clamp(-limit, limit)


def adaptive_sigma(
    area_px: Float[Tensor, "B"], *, share: float = 0.1, low: float = 0.5, high: float = 4.0
) -> Float[Tensor, "B"]:
    r"""Return a blur that follows the lesion's size, :math:`\sigma = c \sqrt{A / \pi}`, clamped.

    Args:
        area_px: ``B`` soft areas, at least 0 [px^2 of the grid that is blurred].
        share: c, blur in lesion radii, > 0.
        low: smallest sigma, > 0 [px].
        high: largest sigma [px].

    Returns:
        sigma [px]; where it is clamped, an empty map too, the gradient is zero.
    """
    # Clamped before the root, whose slope at zero is infinite.
    bounds = [torch.pi * (sigma_px / share) ** 2 for sigma_px in (low, high)]
    return share * (_at_least_float32(area_px).clamp(*bounds) / torch.pi).sqrt()


def gaussian_logits(
    probs: ProbMaps,
    sigma_px: Float[Tensor, "B"],
    scale: float = 10.0,
    *,
    max_sigma_px: float = 4.0,
) -> ProbMaps:
    r"""Blur and return the direct logits, :math:`s (2\, (g * P) - 1)`.

    The Gaussian g is normalised at the border of the grid.

    Args:
        probs: ``B 1 h w`` probabilities.
        sigma_px: ``B`` standard deviations of the Gaussian, > 0 [px].
        scale: s > 0, the magnitude where the map is certain [logits].
        max_sigma_px: no sigma is larger; the Gaussian ends at five times that [px].

    Returns:
        ``B 1 h w`` in [-s, s], float32 or better, whatever autocast says; an empty map gives -s.
    """
    probs = _at_least_float32(probs)
    return direct_logits(narrow_blur(probs, sigma_px[:, None], max_sigma_px=max_sigma_px), scale)


def distance_logits(
    probs: ProbMaps,
    temperature_px: Float[Tensor, "B"],
    limit: float = 10.0,
    *,
    straight_through: bool = False,
) -> ProbMaps:
    r"""Return the signed distance to the outline of P > 0.5 over a temperature, clipped.

    For prediction and augmentation: distances are computed item by item on the CPU, which waits for
    the device, and have no gradient of their own.

    Args:
        probs: ``B 1 h w`` probabilities.
        temperature_px: ``B`` px for one logit, at least 0.
        limit: > 0, the largest magnitude [logits].
        straight_through: pass gradients as if these were :func:`direct_logits` of scale ``limit``;
            without, there are none.

    Returns:
        ``B 1 h w`` in [-limit, limit], positive inside, float32 or better; an empty map gives
        -limit, a full one +limit.
    """
    probs = _at_least_float32(probs)
    inside = (probs.detach()[:, 0] > 0.5).cpu().numpy()
    distances = torch.stack([torch.from_numpy(signed_distance(mask)) for mask in inside])
    temperature_px = temperature_px.detach().to(probs.dtype)[:, None, None, None]
    logits = (distances[:, None].to(probs) / temperature_px).clamp(-limit, limit)  # never 0 / 0
    if not straight_through:
        return logits
    direct = direct_logits(probs, limit)
    return logits + (direct - direct.detach())


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))

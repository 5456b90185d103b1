"""Moments of soft masks: where the mass is and how far it spreads. Differentiable."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.shapes import Boxes, ProbMaps

PIXEL_VARIANCE = 1.0 / 12.0
"""Variance of the uniform distribution over one pixel [px^2]: no mask is narrower than that."""


def sharpen(probs: ProbMaps, *, floor: float, relative: float, temperature: float) -> ProbMaps:
    r"""Suppress the background of a probability map, so that moments see the lesion alone.

    .. math:: w = \left(\frac{\max(P - t, 0)}{1 - t}\right)^{1/\tau},
              \quad t = \max(\text{floor}, \text{relative} \cdot \max P)

    A faint floor over a large background outweighs a small lesion: with P = 0.005 everywhere, the
    unsharpened box of a 15 px lesion is seven radii wide. ``floor = relative = 0, tau = 1`` is the
    identity.

    Args:
        probs: ``B 1 h w`` probabilities.
        floor: smallest threshold, in [0, 1).
        relative: threshold as a share of the map's maximum, in [0, 1). The maximum is detached.
        temperature: tau > 0; below 1 favours confident pixels.

    Returns:
        Weights in [0, 1]; all zero where nothing exceeds the threshold.
    """
    if floor == relative == 0 and temperature == 1:
        return probs
    peak = probs.detach().amax(dim=(-2, -1), keepdim=True)
    threshold = (relative * peak).clamp(min=floor)
    return ((probs - threshold).clamp_min(0) / (1 - threshold)) ** (1 / temperature)


def centre_and_spread(
    weights: ProbMaps,
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"], Float[Tensor, "B"]]:
    """Return mean xy [px], standard deviation xy [px] and total mass of each map.

    Computed from the two marginals in float32 or better, without products that autocast would
    round. The variance has the pixel's own 1/12 px^2
    added, which makes the standard deviation exact for uniform shapes and differentiable for one
    pixel. A map without mass gives the centre of the grid and the smallest spread.

    Args:
        weights: ``B 1 h w``, non-negative.
    """
    weights = weights.squeeze(1).to(torch.promote_types(weights.dtype, torch.float32))
    marginals = weights.sum(dim=-2), weights.sum(dim=-1)  # over x, over y
    mass = marginals[0].sum(dim=-1)
    empty = mass <= torch.finfo(weights.dtype).tiny
    safe_mass = torch.where(empty, torch.ones_like(mass), mass)
    means, stds = [], []
    for sums in marginals:
        marginal = sums / safe_mass[:, None]
        length = marginal.shape[-1]
        centres = torch.arange(length, device=weights.device, dtype=weights.dtype) + 0.5
        mean = torch.where(empty, centres.new_tensor(length / 2), (marginal * centres).sum(-1))
        variance = (marginal * (centres - mean[:, None]) ** 2).sum(-1) + PIXEL_VARIANCE
        means.append(mean)
        stds.append(variance.sqrt())
    return torch.stack(means, dim=-1), torch.stack(stds, dim=-1), mass


def statistics_box(weights: ProbMaps, *, num_stds: float) -> tuple[Boxes, Float[Tensor, "B"]]:
    r"""Return the box :math:`\mu \pm k \sigma` of each map and its mass.

    For a uniform ellipse :math:`\sigma` is a quarter of the axis, so that k = 2 is its tight box.

    Args:
        weights: ``B 1 h w``, non-negative, best sharpened.
        num_stds: k > 0.

    Returns:
        xyxy [px of the grid], not clamped; and the mass, zero for an empty map.
    """
    mean, std, mass = centre_and_spread(weights)
    return torch.cat([mean - num_stds * std, mean + num_stds * std], dim=-1), mass

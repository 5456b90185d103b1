"""Gaussian smoothing, normalised at the border. Differentiable in the maps and in sigma."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.shapes import Candidates, Scores

Band = Float[Tensor, "N b w"]

_BLOCK = 32
"""Neighbouring pixels whose narrow sums are taken in one small matrix product."""

_REACH = 5.0
"""Half width of a narrow Gaussian in standard deviations; 6e-7 of its mass lies beyond."""


def blur(maps: Candidates, sigma_px: Scores) -> Candidates:
    r"""Blur each map with its own Gaussian; beyond the border there is nothing to average.

    .. math:: (g * P)_{ij} = \sum_{kl} G^\text{rows}_{ik} \, P_{kl} \, G^\text{cols}_{jl}

    In float32 or better, whatever autocast says. A constant map, an empty one too, is returned as
    it is, up to rounding.

    Args:
        maps: ``B K h w``.
        sigma_px: ``B K`` standard deviations, > 0 [px of the maps].

    Returns:
        ``B K h w``, within the range of each map.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    sigma_px = sigma_px.to(dtype)
    with torch.autocast(maps.device.type, enabled=False):
        rows = gaussian_matrix(maps.shape[-2], sigma_px)
        cols = gaussian_matrix(maps.shape[-1], sigma_px)
        return rows @ maps.to(dtype) @ cols.transpose(-2, -1)


def gaussian_matrix(length: int, sigma_px: Float[Tensor, "*B"]) -> Float[Tensor, "*B n n"]:
    r"""Return the matrix of a Gaussian convolution along one axis, its rows summing to 1.

    .. math:: G_{ij} = \frac{\exp(-(i - j)^2 / 2 \sigma^2)}
                            {\sum_k \exp(-(i - k)^2 / 2 \sigma^2)}

    Args:
        length: n, the number of pixels along the axis.
        sigma_px: standard deviations, > 0 [px of that axis]; far below 1 the matrix is the
            identity.

    Example:
        >>> gaussian_matrix(3, torch.tensor(1e-3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    index = torch.arange(length, device=sigma_px.device, dtype=sigma_px.dtype)
    distance = (index[:, None] - index) / sigma_px[..., None, None]
    return torch.softmax(-0.5 * distance**2, dim=-1)


def narrow_blur(maps: Candidates, sigma_px: Scores, *, max_sigma_px: float) -> Candidates:
    r"""Blur as :func:`blur` does, with Gaussians known to be narrow; several times faster.

    Each Gaussian ends at :math:`5 \sigma_\max`, so that a pixel is the sum of its neighbours alone.
    32 pixels side by side share most of them: their sums are one product with a small band matrix,
    the same for all places of a map.

    Args:
        maps: ``B K h w``.
        sigma_px: ``B K`` standard deviations, > 0 [px of the maps].
        max_sigma_px: none is larger; decides how far is looked.

    Returns:
        ``B K h w``, within the range of each map.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    sigma_px = sigma_px.to(dtype).expand(maps.shape[:2])
    flat = maps.to(dtype).flatten(0, 1)
    with torch.autocast(maps.device.type, enabled=False):
        band = _band_matrix(sigma_px.flatten(), math.ceil(_REACH * max_sigma_px))
        columns: Tensor = _BandMean.apply(flat.transpose(1, 2), band)
        blurred: Tensor = _BandMean.apply(columns.transpose(1, 2), band)
        return blurred.view(maps.shape)


def _band_matrix(sigma_px: Float[Tensor, "N"], reach: int) -> Band:
    """Return the Gaussian around each pixel of a block, over the block and what is in reach."""
    index = torch.arange(_BLOCK + 2 * reach, device=sigma_px.device)
    offsets = index - index[:_BLOCK, None] - reach
    gaussian = torch.exp(-0.5 * (offsets / sigma_px[:, None, None]) ** 2)
    return gaussian * (offsets.abs() <= reach)


class _BandMean(torch.autograd.Function):
    r"""Weighted means down each column, the same weights around every pixel but at the border.

    With weights k and their sums m the mean is :math:`y_i = \sum_j k_{ij} x_j / m_i`, and since a
    Gaussian is symmetric, the gradient :math:`\sum_j k_{ij} (\partial y_j / m_j)` is of the same
    kind. Autograd would write a map of zeros for each block and add all of them up.
    """

    @staticmethod
    def forward(maps: Tensor, band: Tensor) -> Tensor:
        """Average ``N m n`` with the band ``N b w``."""
        means = torch.empty_like(maps, memory_format=torch.contiguous_format)
        for pixels, near, rows, cols in _blocks(maps, band):
            weights = band[:, rows, cols]
            means[:, pixels] = (weights / _mass(weights)) @ maps[:, near]
        return means

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep both inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of maps and band."""
        maps, band = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_maps = _adjoint_mean(grad, band) if ctx.needs_input_grad[0] else None
            grad_band = _band_gradient(grad, maps, band) if ctx.needs_input_grad[1] else None
        return grad_maps, grad_band


def _adjoint_mean(grad: Float[Tensor, "N m n"], band: Band) -> Float[Tensor, "N m n"]:
    """Return the gradient of the maps."""
    blocks = list(_blocks(grad, band))
    mass = torch.cat([_mass(band[:, rows, cols]) for _, _, rows, cols in blocks], dim=1).mT
    summed = torch.empty_like(grad, memory_format=torch.contiguous_format)
    for pixels, near, rows, cols in blocks:
        summed[:, pixels] = (band[:, rows, cols] / mass[..., near]) @ grad[:, near]
    return summed


def _band_gradient(grad: Float[Tensor, "N m n"], maps: Float[Tensor, "N m n"], band: Band) -> Band:
    """Return the gradient of the band, all blocks together."""
    total = torch.zeros_like(band)
    for pixels, near, rows, cols in _blocks(maps, band):
        weights = band[:, rows, cols]
        products = grad[:, pixels] @ maps[:, near].mT
        mean = (products * weights).sum(dim=-1, keepdim=True) / _mass(weights)
        total[:, rows, cols] += (products - mean) / _mass(weights)
    return total


def _blocks(
    maps: Float[Tensor, "N m n"], band: Band
) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Yield the pixels of each block, those in reach, and the band's rows and columns for them."""
    length, reach = maps.shape[1], (band.shape[-1] - _BLOCK) // 2
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        low, high = max(start - reach, 0), min(start + _BLOCK + reach, length)
        first = start - reach
        yield (
            slice(start, stop),
            slice(low, high),
            slice(0, stop - start),
            slice(low - first, high - first),
        )


def _mass(weights: Float[Tensor, "N b w"]) -> Float[Tensor, "N b 1"]:
    return weights.sum(dim=-1, keepdim=True)

"""What the image itself says about an outline: contrast between its two sides."""

from __future__ import annotations

import torch

from ultrarefiner.ops.smoothing import blur, gaussian_matrix
from ultrarefiner.shapes import Candidates, Images, Scores

_NOISE_FLOOR = 0.02
"""Added to the standard deviation, so that a flat image has no contrast [grey levels in 0..1]."""


def boundary_contrast(
    masks: Candidates,
    images: Images,
    valid: Images,
    *,
    width: float = 0.12,
    min_width_px: float = 1.5,
) -> Scores:
    r"""Return how differently the image looks just inside and just outside each mask.

    .. math:: c = \frac{|\mu_\text{out} - \mu_\text{in}|}{\sigma + 0.02},
              \quad w_\text{in} = m (1 - g * m), \quad w_\text{out} = (1 - m) (g * m)

    g is a Gaussian whose width follows the mask's radius, so that both weights live in a band along
    the outline; :math:`\mu` are the weighted means and :math:`\sigma` the weighted standard
    deviation over the whole band. Bright or dark lesions count alike. Where a mask is cut
    by the image's border there is no outside, and the outline counts for nothing.

    Args:
        masks: ``B K h w`` soft or hard masks in [0, 1].
        images: ``B 1 h w`` grey levels on the same grid, stretched to [0, 1].
        valid: ``B 1 h w`` 1 in the rectangle that holds image, 0 in the padding.
        width: standard deviation of the Gaussian in mask radii, r = sqrt(area / pi).
        min_width_px: least standard deviation [px of the grid].

    Returns:
        ``B K``, at least 0, at most about 2; an empty or full mask gives 0.
    """
    masks, images, valid = masks.float(), images.float(), valid.float()
    radius_px = (masks.detach().sum(dim=(-2, -1)) / torch.pi).sqrt()
    sigma_px = (width * radius_px).clamp_min(min_width_px)
    blurred = blur(masks * valid, sigma_px) / _blurred_rectangle(valid, sigma_px).clamp_min(1e-6)
    inner, outer = valid * masks * (1 - blurred), valid * (1 - masks) * blurred
    mean_inner, _ = _weighted_moments(images, inner)
    mean_outer, _ = _weighted_moments(images, outer)
    _, variance = _weighted_moments(images, inner + outer)
    contrast = (mean_outer - mean_inner).abs() / (variance.sqrt() + _NOISE_FLOOR)
    one_sided = torch.minimum(inner.sum(dim=(-2, -1)), outer.sum(dim=(-2, -1))) < 1
    return contrast.masked_fill(one_sided, 0)


def _blurred_rectangle(valid: Images, sigma_px: Scores) -> Candidates:
    """Blur the rectangle that the image fills with each Gaussian, one axis at a time."""
    by_row, by_col = valid.amax(dim=-1), valid.amax(dim=-2)
    with torch.autocast(valid.device.type, enabled=False):
        rows = gaussian_matrix(valid.shape[-2], sigma_px) @ by_row[..., None]
        cols = gaussian_matrix(valid.shape[-1], sigma_px) @ by_col[..., None]
    return rows * cols.transpose(-2, -1)


def _weighted_moments(values: Images, weights: Candidates) -> tuple[Scores, Scores]:
    """Return mean and variance of ``values`` under each weight; the variance is at least 1e-12."""
    total = weights.sum(dim=(-2, -1)).clamp_min(1e-6)
    mean = (weights * values).sum(dim=(-2, -1)) / total
    centred = (values - mean[..., None, None]) ** 2
    return mean, ((weights * centred).sum(dim=(-2, -1)) / total).clamp_min(1e-12)

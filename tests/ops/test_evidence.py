"""Contrast along an outline: highest on the edge, blind to sign, gain, offset and padding."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ultrarefiner.ops.evidence import boundary_contrast

_SIDE = 96
_CENTRE = (50.0, 44.0)
_RADIUS_PX = 20.0


def _disc(
    radius_px: float = _RADIUS_PX,
    *,
    shift_xy: tuple[float, float] = (0.0, 0.0),
    hw: tuple[int, int] = (_SIDE, _SIDE),
) -> Tensor:
    """Hard disc, ``1 1 h w``."""
    ys, xs = (torch.arange(length) + 0.5 for length in hw)
    squared = (xs[None] - _CENTRE[0] - shift_xy[0]) ** 2 + (
        ys[:, None] - _CENTRE[1] - shift_xy[1]
    ) ** 2
    return (squared <= radius_px**2).float()[None, None]


def _step_image(inside: float = 0.2, outside: float = 0.7) -> Tensor:
    return outside + (inside - outside) * _disc()


def _speckled(seed: int = 0) -> Tensor:
    """A dark disc under multiplicative noise, stretched to [0, 1]."""
    noise = torch.rand(1, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(seed))
    image = _step_image() * (0.5 + noise)
    return (image - image.min()) / (image.max() - image.min())


def _contrast(masks: Tensor, image: Tensor, valid: Tensor | None = None) -> Tensor:
    return boundary_contrast(masks, image, torch.ones_like(image) if valid is None else valid)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.2])
def test_a_disc_on_its_own_edge_has_the_closed_form(step: float) -> None:
    contrast = _contrast(_disc(), _step_image(0.0, step)).item()
    # Both means are exact, and bands of equal weight have the variance step^2 / 4. Real bands
    # differ by the disc's curvature; p (1 - p) <= 1/4 can only lift the value.
    equal_bands = step / (step / 2 + 0.02)
    assert equal_bands - 1e-4 <= contrast <= 1.03 * equal_bands


def test_the_weights_are_those_of_the_formula() -> None:
    """Against a direct convolution with a Gaussian far from every border."""
    mask, image = _disc(7.0).double(), _speckled().double()
    sigma_px = max(1.5, 0.12 * (mask.sum().item() / torch.pi) ** 0.5)
    offsets = torch.arange(-12, 13, dtype=torch.float64)
    line = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (line[:, None] * line[None] / line.sum() ** 2)[None, None]
    blurred = torch.nn.functional.conv2d(mask, kernel, padding=12)
    inner, outer = mask * (1 - blurred), (1 - mask) * blurred
    both = inner + outer
    mean_inner, mean_outer = ((w * image).sum() / w.sum() for w in (inner, outer))
    mean = (both * image).sum() / both.sum()
    spread = ((both * (image - mean) ** 2).sum() / both.sum()).sqrt()
    expected = (mean_outer - mean_inner).abs() / (spread + 0.02)
    assert _contrast(mask, image).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("image", [_step_image(), _speckled()], ids=["clean", "speckled"])
def test_no_other_disc_fits_the_edge_better(image: Tensor) -> None:
    best = _contrast(_disc(), image).item()
    shifted = [_disc(shift_xy=xy) for xy in ((5, 0), (-5, 0), (0, 5), (4, -4), (12, 0))]
    scaled = [_disc(_RADIUS_PX * factor) for factor in (0.5, 0.75, 0.85, 1.15, 1.3, 1.8)]
    others = _contrast(torch.cat(shifted + scaled, dim=1), image)
    assert (others < 0.9 * best).all()


def test_contrast_falls_steadily_with_the_shift() -> None:
    discs = torch.cat([_disc(shift_xy=(shift, 0)) for shift in (0, 2, 4, 7, 10)], dim=1)
    falling = _contrast(discs, _speckled())[0]
    assert (falling.diff() < 0).all()


def test_bright_and_dark_lesions_count_alike() -> None:
    image = _speckled()
    masks = torch.cat([_disc(), _disc(shift_xy=(6, 2))], dim=1)
    torch.testing.assert_close(
        _contrast(masks, 1 - image), _contrast(masks, image), rtol=1e-4, atol=0
    )


def test_an_offset_changes_nothing() -> None:
    image = 0.5 * _speckled()
    torch.testing.assert_close(
        _contrast(_disc(), image + 0.4), _contrast(_disc(), image), rtol=1e-4, atol=0
    )


def test_gain_acts_through_the_noise_floor_alone() -> None:
    image = _speckled()
    # c = g d / (g s + f), so 1 / c = s / d + (f / d) / g: a straight line in 1 / g.
    inverse = [1 / _contrast(_disc(), gain * image).item() for gain in (1, 1 / 2, 1 / 3, 1 / 4)]
    steps = [b - a for a, b in pairwise(inverse)]
    assert steps[0] > 0
    assert steps == pytest.approx([steps[0]] * 3, rel=0.02)
    assert inverse[3] < 1.3 * inverse[0], "the floor is small against speckle"


def test_a_flat_image_shows_nothing() -> None:
    assert _contrast(_disc(), torch.full((1, 1, _SIDE, _SIDE), 0.6)).item() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["empty", "full"])
def test_a_mask_without_outline_has_none(value: float) -> None:
    assert _contrast(torch.full((1, 2, _SIDE, _SIDE), value), _speckled()).tolist() == [[0.0, 0.0]]


def test_padding_does_not_count() -> None:
    hw = 84, 90
    image = _speckled()[..., : hw[0], : hw[1]]
    masks = torch.cat([_disc(hw=hw), _disc(24, hw=hw, shift_xy=(3, 1))], dim=1)
    pad = (0, _SIDE - hw[1], 0, _SIDE - hw[0])
    padded = torch.nn.functional.pad(image, pad)
    valid = torch.nn.functional.pad(torch.ones_like(image), pad)
    with_padding = _contrast(torch.nn.functional.pad(masks, pad), padded, valid)
    torch.testing.assert_close(with_padding, _contrast(masks, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_rows", [66, 50], ids=["below-the-disc", "through-the-disc"])
def test_what_lies_in_the_padding_is_not_looked_at(num_rows: int) -> None:
    image, valid = _speckled(), torch.ones(1, 1, _SIDE, _SIDE)
    valid[..., num_rows:, :] = 0  # the disc ends at row 64
    other = torch.where(valid > 0, image, 1 - image)
    assert torch.equal(_contrast(_disc(), image, valid), _contrast(_disc(), other, valid))
    assert not torch.equal(_contrast(_disc(), image), _contrast(_disc(), other))


def test_gradients_are_finite_and_reach_mask_and_image() -> None:
    masks = torch.cat([0.9 * _disc() + 0.05, torch.zeros(1, 1, _SIDE, _SIDE)], dim=1)
    masks, image = masks.requires_grad_(), _speckled().requires_grad_()
    _contrast(masks, image).sum().backward()
    assert masks.grad is not None
    assert image.grad is not None
    assert masks.grad.isfinite().all()
    assert image.grad.isfinite().all()
    assert masks.grad[0, 0].abs().max() > 0
    assert masks.grad[0, 1].count_nonzero() == 0, "an empty mask counts for nothing"
    assert image.grad.abs().max() > 0


def test_gradients_are_finite_on_a_flat_image() -> None:
    masks = _disc().requires_grad_()
    _contrast(masks, torch.full((1, 1, _SIDE, _SIDE), 0.6)).sum().backward()
    assert masks.grad is not None
    assert masks.grad.isfinite().all()


def test_a_batch_equals_one_by_one() -> None:
    images = torch.cat([_speckled(0), _speckled(1)])
    masks = torch.cat(
        [
            torch.cat([_disc(), _disc(10, shift_xy=(4, 4))], dim=1),
            torch.cat([_disc(30), torch.zeros(1, 1, _SIDE, _SIDE)], dim=1),
        ]
    )
    together = _contrast(masks, images)
    for item in range(2):
        for k in range(2):
            alone = _contrast(masks[item : item + 1, k : k + 1], images[item : item + 1])
            assert together[item, k].item() == pytest.approx(alone.item(), rel=1e-4, abs=1e-5)
    assert together[1, 1] == 0


def test_bfloat16_is_computed_in_float32() -> None:
    image, mask = _speckled().bfloat16(), _disc().bfloat16()
    contrast = _contrast(mask, image)
    assert contrast.dtype == torch.float32
    assert torch.equal(contrast, _contrast(mask.float(), image.float()))


def test_autocast_does_not_round_the_contrast() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    mask = ((x - 30) ** 2 + (y - 34) ** 2 < 15**2).float()[None, None]
    image = (0.5 + 0.3 * torch.sin(x / 5) * torch.cos(y / 7) - 0.2 * mask[0, 0])[None, None]
    valid = torch.ones_like(image)
    exact = boundary_contrast(mask, image, valid)
    with torch.autocast("cpu", torch.bfloat16):
        hurried = boundary_contrast(mask, image, valid)
    torch.testing.assert_close(hurried, exact, rtol=1e-6, atol=1e-6)

"""Mask prompts: closed forms, dense convolutions and scipy as oracles, gradients in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, special
from torch import Tensor

from ultrarefiner.ops.mask_logits import (
    adaptive_sigma,
    clipped_logits,
    direct_logits,
    distance_logits,
    gaussian_logits,
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random_map(*, seed: int, hw: tuple[int, int] = (6, 7)) -> Tensor:
    return torch.rand(2, 1, *hw, dtype=torch.float64, generator=_generator(seed))


class TestDirect:
    """(2P - 1) times a scale."""

    def test_by_hand(self) -> None:
        probs = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
        assert direct_logits(probs).flatten().tolist() == [-10, -5, 0, 10]
        assert direct_logits(probs, 4.0).flatten().tolist() == [-4, -2, 0, 4]

    def test_gradient(self) -> None:
        assert torch.autograd.gradcheck(direct_logits, _random_map(seed=1).requires_grad_())


class TestClipped:
    """The logit, clipped."""

    def test_agrees_with_scipy(self) -> None:
        probs = _random_map(seed=2)
        expected = special.logit(probs.numpy())
        np.testing.assert_allclose(clipped_logits(probs).numpy(), expected, rtol=1e-12)

    @pytest.mark.parametrize("limit", [2.0, 10.0, 15.0, 100.0])
    @pytest.mark.parametrize("value", [0.0, 1e-30, 1 - 6e-8, 1.0])
    def test_certain_pixels_are_finite_and_do_not_move(self, value: float, limit: float) -> None:
        probs = torch.full((1, 1, 2, 3), value, requires_grad=True)
        logits = clipped_logits(probs, limit)
        logits.sum().backward()
        reached = min(limit, -math.log(torch.finfo(torch.float32).eps))
        expected = math.copysign(reached, value - 0.5)
        assert logits.flatten().tolist() == pytest.approx([expected] * 6, rel=1e-3)
        assert probs.grad is not None
        assert probs.grad.count_nonzero() == 0

    def test_it_inverts_the_sigmoid_up_to_the_clip(self) -> None:
        logits = torch.linspace(-12, 12, 25, dtype=torch.float64, requires_grad=True)
        back = clipped_logits(logits.sigmoid().view(1, 1, 5, 5), 10.0).flatten()
        torch.testing.assert_close(back, logits.clamp(-10, 10))
        back.sum().backward()
        assert logits.grad is not None
        inside = logits.detach().abs() < 9.5
        torch.testing.assert_close(logits.grad[inside], torch.ones(int(inside.sum())).double())
        assert logits.grad[logits.detach().abs() > 10.5].count_nonzero() == 0

    def test_gradient(self) -> None:
        probs = _random_map(seed=3).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: clipped_logits(p, 2.0), probs)


class TestAdaptiveSigma:
    """A blur that follows the lesion's radius."""

    def test_by_hand(self) -> None:
        radii = torch.tensor([0.0, 1.0, 5.0, 20.0, 40.0, 100.0])
        sigma_px = adaptive_sigma(torch.pi * radii**2)
        assert sigma_px.tolist() == pytest.approx([0.5, 0.5, 0.5, 2.0, 4.0, 4.0])

    def test_gradient_is_finite_for_an_empty_map_too(self) -> None:
        area_px = torch.tensor([0.0, 3.0, 1000.0, 1e6], dtype=torch.float64, requires_grad=True)
        adaptive_sigma(area_px).sum().backward()
        assert area_px.grad is not None
        slope = 0.1 / (2 * math.sqrt(math.pi * 1000))
        assert area_px.grad.tolist() == pytest.approx([0, 0, slope, 0])
        assert torch.autograd.gradcheck(adaptive_sigma, area_px)


class TestGaussian:
    """Blur and direct logits in one."""

    def test_agrees_with_a_dense_convolution(self) -> None:
        probs = _random_map(seed=4, hw=(20, 26))
        sigma_px = torch.tensor([0.8, 3.0], dtype=torch.float64)
        logits = gaussian_logits(probs, sigma_px, 10.0)
        reach = 30
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        for item in range(2):
            alone = probs[item : item + 1]
            squared = offsets[:, None] ** 2 + offsets**2
            kernel = torch.exp(-0.5 * squared / sigma_px[item] ** 2)[None, None]
            inside = torch.nn.functional.conv2d(torch.ones_like(alone), kernel, padding=reach)
            blurred = torch.nn.functional.conv2d(alone, kernel, padding=reach) / inside
            torch.testing.assert_close(logits[item], (20 * blurred - 10)[0])

    def test_in_float32_and_under_autocast(self) -> None:
        probs = _random_map(seed=5, hw=(40, 50))
        sigma_px = torch.tensor([0.8, 3.0])
        exact = gaussian_logits(probs, sigma_px)
        single = gaussian_logits(probs.float(), sigma_px)
        torch.testing.assert_close(single, exact.float(), rtol=0, atol=2e-5)
        with torch.autocast("cpu", torch.bfloat16):
            hurried = gaussian_logits(probs.float(), sigma_px)
        assert torch.equal(hurried, single)

    def test_far_from_borders_no_mass_is_lost(self) -> None:
        probs = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
        probs[..., 20:40, 25:45] = 0.9
        logits = gaussian_logits(probs, torch.tensor([2.0]))
        # The normalisation at the border is beyond five sigma of the square.
        assert ((logits / 10 + 1) / 2).sum().item() == pytest.approx(0.9 * 400, rel=1e-6)

    def test_gradient_of_map_and_sigma(self) -> None:
        sigma_px = torch.tensor([0.8, 3.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            gaussian_logits,
            (_random_map(seed=7, hw=(3, 4)).requires_grad_(), sigma_px),
        )


class TestDistance:
    """Signed distance over a temperature."""

    def test_agrees_with_scipy(self) -> None:
        probs = _random_map(seed=8, hw=(15, 18))
        temperature_px = torch.tensor([0.5, 2.0])
        logits = distance_logits(probs, temperature_px, 3.0)
        assert logits.dtype == torch.float64
        for item in range(2):
            mask = probs[item, 0].numpy() > 0.5
            inwards = ndimage.distance_transform_edt(mask) - 0.5
            outwards = ndimage.distance_transform_edt(~mask) - 0.5
            distance = np.where(mask, inwards, -outwards) / temperature_px[item].item()
            np.testing.assert_allclose(logits[item, 0], distance.clip(-3, 3), rtol=1e-6)

    @pytest.mark.parametrize("temperature_px", [0.0, 1.5])
    def test_empty_full_and_one_pixel(self, temperature_px: float) -> None:
        probs = torch.zeros(3, 1, 5, 5)
        probs[1] = 1
        probs[2, 0, 2, 2] = 0.9
        logits = distance_logits(probs, torch.full((3,), temperature_px), 4.0)
        assert torch.equal(logits[0], torch.full((1, 5, 5), -4.0))
        assert torch.equal(logits[1], torch.full((1, 5, 5), 4.0))
        assert logits[2].isfinite().all()
        assert torch.equal(logits[2] > 0, probs[2] > 0.5)

    def test_gradients_go_straight_through_if_asked_for(self) -> None:
        probs = _random_map(seed=9).requires_grad_()
        temperature_px = torch.tensor([0.5, 2.0])
        plain = distance_logits(probs, temperature_px, 4.0)
        assert not plain.requires_grad
        through = distance_logits(probs, temperature_px, 4.0, straight_through=True)
        torch.testing.assert_close(through.detach(), plain)
        through.sum().backward()
        assert probs.grad is not None
        torch.testing.assert_close(probs.grad, torch.full_like(probs, 8.0))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_maps_have_finite_logits_and_gradients(value: float) -> None:
    probs = torch.full((2, 1, 5, 6), value, requires_grad=True)
    sigma_px = adaptive_sigma(probs.sum(dim=(1, 2, 3)))
    for logits in (
        direct_logits(probs),
        clipped_logits(probs),
        gaussian_logits(probs, sigma_px),
    ):
        expected = {0.0: -10.0, 0.5: 0.0, 1.0: 10.0}[value]
        torch.testing.assert_close(
            logits.detach(), torch.full((2, 1, 5, 6), expected), rtol=1e-3, atol=1e-5
        )
        (grad,) = torch.autograd.grad(logits.square().sum(), probs, retain_graph=True)
        assert grad.isfinite().all()


def test_bfloat16_becomes_float32() -> None:
    probs = _random_map(seed=10).bfloat16()
    sigma_px = torch.tensor([1.0, 2.0])
    for found, expected in (
        (direct_logits(probs), direct_logits(probs.float())),
        (clipped_logits(probs), clipped_logits(probs.float())),
        (
            gaussian_logits(probs, sigma_px),
            gaussian_logits(probs.float(), sigma_px),
        ),
        (distance_logits(probs, sigma_px), distance_logits(probs.float(), sigma_px)),
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_flips_and_transposes() -> None:
    probs, sigma_px = _random_map(seed=11), torch.tensor([1.0, 2.0])
    for change in (lambda m: m.flip(-1), lambda m: m.flip(-2), lambda m: m.mT):
        for logits in (
            lambda m: gaussian_logits(m, sigma_px),
            lambda m: distance_logits(m, sigma_px),
        ):
            torch.testing.assert_close(logits(change(probs)), change(logits(probs)))


def test_a_batch_equals_one_by_one() -> None:
    probs = _random_map(seed=12)
    sigma_px = torch.tensor([1.0, 2.0])
    gaussian = gaussian_logits(probs, sigma_px)
    distance = distance_logits(probs, sigma_px)
    for item in (slice(0, 1), slice(1, 2)):
        alone = gaussian_logits(probs[item], sigma_px[item])
        torch.testing.assert_close(gaussian[item], alone)
        torch.testing.assert_close(distance[item], distance_logits(probs[item], sigma_px[item]))


def test_they_compile_without_a_break() -> None:
    def prompts(probs: Tensor) -> tuple[Tensor, ...]:
        sigma_px = adaptive_sigma(probs.sum(dim=(1, 2, 3)))
        blurred = gaussian_logits(probs, sigma_px)
        return direct_logits(probs), clipped_logits(probs), blurred

    probs = _random_map(seed=13).float()
    compiled = torch.compile(prompts, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(probs), prompts(probs), strict=True):
        torch.testing.assert_close(found, expected)

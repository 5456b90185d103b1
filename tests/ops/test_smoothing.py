"""Smoothing: a Gaussian of its own for each map, against scipy and a convolution in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from ultrarefiner.ops.smoothing import blur, gaussian_matrix, narrow_blur


def _random_maps(*, seed: int = 0, hw: tuple[int, int] = (9, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, *hw, dtype=torch.float64, generator=generator)


_SIGMAS_PX = torch.tensor([[0.4, 1.0, 2.3], [0.7, 5.0, 40.0]], dtype=torch.float64)


def _scipy_blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Zeros beyond the border, divided by the kernel's mass inside: the same normalisation."""
    settings = {"sigma": sigma_px, "mode": "constant", "radius": max(image.shape)}
    blurred: np.ndarray = ndimage.gaussian_filter(image, **settings)
    inside: np.ndarray = ndimage.gaussian_filter(np.ones_like(image), **settings)
    return blurred / inside


def test_blur_agrees_with_scipy() -> None:
    maps = _random_maps()
    blurred = blur(maps, _SIGMAS_PX)
    for item in range(2):
        for k in range(3):
            expected = _scipy_blur(maps[item, k].numpy(), _SIGMAS_PX[item, k].item())
            np.testing.assert_allclose(blurred[item, k].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("sigma_px", [1e-3, 0.5, 3.0, 1e3])
def test_rows_of_the_matrix_sum_to_one(sigma_px: float) -> None:
    matrix = gaussian_matrix(17, torch.tensor(sigma_px))
    assert matrix.shape == (17, 17)
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(-1), torch.ones(17))


def test_the_limits_are_the_identity_and_the_mean() -> None:
    assert torch.equal(gaussian_matrix(5, torch.tensor(1e-3)), torch.eye(5))
    torch.testing.assert_close(gaussian_matrix(5, torch.tensor(1e6)), torch.full((5, 5), 0.2))


def test_one_sigma_may_serve_all_maps_of_an_item() -> None:
    maps = _random_maps()
    shared = _SIGMAS_PX[:, :1]
    torch.testing.assert_close(blur(maps, shared), blur(maps, shared.expand(2, 3)))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_a_constant_map_stays(value: float) -> None:
    maps = torch.full((2, 3, 7, 5), value, dtype=torch.float64)
    torch.testing.assert_close(blur(maps, _SIGMAS_PX), maps)


def test_gradients_of_maps_and_sigma() -> None:
    maps = _random_maps(hw=(3, 4))[:, :2].requires_grad_()
    assert torch.autograd.gradcheck(blur, (maps, _SIGMAS_PX[:, 1:].clone().requires_grad_()))


def test_flips_and_transposes() -> None:
    maps = _random_maps()
    blurred = blur(maps, _SIGMAS_PX)
    torch.testing.assert_close(blur(maps.flip(-1), _SIGMAS_PX), blurred.flip(-1))
    torch.testing.assert_close(blur(maps.flip(-2), _SIGMAS_PX), blurred.flip(-2))
    torch.testing.assert_close(blur(maps.mT, _SIGMAS_PX), blurred.mT)


def test_autocast_and_bfloat16_do_not_round_the_products() -> None:
    maps, sigma_px = _random_maps(hw=(40, 50)).bfloat16(), _SIGMAS_PX.float()
    exact = blur(maps.float(), sigma_px)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(blur(maps, sigma_px), exact)


_NARROW_PX = torch.tensor([[0.4, 1.0, 2.0], [0.7, 1.5, 0.5]], dtype=torch.float64)


def _narrow(maps: Tensor, sigma_px: Tensor = _NARROW_PX) -> Tensor:
    return narrow_blur(maps, sigma_px, max_sigma_px=2.0)


class TestNarrow:
    """The same blur by neighbours alone: blocks of 32 px that look 10 px around."""

    @pytest.mark.parametrize("hw", [(1, 1), (9, 12), (32, 64), (75, 41), (100, 33)])
    def test_it_is_the_blur(self, hw: tuple[int, int]) -> None:
        maps = _random_maps(hw=hw)
        # What lies beyond five sigma: 6e-7 of the mass along each axis.
        torch.testing.assert_close(_narrow(maps), blur(maps, _NARROW_PX), rtol=0, atol=2 * 6e-7)

    def test_its_gradients_are_those_of_the_blur(self) -> None:
        maps, weights = _random_maps(hw=(75, 41)), _random_maps(seed=1, hw=(75, 41))
        found, expected = (
            torch.autograd.grad(
                (smooth(*leaves) * weights).sum(),
                leaves,
            )
            for smooth in (_narrow, blur)
            for leaves in [(maps.clone().requires_grad_(), _NARROW_PX.clone().requires_grad_())]
        )
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("hw", [(3, 4), (35, 2), (2, 45)])
    def test_gradients_of_maps_and_sigma(self, hw: tuple[int, int]) -> None:
        maps = _random_maps(hw=hw)[:1, :1].requires_grad_()
        assert torch.autograd.gradcheck(
            _narrow, (maps, _NARROW_PX[:1, 1:2].clone().requires_grad_())
        )

    def test_the_gradient_of_the_maps_alone(self) -> None:
        maps = _random_maps(hw=(40, 3)).requires_grad_()
        _narrow(maps).sum().backward()
        assert maps.grad is not None
        assert maps.grad.sum().item() == pytest.approx(maps.numel())

    def test_constant_maps_flips_and_transposes(self) -> None:
        maps = _random_maps(hw=(75, 41))
        torch.testing.assert_close(_narrow(torch.full_like(maps, 0.3)), torch.full_like(maps, 0.3))
        for change in (lambda m: m.flip(-1), lambda m: m.flip(-2), lambda m: m.mT):
            torch.testing.assert_close(_narrow(change(maps)), change(_narrow(maps)))

    def test_no_pixel_beyond_reach_counts(self) -> None:
        maps = torch.zeros(1, 1, 1, 64)
        maps[..., 40] = 1
        blurred = narrow_blur(maps, torch.tensor([[2.0]]), max_sigma_px=2.0)
        assert blurred.nonzero()[:, -1].tolist() == list(range(30, 51))

    def test_autocast_rounds_neither_way(self) -> None:
        maps, sigma_px = _random_maps(hw=(40, 50)).float().requires_grad_(), _NARROW_PX.float()
        exact = _narrow(maps, sigma_px)
        (expected,) = torch.autograd.grad(exact.square().sum(), maps, retain_graph=True)
        with torch.autocast("cpu", torch.bfloat16):
            hurried = _narrow(maps, sigma_px)
            (found,) = torch.autograd.grad(hurried.square().sum(), maps)
        assert torch.equal(hurried, exact)
        assert torch.equal(found, expected)

    def test_it_compiles_without_a_break(self) -> None:
        maps = _random_maps(hw=(40, 33)).requires_grad_()
        compiled = torch.compile(_narrow, backend="eager", fullgraph=True)
        found, expected = compiled(maps), _narrow(maps)
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(out.square().sum(), maps)[0] for out in (found, expected)]
        torch.testing.assert_close(*gradients)

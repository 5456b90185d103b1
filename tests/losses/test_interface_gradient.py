"""The scale acts on the way back alone: eager, compiled, under autocast, vmap and twice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import scale_gradient

ALPHAS = pytest.mark.parametrize("alpha", [0.0, 0.01, 0.1, 0.5, 1.0])


def draw() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()


@ALPHAS
def test_same_values_scaled_gradient(alpha: float) -> None:
    x = draw()
    y = scale_gradient(x, alpha)
    assert torch.equal(y, x)
    (found,) = torch.autograd.grad(y.exp().sum(), x)
    assert torch.equal(found, x.exp() * alpha)


def test_one_is_the_tensor_itself() -> None:
    x = draw()
    assert scale_gradient(x, 1) is x


def test_zero_stops_even_what_is_not_finite() -> None:
    x = torch.zeros(3, requires_grad=True)
    scale_gradient(x, 0.0).log().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]


@ALPHAS
def test_only_the_refined_loss_is_scaled(alpha: float) -> None:
    """The coarse network's own loss keeps its gradient: d(a + alpha b)."""
    network = nn.Conv2d(1, 1, 3, padding=1).double()
    image = draw().detach()
    probs = network(image).sigmoid()
    coarse_loss, refined_loss = probs.square().sum(), (3 * scale_gradient(probs, alpha)).cos().sum()
    found = torch.autograd.grad(coarse_loss + refined_loss, network.weight, retain_graph=True)[0]
    own = torch.autograd.grad(coarse_loss, network.weight, retain_graph=True)[0]
    whole = torch.autograd.grad((3 * probs).cos().sum(), network.weight)[0]
    torch.testing.assert_close(found, own + alpha * whole, rtol=1e-12, atol=1e-12)
    if alpha == 0:
        assert torch.equal(found, own)


@ALPHAS
def test_double_backward(alpha: float) -> None:
    """Of x^3: alpha 3 x^2, whose own gradient is alpha^2 6 x, as it passes the interface again."""
    x = draw()
    (first,) = torch.autograd.grad(scale_gradient(x, alpha).pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(first, alpha * 3 * x**2)
    if alpha == 0:
        assert not first.requires_grad
        return
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, alpha**2 * 6 * x)


@ALPHAS
def test_gradcheck(alpha: float) -> None:
    """The backward pass is exact for ``alpha x``, and linear in the gradient that it gets."""
    x = draw()
    (found,) = torch.autograd.grad(scale_gradient(x, alpha).sum(), x)
    (expected,) = torch.autograd.grad((alpha * x).sum(), x)
    assert torch.equal(found, expected)
    assert torch.autograd.gradcheck(lambda x: scale_gradient(x, 1.0).sin(), x)
    assert torch.autograd.gradgradcheck(lambda x: scale_gradient(x, alpha), x)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_compiled(alpha: float) -> None:
    def loss(x: Tensor) -> Tensor:
        return scale_gradient(x.sigmoid(), alpha).square().sum()

    x = draw()
    (eager,) = torch.autograd.grad(loss(x), x)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    (found,) = torch.autograd.grad(compiled(x), x)
    assert torch.equal(found, eager)
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_keeps_the_type(dtype: torch.dtype) -> None:
    x = draw().detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scale_gradient(x, 0.5)
        loss = y.float().square().sum()
    loss.backward()
    assert y.dtype == dtype
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, x.detach())


def test_under_vmap() -> None:
    x = draw().detach()
    gradients = torch.func.vmap(torch.func.grad(lambda x: scale_gradient(x, 0.5).square().sum()))
    torch.testing.assert_close(gradients(x), x)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_bad_alpha(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        scale_gradient(draw(), alpha)


def test_it_changes_what_adamw_does_where_scaling_parameter_gradients_does_not() -> None:
    """One step of AdamW on a network with a loss of its own and one across the interface."""

    def step(alpha: float, *, scale_parameters: float = 1.0) -> Tensor:
        weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0, eps=1e-12)
        for _ in range(3):
            optimizer.zero_grad()
            own = (weight - torch.tensor([0.0, -3.0])).square().sum()
            across = (5 * (scale_gradient(weight, alpha) - 2)).square().sum()
            (own + across).backward()
            assert weight.grad is not None
            weight.grad *= scale_parameters
            optimizer.step()
        return weight.detach()

    torch.testing.assert_close(step(1.0, scale_parameters=0.01), step(1.0))
    assert (step(0.01) - step(1.0)).abs().max() > 0.1

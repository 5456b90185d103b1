"""Depthwise convolutions are computed in float32 under autocast, and no others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.precision import DepthwiseInFloat32


def gradients(conv: nn.Conv2d, x: Tensor, *, inside: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return output and gradients under autocast, with or without the mode."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if inside:
            with DepthwiseInFloat32():
                out = conv(x)
        else:
            out = conv(x)
    out.float().square().sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is not None
    return out.detach(), x.grad, conv.weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_is_that_of_float32(kernel: int, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=stride == 2)
    x = torch.randn(2, 6, 12, 10).to(dtype)
    out, to_x, to_weight = gradients(conv, x, inside=True)
    exact = x.float().requires_grad_()
    plain = conv(exact)  # no autocast: the oracle
    assert out.dtype == dtype
    assert torch.equal(out, plain.to(dtype))
    loss = plain.to(dtype).float().square().sum()
    for_x, for_weight = torch.autograd.grad(loss, (exact, conv.weight))
    torch.testing.assert_close(to_weight, for_weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(to_x, for_x.to(dtype))


@pytest.mark.parametrize("groups", [1, 2])
def test_other_convolutions_stay_in_bfloat16(groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=groups)
    x = torch.randn(2, 6, 12, 10)
    for inside, outside in zip(
        gradients(conv, x, inside=True), gradients(conv, x, inside=False), strict=True
    ):
        assert inside.dtype == outside.dtype
        assert torch.equal(inside, outside)


def test_without_autocast_nothing_changes() -> None:
    conv = nn.Conv2d(6, 6, 3, groups=6).double()
    x = torch.randn(2, 6, 12, 10, dtype=torch.float64)
    with DepthwiseInFloat32():
        assert conv(x).dtype == torch.float64

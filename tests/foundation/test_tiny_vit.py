"""The encoder: upstream's numbers, and shortcuts that change none."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ultrarefiner.foundation.tiny_vit import (
    MBConv,
    TinyViT,
    TinyViTBlock,
    TinyViTConfig,
    attention,
    fold_batch_norm,
)

TINY = TinyViTConfig(embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


def with_statistics(module: nn.Module) -> nn.Module:
    """Give batch norms and attention biases values that matter."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith(("running_mean", "bias", "attention_biases")):
            nn.init.normal_(tensor)
        elif name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
    return module.eval()


def test_golden(model, upstream, frames):
    image = frames(1)[0]
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode(image), upstream.image_encoder(image), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("height", [1, 5, 32, 33, 70])
def test_strips_equal_the_whole(batch, height):
    torch.manual_seed(0)
    block = with_statistics(MBConv(4).double())
    x = torch.randn(batch, 4, height, 6, dtype=torch.float64)
    hidden = F.gelu(block.conv2(F.gelu(block.conv1(x))))
    torch.testing.assert_close(block(x), F.gelu(block.conv3(hidden) + x), atol=1e-12, rtol=0)


def test_strips_pass_gradients():
    torch.manual_seed(0)
    block = with_statistics(MBConv(1, expand=2).double())
    x = torch.randn(1, 1, 35, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


def test_folding_batch_norm_changes_nothing():
    torch.manual_seed(0)
    network = with_statistics(TinyViT(TINY).double())
    folded = copy.deepcopy(network)
    fold_batch_norm(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(folded(images), network(images), atol=1e-10, rtol=0)


def test_windows_do_not_see_each_other():
    torch.manual_seed(0)
    block = TinyViTBlock(8, num_heads=2, window=4).eval()
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[..., 4:, 4:] = torch.randn(1, 8, 4, 4)
    before, after = (block._attend(value.permute(0, 2, 3, 1)) for value in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:, 4:], after[:, 4:, 4:]).all()


def test_gradient_reaches_image():
    torch.manual_seed(0)
    network = with_statistics(TinyViT(TINY).double())
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value: network(value)[:, ::64, ::4, ::4], (images,), fast_mode=True
    )


def test_attention_that_learns_equals_the_fused_one():
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 9, 4, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(2, 9, 9, dtype=torch.float64)
    fused = attention(q, k, v, bias)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    assert torch.equal(fused, expected)
    plain = attention(q.requires_grad_(), k, v, bias)
    torch.testing.assert_close(plain, fused, atol=1e-6, rtol=0)  # its softmax is in float32


def test_attention_has_gradients():
    torch.manual_seed(0)
    parts = [torch.randn(2, 1, 4, 3, requires_grad=True) for _ in range(3)]
    bias = torch.randn(1, 4, 4, requires_grad=True)
    ours = torch.autograd.grad(attention(*parts, bias).square().sum(), [*parts, bias])
    exact = [part.detach().double().requires_grad_() for part in (*parts, bias)]
    fused = F.scaled_dot_product_attention(*exact[:3], attn_mask=exact[3][None])
    for found, expected in zip(ours, torch.autograd.grad(fused.square().sum(), exact), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)

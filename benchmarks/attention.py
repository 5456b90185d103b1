"""A window's attention that learns, forward and backward on a CPU: matrix products, or fused.

Run: ``python benchmarks/attention.py`` (half a minute on 2 cores). Windows of 196 and of 49 tokens,
as many as four images of 256 px have in the last stages of LiteMedSAM's encoder, in the format that
a training computes in. Ours is :func:`~ultrarefiner.foundation.tiny_vit.attention`; the alternative
is PyTorch's fused attention, with its bias learned as well (as in a training) and without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from _timing import measure, print_result, print_table, repeats_and_threads, versions
from ultrarefiner.foundation.tiny_vit import attention
from ultrarefiner.precision import bf16_is_fast

SHAPES = {"196 tokens": (100, 5, 196, 32), "49 tokens": (400, 10, 49, 32)}
OURS, FUSED, FIXED = "ultrarefiner", "fused", "fused, bias not learned"
TOLERANCE = 0.03
"""How far the answers may be apart, of their greatest value: rounding of bfloat16."""


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])


def step(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], parts: list[Tensor], bias: Tensor
) -> Callable[[], Tensor]:
    """Return a forward and backward pass, which returns the answer."""

    def run() -> Tensor:
        out = attend(*parts, bias)
        torch.autograd.backward(out.float().square().mean())
        return out.detach()

    return run


def main() -> int:
    given = repeats_and_threads(__doc__)
    torch.set_num_threads(given.threads)
    dtype = torch.bfloat16 if bf16_is_fast(torch.device("cpu")) else torch.float32
    ratios, apart = {}, {}
    for name, (windows, heads, tokens, dim) in SHAPES.items():
        torch.manual_seed(0)
        parts = [
            torch.randn(windows, tokens, heads, dim, dtype=dtype).transpose(1, 2).requires_grad_()
            for _ in range(3)
        ]
        bias = torch.randn(heads, tokens, tokens, dtype=dtype)
        learned = bias.clone().requires_grad_()
        sides = {
            OURS: step(attention, parts, learned),
            FUSED: step(fused, parts, learned),
            FIXED: step(fused, parts, bias),
        }
        ours, theirs = sides[OURS](), sides[FUSED]()
        apart[name] = float((ours - theirs).abs().max() / theirs.abs().max())
        timings = measure(sides, repeats=given.repeats, warmup=1)
        print(f"{windows} windows of {name}, {dtype}, threads: {given.threads}")
        print_table(timings, reference=OURS)
        ratios |= {
            f"{name}, {side}": timings[side].median_s / timings[OURS].median_s
            for side in (FUSED, FIXED)
        }
    agree = max(apart.values()) <= TOLERANCE
    print_result(
        "attention",
        ratios=ratios,
        checks={"agree": agree, "differences": apart},
        versions=versions("ultrarefiner", "torch"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

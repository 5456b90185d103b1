"""A step of the coarse network: bfloat16 with depthwise convolutions in float32, or otherwise.

Run: ``python benchmarks/phase1.py`` (two minutes on 2 cores). A step is the forward and backward
pass of phase 1's loss on a batch of 16 at 256 px, U-Net on EfficientNet-Lite0 without pretraining,
as in ``recipes/busbra.yaml``. Ours is what a training does, :class:`DepthwiseInFloat32` under
autocast; the alternatives are autocast alone, and float32 throughout. The losses are compared; the
gradients of single convolutions are in the tests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from _timing import measure, print_result, print_table, repeats_and_threads, versions
from ultrarefiner.coarse import CoarseConfig, build_coarse
from ultrarefiner.precision import DepthwiseInFloat32, autocast
from ultrarefiner.training.recipe import Phase1Config

BATCH, SIDE = 16, 256
OURS, ALONE, EXACT = "ultrarefiner", "bfloat16 alone", "float32"
TOLERANCE = 0.01
"""How far our loss, of about 0.6, may be from that in float32."""


class Step:
    """Forward and backward pass of one batch.

    Args:
        bf16: under autocast.
        depthwise: with depthwise convolutions in float32.
    """

    def __init__(self, *, bf16: bool, depthwise: bool) -> None:
        torch.manual_seed(0)
        config = CoarseConfig(
            name="smp-unet", encoder_name="timm-tf_efficientnet_lite0", encoder_weights="none"
        )
        self.network = build_coarse(config).to(memory_format=torch.channels_last).train()
        ticks = torch.linspace(-1, 1, SIDE)
        radii = torch.linspace(0.2, 0.8, BATCH)[:, None, None, None]
        self.target = (ticks.square()[:, None] + ticks.square() < radii.square()).float()
        images = 0.6 - 0.3 * self.target + 0.2 * torch.rand(BATCH, 1, SIDE, SIDE)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.bf16 = bf16
        self.mode: Callable[[], AbstractContextManager[object]] = (
            DepthwiseInFloat32 if depthwise else nullcontext
        )

    def __call__(self) -> float:
        self.network.zero_grad()
        torch.manual_seed(1)  # what is random inside the network is the same each time
        with autocast(torch.device("cpu"), enabled=self.bf16), self.mode():
            loss = Phase1Config().loss(self.network(self.images), self.target).mean()
        torch.autograd.backward(loss)
        return float(loss.detach())


def main() -> int:
    given = repeats_and_threads(__doc__)
    torch.set_num_threads(given.threads)
    steps = {
        OURS: Step(bf16=True, depthwise=True),
        ALONE: Step(bf16=True, depthwise=False),
        EXACT: Step(bf16=False, depthwise=False),
    }
    exact = steps[EXACT]()
    apart = {side: abs(steps[side]() - exact) for side in (OURS, ALONE)}
    timings = measure(steps, repeats=given.repeats, warmup=1)
    print(f"batch of {BATCH} at {SIDE} px, {given.repeats} repeats, threads: {given.threads}")
    print_table(timings, reference=OURS)
    agree = apart[OURS] <= TOLERANCE
    print_result(
        "phase1",
        ratios={side: timings[side].median_s / timings[OURS].median_s for side in (ALONE, EXACT)},
        checks={"agree": agree, "loss_differences": apart},
        versions=versions("ultrarefiner", "torch", "segmentation-models-pytorch"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

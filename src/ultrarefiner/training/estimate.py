"""What a run will cost, measured on a few steps on noise before it starts."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from ultrarefiner.precision import DepthwiseInFloat32, autocast
from ultrarefiner.training.coarse_module import CoarseModule
from ultrarefiner.training.recipe import Schedule, TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Time and memory of a phase.

    Attributes:
        step_seconds: forward and backward pass of one batch.
        peak_bytes: largest memory of the process (CPU) or of the device (GPU) so far.
        num_steps: training steps of the whole phase.
    """

    step_seconds: float
    peak_bytes: int
    num_steps: int

    def __str__(self) -> str:
        minutes = self.step_seconds * self.num_steps / 60
        return (
            f"{self.step_seconds:.2f} s a step, {self.num_steps} steps, about "
            f"{minutes:.0f} min without loading and validation; {self.peak_bytes / 2**30:.1f} GiB"
        )


def estimate_cost(
    module: CoarseModule, recipe: TrainingRecipe, num_images: int, device: torch.device
) -> CostEstimate:
    """Estimate phase 1 on a copy of its network.

    Args:
        module: not changed.
        recipe: frame and batch size.
        num_images: training images.
        device: where the run will compute.
    """
    side, batch_size = recipe.network.side, min(recipe.phase1.batch_size, num_images)
    trial = deepcopy(module).to(device).train()
    images = torch.rand(batch_size, 1, side, side, device=device)
    target = torch.rand(batch_size, recipe.network.num_classes, side, side, device=device).round()

    def loss() -> Tensor:
        logits = trial.network(images.contiguous(memory_format=torch.channels_last))
        return recipe.phase1.loss(logits, target)

    return measure(loss, recipe.phase1, num_images, device)


def measure(
    loss: Callable[[], Tensor], schedule: Schedule, num_images: int, device: torch.device
) -> CostEstimate:
    """Go forward and back three times, and time the last two.

    Args:
        loss: of each image of a batch.
        schedule: of the phase.
        num_images: training images.
        device: where the loss is computed.
    """
    seconds = []
    for _ in range(3):
        start = perf_counter()
        with autocast(device), DepthwiseInFloat32():
            total = loss().mean()
        torch.autograd.backward(total)
        synchronise(device)
        seconds.append(perf_counter() - start)
    return CostEstimate(
        step_seconds=min(seconds[1:]),
        peak_bytes=_peak_bytes(device),
        num_steps=max(num_images // schedule.batch_size, 1) * schedule.epochs,
    )


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

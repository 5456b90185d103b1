"""What phases 2 and 3 will cost, measured on noise before they start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch

from ultrarefiner.coarse import build_coarse
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel
from ultrarefiner.precision import autocast
from ultrarefiner.refine.assembly import grid_side
from ultrarefiner.training.estimate import measure, synchronise
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.refiner_module import RefinerModule
from ultrarefiner.training.tuning import training_pipeline

_BF16_BYTES = 2


def estimate_refinement(
    recipe: TrainingRecipe, num_images: int, num_val: int, device: torch.device
) -> Iterator[str]:
    """Say what is to be expected of phases 2 and 3, a line for each part.

    Args:
        recipe: every setting.
        num_images: training images.
        num_val: images of the inner validation.
        device: where the run will compute.
    """
    model = FOUNDATION_MODELS[recipe.foundation]().to(device)
    num_inner = recipe.inner.folds
    epochs = recipe.inner.epochs or recipe.phase1.epochs
    share = (num_inner - 1) * epochs / recipe.phase1.epochs
    yield f"{num_inner} inner networks, estimated: {share:.1f} times phase 1"
    if not recipe.encodes_in_training:
        seconds, num_bytes = _encode(model, device)
        views = 2 if recipe.phase2.flips or recipe.phase3.flips else 1
        num = views * (num_images + num_val)
        yield (
            f"embeddings, estimated: {num} views, about {seconds * num / 60:.0f} min once, "
            f"{num_bytes * num / 2**30:.1f} GiB on the disk"
        )
    pipeline = training_pipeline(model, recipe.refiner)
    batch = _noise(recipe, model, recipe.phase2.batch_size, device)
    refiner = RefinerModule(pipeline, recipe.phase2, trainable=recipe.trainable).to(device)
    cost = measure(lambda: refiner.loss(batch).total, recipe.phase2, num_images, device)
    yield f"phase 2, estimated: {cost}"
    batch = _noise(recipe, model, recipe.phase3.batch_size, device)
    unfrozen = replace(recipe.phase3, frozen_epochs=0)
    joint = JointModule(
        build_coarse(recipe.network), pipeline, unfrozen, trainable=recipe.trainable
    ).to(device)
    cost = measure(lambda: joint.loss(batch).total, recipe.phase3, num_images, device)
    yield f"phase 3, estimated: {cost}"


def _encode(model: FoundationModel, device: torch.device) -> tuple[float, int]:
    """Return the seconds that an image takes, and the bytes of its stored embedding."""
    pixels = torch.rand(1, 3, model.input_size, model.input_size, device=device)
    seconds = []
    for _ in range(2):
        start = perf_counter()
        with torch.inference_mode(), autocast(device):
            num_values = model.encode(pixels).numel()
        synchronise(device)
        seconds.append(perf_counter() - start)
    return min(seconds), _BF16_BYTES * num_values


def _noise(
    recipe: TrainingRecipe, model: FoundationModel, batch_size: int, device: torch.device
) -> Any:
    """Return a batch of noise with a disc as lesion and mask."""
    side, network = grid_side(model, recipe.refiner), recipe.network
    ticks = torch.linspace(-1, 1, side, device=device)
    disc = (ticks.square()[:, None] + ticks.square() < 0.1).float().expand(batch_size, 1, -1, -1)
    images = torch.rand(batch_size, 1, side, side, device=device)
    classes = torch.zeros(
        batch_size, network.num_classes, network.side, network.side, device=device
    )
    batch = {
        "names": ["noise"] * batch_size,
        "images": images,
        "native_hw": torch.tensor([[side, side]] * batch_size, device=device),
        "content_hw": torch.tensor([[side, side]] * batch_size, device=device),
        "truth": disc,
        "prompt": disc,
        "is_given": torch.arange(batch_size, device=device) % 2 == 0,
        "is_real": torch.zeros(batch_size, dtype=torch.bool, device=device),
        "network_images": torch.rand(batch_size, 1, network.side, network.side, device=device),
        "classes": classes,
    }
    if not recipe.encodes_in_training:
        with torch.inference_mode(), autocast(device):
            shape = model.encode(torch.rand(1, 3, *2 * [model.input_size], device=device)).shape
        batch["embeddings"] = torch.randn(batch_size, *shape[1:], device=device).bfloat16()
    return batch

"""Stop before a loss or gradient that is not finite reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.errors import InputError

_NUM_SHOWN = 32


class FiniteGuard(pl.Callback):
    """Check loss and gradient before every step, and keep the culprit if they are not finite.

    It also measures the length of the gradient before clipping, since it needs it anyway.

    Args:
        file: where batch and weights go if something is not finite.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._batch: Any = None
        self._index = 0
        self._loss = math.nan
        self._norms: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin a new mean."""
        self._norms = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch."""
        self._batch, self._index = batch, batch_idx

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Remember the loss."""
        self._loss = float(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Check the step that is about to be made; of several processes all stop together.

        Raises:
            InputError: names epoch, step and images.
        """
        lengths = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        norm = float(torch.stack(lengths).norm()) if lengths else 0.0
        self._norms.append(norm)
        is_finite = math.isfinite(self._loss) and math.isfinite(norm)
        if trainer.world_size > 1:
            is_finite = trainer.strategy.reduce_boolean_decision(is_finite, all=True)
        if not is_finite:
            self._stop(trainer, pl_module, norm)

    def mean_norm(self) -> float:
        """Return the mean length of the epoch's gradients before clipping; 0 without a step."""
        return sum(self._norms) / max(len(self._norms), 1)

    def _stop(self, trainer: pl.Trainer, module: pl.LightningModule, norm: float) -> None:
        epoch, names = trainer.current_epoch, _names(self._batch)
        content = {
            "epoch": epoch,
            "step": self._index,
            "loss": self._loss,
            "grad_norm": norm,
            "batch": self._batch,
            "state_dict": module.state_dict(),
        }
        if trainer.is_global_zero:
            with atomic_path(self.file) as temporary:
                torch.save(content, temporary)
        raise InputError(
            f"training stopped in epoch {epoch}, step {self._index}"
            + (f", on the images {names}" if names else ""),
            expected="a finite loss and gradient",
            found=f"loss {self._loss:g}, length of the gradient {norm:g}",
            fix=f"Look at these images and at {self.file}, or lower the learning rate; the last "
            "good checkpoint is kept.",
        )


def _names(batch: Any) -> str:
    names = batch.get("names", ()) if isinstance(batch, Mapping) else ()
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more

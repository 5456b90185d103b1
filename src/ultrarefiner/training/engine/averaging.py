"""A running average of the weights: what is validated, kept and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class WeightAverage(pl.Callback):
    r"""Average the weights over the steps, and validate the average.

    .. math:: \bar w \leftarrow \bar w + (1 - d_n) (w - \bar w), \quad
              d_n = \min\left(d, \frac{1 + n}{10 + n}\right)

    The start is forgotten: early steps weigh more. Parameters that have never been trained have no
    average, and one that does not change is its own average to the bit. Buffers are not averaged:
    statistics of a batch normalisation average themselves, and constants would drift.

    Args:
        decay: d, below 1; 0 for no average.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.num_steps = 0
        self.weights: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
        """Take the weights after a step into the average."""
        if self.decay:
            self.update(pl_module)

    def on_validation_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Put the average in the place of the weights."""
        self.swap(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Put the weights back."""
        self.swap(pl_module)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the trained weights of a module into the average."""
        share = 1 - min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        for name, parameter in module.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter, share)
            elif parameter.requires_grad:
                self.weights[name] = parameter.detach().clone()
        self.num_steps += 1

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the weights of a module and their average."""
        for average, parameter in self._pairs(module):
            weights = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(weights)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"num_steps": self.num_steps, "weights": self.weights}

    @torch.no_grad()
    def restore(self, state: dict[str, Any], module: nn.Module) -> None:
        """Go on from a state, in the memory layout of the module's weights."""
        self.num_steps = state["num_steps"]
        self.weights = {
            name: torch.empty_like(parameter).copy_(state["weights"][name])
            for name, parameter in module.named_parameters()
            if name in state["weights"]
        }

    def _pairs(self, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        for name, parameter in module.named_parameters():
            if name in self.weights:
                yield self.weights[name], parameter

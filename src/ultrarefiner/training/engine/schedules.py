"""How learning rates and seeds depend on how far a run is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine_after_warmup(optimizer: Optimizer, num_steps: int, *, warmup_share: float) -> LambdaLR:
    r"""Return a schedule that scales each group's own rate by a linear rise and half a cosine.

    .. math:: f(s) = \min\left(\frac{s + 1}{w}, 1\right) \text{ for } s < w, \quad
              \tfrac12 \left(1 + \cos \pi \frac{s - w}{S - w}\right) \text{ after}

    The factor is a function of the step alone: it does not matter which groups have been frozen
    until then, nor how often the run was stopped.

    Args:
        optimizer: with the highest rate of each group.
        num_steps: S, after which the rate is 0.
        warmup_share: w as a share of S.
    """
    num_warmup = math.ceil(warmup_share * num_steps)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        done = (step - num_warmup) / max(num_steps - num_warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return LambdaLR(optimizer, factor)


def adamw_under_cosine(
    groups: Iterable[tuple[str, list[nn.Parameter], float]],
    num_steps: int,
    *,
    weight_decay: float,
    warmup_share: float,
) -> dict[str, Any]:
    """Return what a module configures: AdamW, each group's rate under :func:`cosine_after_warmup`.

    Args:
        groups: name in the log, parameters and highest rate; one without parameters is left out.
        num_steps: after which every rate is 0.
        weight_decay: of all of them.
        warmup_share: share of the steps in which the rates rise.
    """
    optimizer = torch.optim.AdamW(
        [{"name": name, "params": values, "lr": rate} for name, values, rate in groups if values],
        weight_decay=weight_decay,
    )
    schedule = cosine_after_warmup(optimizer, num_steps, warmup_share=warmup_share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch by the number of the epoch, so that a resumed run draws what it would have."""
    sequence = np.random.SeedSequence([seed, epoch])
    torch.manual_seed(int(sequence.generate_state(1)[0]))

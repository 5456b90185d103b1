"""The change that training made to a model's weights, in few bytes.

A matrix (or kernel) is kept in 8 bits with one step for each row, its first axis: the error is at
most half a step, 1/254 of the largest change in that row. Vectors (biases, norms) are few and kept
in bfloat16, whose error is relative to each change.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_LEVELS = 127
_STEPS = ".steps"
"""What the name of a matrix gets where its steps are kept; no weight of a module is called so."""


def pack_changes(changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return changes as they are stored: int8 matrices with float32 steps, bfloat16 vectors.

    Args:
        changes: float32, by the name of the weight.
    """
    packed: dict[str, Tensor] = {}
    for name, change in changes.items():
        if change.ndim < 2:
            packed[name] = change.bfloat16()
            continue
        rows = change.flatten(1)
        steps = rows.abs().amax(dim=1) / _LEVELS
        levels = (rows / steps.clamp(min=torch.finfo(steps.dtype).tiny)[:, None]).round()
        packed[name] = levels.to(torch.int8).view(change.shape)
        packed[name + _STEPS] = steps
    return packed


def unpack_changes(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return changes, float32, by the name of the weight; also those of earlier files (bfloat16).

    Raises:
        KeyError: the steps of a matrix are missing.
    """
    changes: dict[str, Tensor] = {}
    for name, value in packed.items():
        if value.dtype == torch.int8:
            steps = packed[name + _STEPS].view(-1, *[1] * (value.ndim - 1))
            changes[name] = value.to(steps.dtype) * steps
        elif not name.endswith(_STEPS):
            changes[name] = value.float()
    return changes

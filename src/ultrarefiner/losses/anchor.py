"""The weight anchor: what it costs a network to move away from where phase 1 left it.

Source: UltraRefiner 4.3.2 and 9.4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.classes import exact

AnchorReduction = Literal["sum", "mean"]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's parameters, to anchor it to."""
    return {name: exact(value.detach()).clone() for name, value in network.named_parameters()}


def weight_anchor(
    network: nn.Module, start: Mapping[str, Tensor], *, reduction: AnchorReduction = "mean"
) -> Float[Tensor, ""]:
    r"""Return the squared distance of a network from where it started.

    .. math:: \lVert\theta - \theta_1\rVert^2 \quad\text{or}\quad
              \tfrac1n \lVert\theta - \theta_1\rVert^2

    The mean pulls each parameter n times more weakly than the sum: its weight does not carry over.

    Args:
        network: as it is now; its buffers do not count.
        start: what :func:`weights_of` returned.
        reduction: ``sum`` (literal) or ``mean`` over all n parameters.
    """
    parameters = dict(network.named_parameters())
    assert parameters.keys() == start.keys(), "anchored to another network"
    distances = [
        # One operation: the graph keeps no difference, which would be as large as the network.
        F.mse_loss(exact(value), start[name], reduction="sum")
        for name, value in parameters.items()
    ]
    total = torch.stack(distances).sum()
    if reduction == "sum":
        return total
    return total / sum(value.numel() for value in parameters.values())

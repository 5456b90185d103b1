"""The interface between the two networks: how much of the refiner's gradient the coarse one feels.

Source: UltraRefiner 4.3.2, "gradient scaling". What we changed: it acts on the coarse probability
where it enters the refiner, not on the gradients of the parameters. AdamW divides by the size of
the gradient, so that scaling all of a parameter's gradient does nothing; and the coarse network's
own loss would be scaled with it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.errors import ConfigError


def scale_gradient(maps: Float[Tensor, "*B"], alpha: float) -> Float[Tensor, "*B"]:
    r"""Return the same values; on the way back the gradient is multiplied by alpha.

    .. math:: y = x, \quad \frac{\partial L}{\partial x} := \alpha \frac{\partial L}{\partial y}

    Args:
        maps: what passes from the coarse network to the refiner.
        alpha: in [0, 1]. 1 returns the tensor itself; 0 gives zeros, not ``None``, and stops even
            a gradient that is not finite.

    Raises:
        ConfigError: alpha outside [0, 1].

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> scale_gradient(x, 0.1).square().backward()
        >>> round(x.grad.item(), 6)
        0.6
    """
    if not 0 <= alpha <= 1:
        raise ConfigError("gradient scale alpha", expected="0 to 1", found=str(alpha))
    if alpha == 1:
        return maps
    scaled: Tensor = _ScaledGradient.apply(maps, alpha)
    return scaled


class _ScaledGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, alpha: float) -> Tensor:
        return maps.view_as(maps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.alpha = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (torch.zeros_like(gradient) if ctx.alpha == 0 else gradient * ctx.alpha), None

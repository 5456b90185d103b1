"""How undecided a probability is."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def uncertainty(probs: Float[Tensor, "*B"], gamma: float = 1.0) -> Float[Tensor, "*B"]:
    r"""Return 1 where a probability is a half, 0 where it is 0 or 1.

    .. math:: u = 1 - |2P - 1|^\gamma

    Args:
        probs: any number of probabilities in [0, 1].
        gamma: greater than 0; below 1 only the most undecided count, above 1 most do.

    Returns:
        Values in [0, 1] of the same shape and type. The gradient is finite everywhere; at exactly a
        half, where there is a kink (or, below 1, a cusp), it is 0.

    Example:
        >>> uncertainty(torch.tensor([0.0, 0.25, 0.5, 1.0]))
        tensor([0.0000, 0.5000, 1.0000, 0.0000])
    """
    certainty = (2 * probs - 1).abs()
    if gamma == 1:
        return 1 - certainty
    undecided = certainty == 0
    powers = certainty.masked_fill(undecided, 1) ** gamma
    return 1 - powers.masked_fill(undecided, 0)

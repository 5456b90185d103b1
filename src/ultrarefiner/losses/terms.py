"""A loss of several terms: the sum to go back through, and each term to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """What a loss of several terms returns.

    Attributes:
        total: ``B`` weighted sum of each image.
        parts: ``B`` each term, not weighted and without gradient, for the log.
    """

    total: Float[Tensor, "B"]
    parts: Mapping[str, Float[Tensor, "B"]]


def weigh(terms: Mapping[str, tuple[float, Float[Tensor, "B"]]]) -> LossTerms:
    """Sum terms, each given as its weight and its values."""
    weighted = [weight * values for weight, values in terms.values()]
    return LossTerms(
        total=sum(weighted[1:], start=weighted[0]),
        parts={name: values.detach() for name, (_, values) in terms.items()},
    )

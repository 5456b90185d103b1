"""The truth of the lesion that was asked about, on hand-drawn maps."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.refine.localization import Lesions
from ultrarefiner.training.targets import truth_of_lesions


def square(row: int, col: int, side: int = 4) -> Tensor:
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., row : row + side, col : col + side] = 1
    return mask


def lesions(probs: Tensor, *, none: bool = False) -> Lesions:
    return Lesions(
        probs=probs, weights=probs, boxes=torch.zeros(1, 4), no_lesion=torch.tensor([none])
    )


TWO = square(2, 2) + 0.6 * square(14, 14)


def test_only_the_lesion_that_is_touched_counts() -> None:
    """However faint the map is, and whatever it says of the other below half its maximum."""
    asked = 0.3 * square(4, 4) + 0.1 * square(14, 14)
    assert torch.equal(truth_of_lesions(TWO, lesions(asked)), square(2, 2))


def test_a_map_over_both_stands_for_both() -> None:
    assert torch.equal(truth_of_lesions(TWO, lesions(square(0, 0, 20))), TWO)


def test_a_map_beside_them_or_none_at_all_stands_for_all() -> None:
    assert torch.equal(truth_of_lesions(TWO, lesions(square(2, 18))), TWO)
    assert torch.equal(truth_of_lesions(TWO, lesions(square(2, 2), none=True)), TWO)


def test_a_single_lesion_is_never_lost() -> None:
    one = 0.4 * square(5, 5)
    assert torch.equal(truth_of_lesions(one, lesions(square(15, 15))), one)
    nothing = torch.zeros(1, 1, 24, 24)
    assert torch.equal(truth_of_lesions(nothing, lesions(square(5, 5))), nothing)


def test_each_map_of_a_batch_has_its_own() -> None:
    truth = torch.cat([TWO, TWO])
    asked = torch.cat([square(2, 2), square(14, 14)])
    both = Lesions(
        probs=asked, weights=asked, boxes=torch.zeros(2, 4), no_lesion=torch.tensor([False] * 2)
    )
    found = truth_of_lesions(truth, both)
    assert torch.equal(found[:1], square(2, 2))
    assert torch.equal(found[1:], 0.6 * square(14, 14))

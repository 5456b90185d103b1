"""Areas: an exact count on any shape and layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ultrarefiner.ops.areas import area_px


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7), (2, 3, 300, 301)])
def test_it_counts(shape: tuple[int, ...]) -> None:
    masks = np.random.default_rng(0).random(shape) < 0.7
    expected = masks.sum(axis=(-2, -1))
    np.testing.assert_array_equal(area_px(torch.from_numpy(masks)).numpy(), expected)


def test_views_and_expanded_masks_are_counted_like_copies() -> None:
    masks = torch.rand(4, 1, 20, 31) > 0.5
    flipped = masks.transpose(-2, -1)[:, :, 3:17:2]
    assert torch.equal(area_px(flipped), area_px(flipped.clone()))
    expanded = masks.expand(4, 3, 20, 31)
    assert torch.equal(area_px(expanded), area_px(masks).expand(4, 3))


def test_empty_and_full() -> None:
    assert area_px(torch.zeros(2, 8, 9, dtype=torch.bool)).tolist() == [0, 0]
    assert area_px(torch.ones(2, 8, 9, dtype=torch.bool)).tolist() == [72, 72]

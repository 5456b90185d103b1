"""Dilation and the outline's band against SciPy, on any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ultrarefiner.ops.morphology import dilate, outline_band

_SQUARE = np.ones((3, 3), dtype=bool)


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (17, 23), (64, 5)])
@pytest.mark.parametrize("radius_px", [1, 2, 3, 5, 7, 30])
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_both_are_an_iterated_square(hw: tuple[int, int], radius_px: int, density: float) -> None:
    masks = np.random.default_rng(radius_px).random((2, *hw)) < density
    dilated, band = (
        operation(torch.from_numpy(masks), radius_px) for operation in (dilate, outline_band)
    )
    for mask, grown, along in zip(masks, dilated.numpy(), band.numpy(), strict=True):
        expected = ndimage.binary_dilation(mask, _SQUARE, iterations=radius_px)
        kept = ndimage.binary_erosion(mask, _SQUARE, iterations=radius_px, border_value=1)
        np.testing.assert_array_equal(grown, expected)
        np.testing.assert_array_equal(along, expected & ~kept)


def test_a_radius_of_zero_is_the_identity_and_no_band() -> None:
    masks = torch.rand(2, 3, 8, 9) > 0.5
    assert torch.equal(dilate(masks, 0), masks)
    assert not outline_band(masks, 0).any()


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_have_no_outline(value: bool) -> None:
    masks = torch.full((1, 1, 12, 7), value)
    assert torch.equal(dilate(masks, 3), masks)
    assert not outline_band(masks, 3).any()

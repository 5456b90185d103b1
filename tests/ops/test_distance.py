"""Signed distance: exact against scipy, and zero on the edge that two pixels share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from scipy.ndimage import distance_transform_edt

from ultrarefiner.ops.distance import distance_to_zero, signed_distance

_MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def test_a_row_solved_by_hand() -> None:
    distance = signed_distance(np.array([[False, False, True, True, True]]))
    assert distance.tolist() == [[-1.5, -0.5, 0.5, 1.5, 2.5]]


def test_a_single_pixel_solved_by_hand() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 1] = True
    root2, root5 = np.sqrt(2), np.sqrt(5)
    outside = [
        [root2, 1, root2, root5],
        [1, 0, 1, 2],
        [root2, 1, root2, root5],
    ]
    expected = 0.5 - np.array(outside)
    expected[1, 1] = 0.5
    np.testing.assert_allclose(signed_distance(mask), expected, atol=1e-6)


def test_a_hole_solved_by_hand() -> None:
    mask = np.ones((3, 5), dtype=bool)
    mask[1, 2] = False
    diagonal = np.sqrt(2) - 0.5
    far = np.sqrt(5) - 0.5
    expected = [
        [far, diagonal, 0.5, diagonal, far],
        [1.5, 0.5, -0.5, 0.5, 1.5],
        [far, diagonal, 0.5, diagonal, far],
    ]
    np.testing.assert_allclose(signed_distance(mask), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 57), (1, 30), (33, 2), (120, 90)])
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_random_masks_agree_with_scipy(shape: tuple[int, int], density: float) -> None:
    mask = np.random.default_rng(7).random(shape) < density
    mask.flat[:2] = False, True
    expected = np.where(
        mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask)
    )
    distance = signed_distance(mask)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("value", "expected"), [(False, -np.inf), (True, np.inf)])
def test_without_a_boundary_the_distance_is_infinite(value: bool, expected: float) -> None:
    distance = signed_distance(np.full((4, 6), value))
    assert distance.shape == (4, 6)
    assert distance.dtype == np.float32
    assert (distance == expected).all()


@given(_MASKS)
@settings(max_examples=60, deadline=None)
def test_thresholding_at_zero_returns_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(signed_distance(mask) > 0, mask)


@given(_MASKS)
@settings(max_examples=60, deadline=None)
def test_the_complement_changes_only_the_sign(mask: np.ndarray) -> None:
    np.testing.assert_allclose(signed_distance(~mask), -signed_distance(mask), rtol=1e-6)


def test_the_same_call_gives_the_same_bits() -> None:
    """OpenCV alone fails this: its last bit depends on its threads and on where its result lies."""
    pixels = np.ones((300, 400), dtype=np.uint8)
    pixels[0, 0] = pixels[3, 200] = 0
    num_threads, found, signed = cv2.getNumThreads(), set(), set()
    try:
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            for _ in range(12):
                distance = distance_to_zero(pixels)  # beside the one before: elsewhere in memory
                found.add(distance.tobytes())
                signed.add(signed_distance(pixels > 0).tobytes())
    finally:
        cv2.setNumThreads(num_threads)
    assert len(found) == len(signed) == 1


@pytest.mark.parametrize("hw", [(300, 400), (1100, 900), (3, 3000)])
def test_distances_are_exact_to_the_last_bit(hw: tuple[int, int]) -> None:
    """Also in frames so large that OpenCV's squares are wrong by one and more."""
    pixels = np.ones(hw, dtype=np.uint8)
    pixels[0, 0] = pixels[2, 5] = 0
    y, x = np.ogrid[: hw[0], : hw[1]]
    squares = np.minimum(y**2 + x**2, (y - 2) ** 2 + (x - 5) ** 2)
    assert np.array_equal(distance_to_zero(pixels), np.sqrt(squares).astype(np.float32))

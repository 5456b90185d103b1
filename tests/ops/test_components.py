"""Components: scipy's 8-connected ones in order of area, and who is nearest to each pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.ndimage import label

from ultrarefiner.ops.components import label_components, nearest_component

_MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))

# cv2's 5x5 mask steps by 1 (side), 1.4 (diagonal) and 2.1969 (knight's move): up to 1.9 % too long
# (sqrt(1 + 0.1969^2) between side and knight) or too short (2.1969 / sqrt(5)), any candidate.
_CHAMFER_ERROR = 0.02


def _same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether two label images differ in the names of their labels alone."""
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@given(_MASKS)
@settings(max_examples=80, deadline=None)
def test_labels_are_those_of_scipy_largest_first(mask: np.ndarray) -> None:
    labels, areas = label_components(mask)
    expected, num = label(mask, structure=np.ones((3, 3)))
    assert labels.shape == mask.shape
    assert len(areas) == num
    assert _same_partition(labels, expected)
    assert np.array_equal(labels == 0, ~mask)
    assert areas.tolist() == [int((labels == k).sum()) for k in range(1, num + 1)]
    assert areas.tolist() == sorted(areas.tolist(), reverse=True)


def test_diagonal_neighbours_belong_together() -> None:
    labels, areas = label_components(np.eye(4, dtype=bool))
    assert areas.tolist() == [4]
    assert np.array_equal(labels, np.eye(4, dtype=np.int32))


def test_a_hand_solved_case() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1]], dtype=bool)
    labels, areas = label_components(mask)
    assert areas.tolist() == [3, 2, 1]
    assert labels.tolist() == [[3, 0, 0, 1], [0, 0, 0, 1], [2, 2, 0, 1]]


@pytest.mark.parametrize(("value", "areas"), [(False, []), (True, [35])])
def test_empty_and_full(value: bool, areas: list[int]) -> None:
    labels, found = label_components(np.full((5, 7), value))
    assert found.tolist() == areas
    assert (labels == int(value)).all()
    assert labels.dtype == found.dtype == np.int32


def test_many_components_keep_their_own_labels() -> None:
    mask = np.zeros((301, 301), dtype=bool)
    mask[::2, ::2] = True  # 22801 isolated pixels, more than 8 and 14 bits count
    labels, areas = label_components(mask)
    assert len(areas) == 151**2
    assert np.array_equal(np.unique(labels), np.arange(151**2 + 1))


def _distances(labels: np.ndarray) -> np.ndarray:
    """Distance of every pixel to every component by brute force, ``H W K``."""
    pixels = np.indices(labels.shape).reshape(2, -1).T
    return np.stack(
        [
            np.linalg.norm(pixels[:, None] - np.argwhere(labels == k)[None], axis=-1).min(axis=1)
            for k in range(1, labels.max() + 1)
        ],
        axis=-1,
    ).reshape(*labels.shape, -1)


@given(_MASKS, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_nearest_component_is_nearest(mask: np.ndarray, seed: int) -> None:
    mask = mask.copy()
    mask.flat[np.random.default_rng(seed).integers(mask.size)] = True
    labels, _ = label_components(mask)
    nearest = nearest_component(labels)
    distances = _distances(labels)
    taken = np.take_along_axis(distances, nearest[..., None].astype(int) - 1, axis=-1)[..., 0]
    least = distances.min(axis=-1)
    assert (taken <= least * (1 + _CHAMFER_ERROR) / (1 - _CHAMFER_ERROR) + 1e-6).all()


@given(_MASKS)
@settings(max_examples=60, deadline=None)
def test_no_component_is_lost(mask: np.ndarray) -> None:
    labels, areas = label_components(mask)
    if len(areas) == 0:
        return
    nearest = nearest_component(labels)
    assert np.array_equal(nearest[mask], labels[mask])
    assert nearest.min() >= 1
    assert nearest.max() == len(areas)


def test_the_plane_is_cut_in_the_middle() -> None:
    labels = np.zeros((3, 8), dtype=np.int32)
    labels[:, 0], labels[:, 7] = 2, 1
    assert nearest_component(labels).tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 3

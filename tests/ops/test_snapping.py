"""Snapping: the nearest allowed pixel, found as by looking at all of them; gradients pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.ops.snapping import snap


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _nearest(point: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the point itself on an allowed pixel, else the first of the nearest centres."""
    centres = np.argwhere(allowed)[:, ::-1] + 0.5
    if len(centres) == 0 or any(np.abs(centres - point).max(axis=1) < 0.5):
        return point
    return centres[((centres - point) ** 2).sum(axis=1).argmin()]


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    own=st.booleans(),
)
def test_it_is_the_nearest_of_all(seed: int, rows: int, cols: int, share: float, own: bool) -> None:
    generator = _generator(seed)
    points = torch.rand(2, 3, 2, generator=generator).double() * 14 - 3
    hw = (2, 3, rows, cols) if own else (2, rows, cols)
    allowed = torch.rand(hw, generator=generator) < share
    moved, found = snap(points, allowed)
    for item in range(2):
        for each in range(3):
            pixels = (allowed[item, each] if own else allowed[item]).numpy()
            expected = _nearest(points[item, each].numpy(), pixels)
            assert moved[item, each].tolist() == pytest.approx(expected.tolist())
            assert found[item, each] == pixels.any()


def test_ties_go_to_the_first_in_reading_order() -> None:
    allowed = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 1]]).bool()[None]
    moved, _ = snap(torch.tensor([[[1.5, 1.5]]]), allowed)
    assert moved.tolist() == [[[0.5, 0.5]]]


def test_a_point_on_an_edge_moves_off_it() -> None:
    """It would be rounded to the neighbour, which may not be allowed."""
    allowed = torch.tensor([[[False, True], [True, False]]])
    moved, _ = snap(torch.tensor([[[1.0, 1.0], [0.999, 1.001]]]), allowed)
    assert moved.tolist() == [[[1.5, 0.5], [pytest.approx(0.999), pytest.approx(1.001)]]]


def test_lines_may_be_selected() -> None:
    centres = torch.tensor([[2.5, 9.5]]), torch.tensor([[4.5, 20.5, 40.5]])
    moved, _ = snap(torch.tensor([[[7.0, 30.0]]]), torch.ones(1, 3, 2).bool(), centres=centres)
    assert moved.tolist() == [[[9.5, 20.5]]]


def test_the_gradient_is_that_of_the_point() -> None:
    points = torch.tensor([[[0.2, 0.3], [3.7, 2.2]]], requires_grad=True)
    for allowed in (torch.eye(4).bool()[None], torch.zeros(1, 4, 4).bool()):
        (slopes,) = torch.autograd.grad(
            (snap(points, allowed)[0] * points.new_tensor([2, 3])).sum(), points
        )
        assert slopes.tolist() == [[[2, 3], [2, 3]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_compiles_without_a_break(dtype: torch.dtype) -> None:
    points: Tensor = torch.rand(2, 3, 2, generator=_generator(1)).to(dtype) * 8
    allowed = torch.rand(2, 8, 8, generator=_generator(2)) < 0.2
    compiled = torch.compile(snap, backend="eager", fullgraph=True)
    moved, found = compiled(points, allowed)
    assert moved.dtype == dtype
    torch.testing.assert_close((moved, found), snap(points, allowed))

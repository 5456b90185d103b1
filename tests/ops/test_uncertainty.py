"""Uncertainty: its closed form, and finite gradients at the kink."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner.ops.uncertainty import uncertainty

_GAMMAS = [0.3, 0.5, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("gamma", _GAMMAS)
def test_it_has_its_closed_form(gamma: float) -> None:
    probs = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = [1 - abs(2 * p - 1) ** gamma for p in probs.tolist()]
    assert uncertainty(probs, gamma).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gamma", _GAMMAS)
def test_certain_is_zero_undecided_is_one_and_all_gradients_are_finite(gamma: float) -> None:
    probs = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    values = uncertainty(probs, gamma)
    assert values.tolist() == [0, 1, 0]
    values.sum().backward()
    assert probs.grad is not None
    assert probs.grad.tolist() == pytest.approx([2 * gamma, 0, -2 * gamma])


@pytest.mark.parametrize("gamma", _GAMMAS)
def test_gradients_are_exact(gamma: float) -> None:
    probs = torch.tensor([0.1, 0.4, 0.6, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: uncertainty(values, gamma), probs)

"""Changes of weights in 8 bits: bounded, stable when stored again, and old files still read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ultrarefiner.refine.packing import pack_changes, unpack_changes


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(1, 1), (5, 3), (4, 3, 2, 2), (64, 1, 3, 3), (2, 300)]),
    size=st.sampled_from([1e-12, 1e-4, 1.0, 1e6]),
)
def test_a_matrix_is_off_by_half_a_step_of_its_row(
    seed: int, shape: tuple[int, ...], size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator)
    change = size * scale * torch.randn(shape, generator=generator)
    packed = pack_changes({"w": change})
    assert packed["w"].dtype == torch.int8
    assert packed["w"].shape == change.shape
    (found,) = unpack_changes(packed).values()
    error = (found.double() - change.double()).abs().flatten(1)
    largest = change.double().abs().flatten(1).amax(1, keepdim=True)
    assert (error <= largest / 254 * (1 + 1e-5)).all()


def test_rows_without_a_change_have_none() -> None:
    change = torch.tensor([[0.0, 0.0], [1.0, -0.5]])
    found = unpack_changes(pack_changes({"w": change}))["w"]
    assert torch.equal(found[0], change[0])
    assert torch.allclose(found[1], change[1], atol=1 / 254)


def test_packing_what_was_unpacked_changes_nothing() -> None:
    change = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    once = unpack_changes(pack_changes({"w": change}))["w"]
    twice = unpack_changes(pack_changes({"w": once}))["w"]
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=0)
    assert not torch.equal(once, change)


def test_vectors_are_rounded_each_by_itself() -> None:
    change = torch.logspace(-8, 0, 50)
    packed = pack_changes({"bias": change})
    assert set(packed) == {"bias"}
    assert packed["bias"].dtype == torch.bfloat16
    assert torch.equal(unpack_changes(packed)["bias"], change.bfloat16().float())


def test_what_earlier_versions_stored_is_read() -> None:
    stored = {"w": torch.randn(3, 4).bfloat16(), "bias": torch.randn(3).bfloat16()}
    found = unpack_changes(stored)
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        assert torch.equal(found[name], value.float())


def test_a_matrix_without_its_steps_is_refused() -> None:
    packed = pack_changes({"w": torch.ones(2, 2)})
    del packed["w.steps"]
    with pytest.raises(KeyError, match=r"w\.steps"):
        unpack_changes(packed)

"""Learning rates against the closed form, and seeds that depend on seed and epoch alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ultrarefiner.training.engine.schedules import cosine_after_warmup, seed_epoch


def rates(num_steps: int, warmup_share: float) -> list[float]:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": 2.0}])
    schedule = cosine_after_warmup(optimizer, num_steps, warmup_share=warmup_share)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_linearly_and_falls_by_a_cosine() -> None:
    """Of ten steps two rise: 1/2 and 1; the other eight are those of half a cosine."""
    expected = [1.0, 2.0, *(1 + math.cos(math.pi * k / 8) for k in range(8))]
    assert rates(10, 0.2) == pytest.approx(expected)


@given(st.integers(1, 60), st.floats(0, 0.95))
def test_rates_stay_within_their_bounds(num_steps: int, warmup_share: float) -> None:
    found = rates(num_steps, warmup_share)
    assert all(0 <= rate <= 2 for rate in found)
    assert found[0] > 0
    assert max(found) == pytest.approx(2.0)


def test_each_group_has_its_own_rate() -> None:
    """Groups keep their ratio at every step, whether or not they are trained by then."""
    fast, slow = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [fast], "lr": 1.0}, {"params": [slow], "lr": 0.5}])
    schedule = cosine_after_warmup(optimizer, 7, warmup_share=0.3)
    for _ in range(6):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(0.5 * first)
        optimizer.step()
        schedule.step()


def test_a_stopped_schedule_goes_on_where_it_was() -> None:
    whole = rates(9, 0.25)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=2.0)
    schedule = cosine_after_warmup(optimizer, 9, warmup_share=0.25)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    states = schedule.state_dict(), optimizer.state_dict()
    other = torch.optim.AdamW([weight], lr=2.0)
    resumed = cosine_after_warmup(other, 9, warmup_share=0.25)
    resumed.load_state_dict(states[0])
    other.load_state_dict(states[1])
    found = []
    for _ in range(5):
        found.append(other.param_groups[0]["lr"])
        other.step()
        resumed.step()
    assert found == whole[4:]


def test_seeds_differ_between_epochs_and_runs() -> None:
    def drawn(seed: int, epoch: int) -> float:
        seed_epoch(seed, epoch)
        return float(torch.rand(1))

    assert drawn(0, 3) == drawn(0, 3)
    assert len({drawn(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9

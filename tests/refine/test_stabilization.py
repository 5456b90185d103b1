"""Stabiliser: every rule refuses by name, a refused item is its coarse map bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.stabilization import (
    ACCEPTED,
    AREA_RATIO,
    FRAGMENTED,
    LOW_IOU,
    NO_LESION,
    NO_RESPONSE,
    Stabilized,
    Stabilizer,
    StabilizerConfig,
)

_CONFIG = StabilizerConfig(
    min_iou=0.5, min_area_ratio=0.3, max_area_ratio=3.0, max_components=5, min_predicted_iou=0.9
)


def _square(side: int, top: int = 10, left: int = 10) -> Tensor:
    """A confident square on a varied background, ``1 1 40 40``."""
    probs = 0.2 * torch.rand(1, 1, 40, 40)
    probs[..., top : top + side, left : left + side] += 0.7
    return probs


def _specks(num: int) -> Tensor:
    probs = torch.zeros(1, 1, 40, 40)
    for i in range(num):
        probs[..., 2 + 2 * (i // 10), 2 + 2 * (i % 10)] = 1
    return probs


def _empty() -> Tensor:
    return 0.2 * torch.rand(1, 1, 40, 40)


def _run(
    coarse: Tensor,
    refined: Tensor,
    *,
    gated: Tensor | None = None,
    predicted_iou: float = 0.8,
    no_lesion: bool = False,
    config: StabilizerConfig = _CONFIG,
) -> Stabilized:
    return Stabilizer(config)(
        coarse,
        refined,
        (coarse + refined) / 2 if gated is None else gated,
        torch.full((len(coarse),), predicted_iou),
        torch.full((len(coarse),), no_lesion),
    )


@pytest.mark.parametrize(
    ("refined", "reason"),
    [
        (_square(12), ACCEPTED),
        (_square(11, top=12), ACCEPTED),
        (_square(12, top=16), LOW_IOU),  # 72 of 216 px: IoU 0.33
        (_square(6), AREA_RATIO),  # 36 of 144 px: ratio 0.25
        (_square(22), AREA_RATIO),  # 484 of 144 px: ratio 3.36
        (_empty(), NO_RESPONSE),
    ],
    ids=["same", "near", "beside", "small", "large", "empty"],
)
def test_each_rule_refuses_by_name(refined: Tensor, reason: str) -> None:
    coarse, gated = _square(12), torch.rand(1, 1, 40, 40)
    stabilized = _run(coarse, refined, gated=gated)
    assert stabilized.reasons == (reason,)
    assert torch.equal(stabilized.probs, gated if reason == ACCEPTED else coarse)


@pytest.mark.parametrize(
    ("rule", "just_fits", "just_fails", "reason"),
    [
        # The refined square of 6 px lies inside the coarse one of 12 px: IoU = ratio = 1/4.
        ("min_area_ratio", 0.25, 0.26, AREA_RATIO),
        ("min_iou", 0.25, 0.26, LOW_IOU),
    ],
)
def test_a_rule_holds_up_to_its_threshold(
    rule: str, just_fits: float, just_fails: float, reason: str
) -> None:
    for value, expected in ((just_fits, ACCEPTED), (just_fails, reason)):
        limits = {"min_iou": 0.0, "min_area_ratio": 0.0} | {rule: value}
        config = StabilizerConfig(**limits, max_area_ratio=3.0, max_components=5)
        assert _run(_square(12), _square(6), config=config).reasons == (expected,)


@pytest.mark.parametrize(("limit", "reason"), [(4.0, ACCEPTED), (3.99, AREA_RATIO)])
def test_growth_is_limited(limit: float, reason: str) -> None:
    config = StabilizerConfig(min_iou=0.0, max_area_ratio=limit)
    assert _run(_square(6), _square(12), config=config).reasons == (reason,)


@pytest.mark.parametrize(("num", "reason"), [(5, ACCEPTED), (6, FRAGMENTED)])
def test_fragments_are_counted(num: int, reason: str) -> None:
    assert _run(_specks(num), _specks(num)).reasons == (reason,)


def test_diagonal_neighbours_are_one_fragment() -> None:
    chain = torch.eye(40)[None, None]
    assert _run(chain, chain).reasons == (ACCEPTED,)


def test_the_rules_look_at_the_mask_before_the_gate() -> None:
    coarse, elsewhere = _square(12), _square(12, top=26, left=26)
    stabilized = _run(coarse, elsewhere, gated=coarse.clone())
    assert stabilized.reasons == (LOW_IOU,)


@pytest.mark.parametrize(
    ("refined", "predicted_iou", "reason"),
    [
        (_square(12), 0.95, ACCEPTED),
        (_square(12), 0.85, NO_LESION),
        (_empty(), 0.95, NO_LESION),
        (_specks(6), 0.95, FRAGMENTED),
    ],
    ids=["sure", "unsure", "nothing", "fragments"],
)
def test_an_empty_coarse_map_has_its_own_rule(
    refined: Tensor, predicted_iou: float, reason: str
) -> None:
    coarse = _empty()
    stabilized = _run(coarse, refined, predicted_iou=predicted_iou, no_lesion=True)
    assert stabilized.reasons == (reason,)
    # A new lesion bypasses the gate.
    assert torch.equal(stabilized.probs, refined if reason == ACCEPTED else coarse)


def test_items_are_judged_one_by_one() -> None:
    coarse = torch.cat([_square(12), _square(12), _empty(), _empty()])
    refined = torch.cat([_square(12), _empty(), _square(9), _square(9)])
    gated = torch.rand(4, 1, 40, 40)
    stabilized = Stabilizer(_CONFIG)(
        coarse,
        refined,
        gated,
        torch.tensor([0.1, 0.99, 0.95, 0.5]),
        torch.tensor([False, False, True, True]),
    )
    assert stabilized.reasons == (ACCEPTED, NO_RESPONSE, ACCEPTED, NO_LESION)
    assert torch.equal(stabilized.probs, torch.stack([gated[0], coarse[1], refined[2], coarse[3]]))


@pytest.mark.parametrize(
    "refined", [_square(12), _square(6), _empty()], ids=["ok", "small", "none"]
)
def test_a_second_pass_changes_nothing(refined: Tensor) -> None:
    coarse = _square(12)
    once = _run(coarse, refined)
    twice = _run(coarse, refined, gated=once.probs)
    assert twice.reasons == once.reasons
    assert torch.equal(twice.probs, once.probs)


def test_gradients_pass_where_accepted_alone() -> None:
    coarse, refined = torch.cat([_square(12)] * 2), torch.cat([_square(12), _empty()])
    gated = torch.rand(2, 1, 40, 40, requires_grad=True)
    _run(coarse, refined, gated=gated).probs.sum().backward()
    assert gated.grad is not None
    assert (gated.grad[0] == 1).all()
    assert (gated.grad[1] == 0).all()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_iou": 1.2}, "min_iou"),
        ({"min_iou": -0.1}, "min_iou"),
        ({"min_area_ratio": 1.1}, "area ratios"),
        ({"max_area_ratio": 0.9}, "area ratios"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ConfigError, match=f"stabilizer {name}: expected"):
        StabilizerConfig(**settings)

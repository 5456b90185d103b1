"""Stabiliser: every rule refuses by name, a refused item is its coarse map bit for bit."""

from __future__ import annotations

from dataclasses import replace

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
    TOO_LARGE,
    NoStabilizer,
    Stabilized,
    Stabilizer,
    StabilizerConfig,
    build_stabilizer,
)

_CONFIG = StabilizerConfig(
    min_iou=0.5,
    min_area_ratio=0.3,
    max_area_ratio=3.0,
    max_components=5,
    min_predicted_iou=0.9,
    widening=0.0,
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
    coarse, gated = _square(12), 0.9 * _square(12)
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
        config = StabilizerConfig(**limits, max_area_ratio=3.0, max_components=5, widening=0.0)
        small = _square(6)
        assert _run(_square(12), small, gated=small, config=config).reasons == (expected,)


@pytest.mark.parametrize(("limit", "reason"), [(4.0, ACCEPTED), (3.99, AREA_RATIO)])
def test_growth_is_limited(limit: float, reason: str) -> None:
    config = StabilizerConfig(min_iou=0.0, max_area_ratio=limit, widening=0.0)
    large = _square(12)
    assert _run(_square(6), large, gated=large, config=config).reasons == (reason,)


@pytest.mark.parametrize(("num", "reason"), [(5, ACCEPTED), (6, FRAGMENTED)])
def test_fragments_are_counted(num: int, reason: str) -> None:
    assert _run(_specks(num), _specks(num)).reasons == (reason,)


def test_specks_are_not_counted_and_nothing_but_specks_is_too_many() -> None:
    with_specks = torch.maximum(_square(30, top=9, left=5), _specks(6))
    assert _run(with_specks, with_specks).reasons == (ACCEPTED,)
    every = replace(_CONFIG, min_component_share=0.0)
    assert _run(with_specks, with_specks, config=every).reasons == (FRAGMENTED,)
    dust = _specks(150)
    assert _run(dust, dust).reasons == (FRAGMENTED,)


def test_a_component_counts_from_its_share_on() -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :9, :11] = 1  # 99 px, and a speck that is 1 % of the whole
    mask[..., 20, 20] = 1
    for share, reason in ((0.01, FRAGMENTED), (0.0101, ACCEPTED)):
        config = replace(_CONFIG, max_components=1, min_component_share=share)
        assert _run(mask, mask, config=config).reasons == (reason,)


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
        (_square(26), 0.95, TOO_LARGE),  # 676 of 1600 px
        (torch.ones(1, 1, 40, 40), 0.95, TOO_LARGE),
        (_square(12), float("nan"), NO_LESION),
    ],
    ids=["sure", "unsure", "nothing", "fragments", "large", "everything", "undefined"],
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
    gated = 0.9 * torch.cat([_square(12)] * 4)
    stabilized = Stabilizer(_CONFIG)(
        coarse,
        refined,
        gated,
        torch.tensor([0.1, 0.99, 0.95, 0.5]),
        torch.tensor([False, False, True, True]),
    )
    assert stabilized.reasons == (ACCEPTED, NO_RESPONSE, ACCEPTED, NO_LESION)
    assert torch.equal(stabilized.probs, torch.stack([gated[0], coarse[1], refined[2], coarse[3]]))


def test_gradients_pass_where_accepted_alone() -> None:
    coarse, refined = torch.cat([_square(12)] * 2), torch.cat([_square(12), _empty()])
    gated = torch.cat([_square(12)] * 2).requires_grad_()
    _run(coarse, refined, gated=gated).probs.sum().backward()
    assert gated.grad is not None
    assert (gated.grad[0] == 1).all()
    assert (gated.grad[1] == 0).all()


def test_the_outcome_keeps_the_rules_too() -> None:
    # The gate can break up what the model and the coarse mask hold together.
    coarse, refined, stripes = _square(12), _square(12), _square(12)
    stripes[..., 11:22:2] = 0
    assert _run(coarse, refined, gated=stripes).reasons == (FRAGMENTED,)
    assert _run(coarse, refined, gated=_square(6)).reasons == (AREA_RATIO,)
    assert _run(coarse, refined, gated=0 * coarse).reasons == (NO_RESPONSE,)


def test_the_identity_accepts_everything_and_bypasses_the_gate_without_lesion() -> None:
    stage = build_stabilizer(StabilizerConfig(enabled=False))
    assert isinstance(stage, NoStabilizer)
    assert isinstance(build_stabilizer(StabilizerConfig()), Stabilizer)
    coarse, refined, gated = torch.rand(3, 2, 1, 40, 40)
    stabilized = stage(coarse, refined, gated, torch.zeros(2), torch.tensor([False, True]))
    assert stabilized.reasons == (ACCEPTED, ACCEPTED)
    assert torch.equal(stabilized.probs, torch.stack([gated[0], refined[1]]))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_iou": 1.2}, "min_iou"),
        ({"min_iou": -0.1}, "min_iou"),
        ({"min_area_ratio": 1.1}, "area ratios"),
        ({"max_area_ratio": 0.9}, "area ratios"),
        ({"max_components": 0}, "max_components"),
        ({"min_component_share": 1.5}, "min_component_share"),
        ({"max_new_share": -0.1}, "max_new_share"),
        ({"widening": -1.0}, "widening"),
        ({"uncertainty_credit": -0.1}, "uncertainty_credit"),
        ({"band_px": -1.0}, "band_px"),
        ({"trust_from": 0.9, "trust_to": 0.9}, "trust"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ConfigError, match=f"stabilizer {name}: expected"):
        StabilizerConfig(**settings)

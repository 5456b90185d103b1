"""Gates: every registered one keeps the contract; the formulas hold; the evidence gate is fair."""

from __future__ import annotations

import pytest
import torch
from sights import Picture
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.gates import GATES, GateConfig, apply_gate, build_gate

_SIDE = 64
_LEARNING = ("learned", "hybrid")


def _disc(radius_px: float, shift_px: float = 0.0) -> Tensor:
    """Soft disc, ``1 1 side side``."""
    centres = torch.arange(_SIDE) + 0.5
    x, y = centres[None] - 32 - shift_px, centres[:, None] - 32
    return (radius_px - (x**2 + y**2).sqrt()).sigmoid()[None, None]


def _picture(coarse: Tensor, inside: float = 0.2, outside: float = 0.8) -> Picture:
    """A disc of radius 15, behind every map."""
    disc = torch.where(_disc(15.0)[0, 0] > 0.5, inside, outside)
    return Picture(grey=disc.to(coarse.dtype), num=len(coarse))


def _gate(coarse: Tensor, refined: Tensor, **settings: float | str) -> Tensor:
    return build_gate(GateConfig(**settings))(coarse, refined, _picture(coarse))


@pytest.mark.parametrize("kind", list(GATES))
@pytest.mark.parametrize(("minimum", "maximum"), [(0.0, 1.0), (0.3, 0.6), (1.0, 1.0)])
def test_every_gate_is_between_zero_and_one(kind: str, minimum: float, maximum: float) -> None:
    coarse = torch.cat(
        [_disc(12.0), torch.zeros(1, 1, _SIDE, _SIDE), torch.rand(1, 1, _SIDE, _SIDE)]
    )
    refined = torch.cat([_disc(15.0), _disc(9.0), torch.ones(1, 1, _SIDE, _SIDE)])
    gate = _gate(coarse, refined, kind=kind, minimum=minimum, maximum=maximum)
    assert gate.shape == coarse.shape
    assert ((gate >= 0) & (gate <= 1)).all()
    gated = apply_gate(coarse, refined, gate)
    assert (gated >= torch.minimum(coarse, refined) - 1e-6).all()
    assert (gated <= torch.maximum(coarse, refined) + 1e-6).all()


@pytest.mark.parametrize("kind", list(GATES))
def test_every_gate_passes_gradients_on(kind: str) -> None:
    coarse, refined = _disc(12.0).requires_grad_(), _disc(15.0).requires_grad_()
    gate = _gate(coarse, refined, kind=kind, minimum=0.1, maximum=0.9)
    apply_gate(coarse, refined, gate).sum().backward()
    assert refined.grad is not None
    assert refined.grad.isfinite().all()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()
    if kind in _LEARNING:  # there, the refined map also moves the gate, a little
        torch.testing.assert_close(refined.grad, gate.detach(), atol=0.05, rtol=0)
    else:
        torch.testing.assert_close(refined.grad, gate.detach().expand_as(refined))


@pytest.mark.parametrize("kind", list(GATES))
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_every_gate_is_finite_on_constant_maps(kind: str, value: float, gamma: float) -> None:
    coarse = torch.full((1, 1, _SIDE, _SIDE), value, requires_grad=True)
    gate = _gate(coarse, _disc(15.0), kind=kind, minimum=0.1, maximum=0.9, gamma=gamma)
    apply_gate(coarse, _disc(15.0), gate).sum().backward()
    assert gate.isfinite().all()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()


@pytest.mark.parametrize("kind", list(GATES))
@pytest.mark.parametrize("hw", [(1, 1), (7, 23), (64, 33)])
def test_every_gate_takes_any_size_and_type(kind: str, hw: tuple[int, int]) -> None:
    for dtype in (torch.float32, torch.float64):
        coarse, refined = torch.rand(2, 1, *hw, dtype=dtype), torch.rand(2, 1, *hw, dtype=dtype)
        gate = build_gate(GateConfig(kind=kind))(coarse, refined, Picture(grey=coarse[0, 0], num=2))
        assert gate.shape == coarse.shape
        assert gate.dtype == dtype
        assert apply_gate(coarse, refined, gate).isfinite().all()


@pytest.mark.parametrize("kind", list(GATES))
def test_every_gate_treats_items_one_by_one(kind: str) -> None:
    coarse = torch.cat([_disc(12.0), _disc(15.0, 4.0)])
    refined = torch.cat([_disc(15.0), _disc(11.0)])
    settings = {"kind": kind, "minimum": 0.1, "maximum": 0.9}
    together = _gate(coarse, refined, **settings)
    for item in range(2):
        part = slice(item, item + 1)
        alone = _gate(coarse[part], refined[part], **settings)
        torch.testing.assert_close(together[part], alone)


def test_a_closed_gate_returns_coarse_and_an_open_one_refined_exactly() -> None:
    coarse, refined = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    assert torch.equal(apply_gate(coarse, refined, torch.zeros_like(coarse)), coarse)
    assert torch.equal(apply_gate(coarse, refined, torch.ones_like(coarse)), refined)
    half = apply_gate(coarse, refined, torch.full_like(coarse, 0.5))
    torch.testing.assert_close(half, (coarse + refined) / 2)


def test_none_is_fully_open() -> None:
    coarse, refined = _disc(12.0), _disc(15.0)
    gate = _gate(coarse, refined, kind="none")
    assert torch.equal(apply_gate(coarse, refined, gate), refined)


def test_constant_is_its_maximum() -> None:
    gate = _gate(_disc(12.0), _disc(15.0), kind="constant", minimum=0.1, maximum=0.25)
    assert (gate == 0.25).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_uncertainty_has_its_closed_form(gamma: float) -> None:
    coarse = torch.linspace(0, 1, _SIDE**2).view(1, 1, _SIDE, _SIDE)
    gate = _gate(coarse, coarse, kind="uncertainty", minimum=0.1, maximum=0.8, gamma=gamma)
    for row, col in ((0, 0), (13, 40), (31, 60), (40, 2), (63, 63)):
        p = coarse[0, 0, row, col].item()
        expected = 0.1 + 0.7 * (1 - abs(2 * p - 1) ** gamma)
        assert gate[0, 0, row, col].item() == pytest.approx(expected, abs=1e-5)
    assert gate[0, 0, 0, 0] == pytest.approx(0.1)
    assert gate.max() <= 0.8


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_uncertainty_lets_a_mask_flip_only_undecided_pixels(answer: float) -> None:
    # With maximum 0.8 and gamma 1 the gate is 1.6 p below a half, and a certain answer of 1 gives
    # p + 1.6 p (1 - p) > 1/2, that is 1.6 p^2 - 2.6 p + 0.5 < 0: p > 0.2229; mirrored above.
    limit = (2.6 - (2.6**2 - 4 * 1.6 * 0.5) ** 0.5) / 3.2
    assert limit == pytest.approx(0.2229, abs=1e-4)
    coarse = torch.linspace(0.0005, 0.9995, _SIDE**2).view(1, 1, _SIDE, _SIDE)
    refined = torch.full_like(coarse, answer)
    gate = _gate(coarse, refined, kind="uncertainty", minimum=0.0, maximum=0.8, gamma=1.0)
    flipped = (apply_gate(coarse, refined, gate) > 0.5) != (coarse > 0.5)
    expected = (coarse > limit) & (coarse <= 0.5)
    if answer == 0:
        expected = (coarse > 0.5) & (coarse < 1 - limit)
    near_the_limit = ((coarse - 0.5).abs() - (0.5 - limit)).abs() < 1e-3
    assert torch.equal(flipped | near_the_limit, expected | near_the_limit)
    assert flipped.any()


def test_uncertainty_keeps_decided_pixels_whatever_the_answer() -> None:
    limit = (2.6 - (2.6**2 - 4 * 1.6 * 0.5) ** 0.5) / 3.2
    coarse = torch.linspace(0, 1, 1001)[:, None].expand(1, 1, 1001, 501)
    refined = torch.linspace(0, 1, 501).expand_as(coarse)
    blank = Picture(grey=torch.zeros(1001, 501))
    config = GateConfig(kind="uncertainty", minimum=0.0, maximum=0.8, gamma=1.0)
    gated = apply_gate(coarse, refined, build_gate(config)(coarse, refined, blank))
    can_flip = ((gated > 0.5) != (coarse > 0.5)).any(dim=-1)[0, 0]
    first, *_, last = can_flip.nonzero()[:, 0].tolist()
    assert first == pytest.approx(1000 * limit, abs=1)
    assert last == pytest.approx(1000 * (1 - limit), abs=1)
    assert can_flip[first : last + 1].all()


_EVIDENCE = {"kind": "evidence", "minimum": 0.1, "maximum": 0.9, "contrast_gain": 0.3}


def test_evidence_opens_when_the_refined_outline_sits_on_the_edge() -> None:
    on_edge, beside = _disc(15.0), _disc(15.0, 6.0)
    torch.testing.assert_close(_gate(beside, on_edge, **_EVIDENCE), torch.full_like(beside, 0.9))


def test_evidence_closes_when_the_coarse_outline_sits_on_the_edge() -> None:
    on_edge, beside = _disc(15.0), _disc(15.0, 6.0)
    torch.testing.assert_close(_gate(on_edge, beside, **_EVIDENCE), torch.full_like(beside, 0.1))


@pytest.mark.parametrize(("inside", "outside"), [(0.2, 0.8), (0.8, 0.2)], ids=["dark", "bright"])
def test_evidence_does_not_ask_for_dark_lesions(inside: float, outside: float) -> None:
    coarse, refined = _disc(15.0, 6.0), _disc(15.0)
    gate = build_gate(GateConfig(**_EVIDENCE))(coarse, refined, _picture(coarse, inside, outside))
    assert gate.min() == pytest.approx(0.9)


def test_evidence_is_proportional_in_between() -> None:
    coarse, refined = _disc(15.0, 2.0), _disc(15.0, 1.0)
    gates = [
        _gate(coarse, refined, **_EVIDENCE | {"contrast_gain": gain}).mean().item()
        for gain in (2.0, 4.0)
    ]
    opened = [(gate - 0.1) / 0.8 for gate in gates]
    assert 0 < opened[0] < 1
    assert opened[0] == pytest.approx(2 * opened[1], rel=1e-3)


def test_evidence_of_two_empty_maps_stays_closed() -> None:
    nothing = torch.zeros(1, 1, _SIDE, _SIDE)
    torch.testing.assert_close(_gate(nothing, nothing, **_EVIDENCE), torch.full_like(nothing, 0.1))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"minimum": 0.6, "maximum": 0.4}, "range"),
        ({"minimum": -0.1, "maximum": 0.4}, "range"),
        ({"minimum": 0.1, "maximum": 1.1}, "range"),
        ({"gamma": 0.0}, "gamma"),
        ({"contrast_gain": 0.0}, "contrast_gain"),
        ({"width": 0}, "width"),
        ({"initial": 0.0}, "initial"),
        ({"initial": 1.0}, "initial"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ConfigError, match=f"gate {name}: expected"):
        GateConfig(kind="constant", **settings)


def test_an_unknown_gate_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown gate 'evidense'.*Did you mean 'evidence'"):
        build_gate(GateConfig(kind="evidense"))

"""Gates with a network: size, start, gradients, and that they learn what no constant gate can."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sights import Picture
from torch import Tensor, nn

from ultrarefiner.refine.gate_network import GateNetwork
from ultrarefiner.refine.gates import GateConfig, apply_gate, build_gate

_LEARNING = ("learned", "hybrid")


def _maps(num: int = 2, side: int = 24, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Return random coarse and refined maps and a picture."""
    coarse, refined = torch.rand(2, num, 1, side, side, dtype=dtype)
    return coarse, refined, torch.rand(side, side, dtype=dtype)


def _gate(kind: str, coarse: Tensor, refined: Tensor, grey: Tensor) -> Tensor:
    gate = build_gate(GateConfig(kind=kind)).to(coarse.dtype)
    return gate(coarse, refined, Picture(grey=grey, num=len(coarse)))


@pytest.mark.parametrize("kind", _LEARNING)
def test_it_has_three_layers_and_about_three_thousand_parameters(kind: str) -> None:
    gate = build_gate(GateConfig(kind=kind))
    assert sum(isinstance(module, nn.Conv2d) for module in gate.modules()) == 3
    assert sum(parameter.numel() for parameter in gate.parameters()) == 3057


@pytest.mark.parametrize("initial", [0.1, 0.3, 0.5])
def test_it_starts_near_one_factor_everywhere(initial: float) -> None:
    coarse, refined, grey = _maps()
    factor = GateNetwork(initial=initial)(coarse, refined, grey.expand_as(coarse))
    assert (factor - initial).abs().max() < 0.03
    assert factor.std() > 0, "not blind"


def test_learned_scales_the_factor_and_hybrid_the_uncertainty_gate() -> None:
    coarse, refined, grey = _maps()
    factor = GateNetwork()(coarse, refined, Picture(grey=grey, num=2).grid_images()[0])
    torch.testing.assert_close(_gate("learned", coarse, refined, grey), 0.2 + 0.5 * factor)
    limit = _gate("uncertainty", coarse, refined, grey)
    hybrid = _gate("hybrid", coarse, refined, grey)
    torch.testing.assert_close(hybrid, limit * factor)
    assert (hybrid <= limit).all()


def test_the_seed_decides_and_the_global_state_is_not_touched() -> None:
    before = torch.get_rng_state()
    first, again, other = (GateNetwork(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])


@pytest.mark.parametrize("kind", _LEARNING)
def test_the_first_gradient_reaches_every_parameter(kind: str) -> None:
    coarse, refined, grey = _maps()
    gate = build_gate(GateConfig(kind=kind))
    opened = gate(coarse, refined, Picture(grey=grey, num=2))
    apply_gate(coarse, refined, opened).square().sum().backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", _LEARNING)
def test_gradients_are_exact(kind: str) -> None:
    coarse, refined, grey = _maps(num=1, side=5, dtype=torch.float64)
    coarse = (0.05 + 0.4 * coarse).requires_grad_()  # away from the kink at a half
    gate = build_gate(GateConfig(kind=kind, width=2)).double()
    picture = Picture(grey=grey)

    def blend(coarse: Tensor, refined: Tensor, *_: Tensor) -> Tensor:
        return apply_gate(coarse, refined, gate(coarse, refined, picture))

    inputs = (coarse, refined.requires_grad_(), *gate.parameters())
    assert torch.autograd.gradcheck(blend, inputs)


def test_autocast_does_not_round() -> None:
    coarse, refined, grey = _maps()
    network, image = GateNetwork(), grey.expand_as(coarse)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = network(coarse, refined, image)
    assert torch.equal(cast, network(coarse, refined, image))


@pytest.mark.parametrize("kind", [*_LEARNING, "uncertainty"])
def test_it_compiles_to_one_graph(kind: str) -> None:
    coarse, refined, grey = _maps()
    gate = build_gate(GateConfig(kind=kind))
    picture = Picture(grey=grey, num=2)
    compiled = torch.compile(gate, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(coarse, refined, picture), gate(coarse, refined, picture))


def _toy(num: int, side: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images, undecided coarse maps, refined maps and truths.

    Where the image is bright the refined map is right, where it is dark it is wrong.
    """
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(3, num, 1, 4, 4, generator=generator) > 0.5
    bright, truth, flip = (F.interpolate(patch.float(), side, mode="nearest") for patch in patches)
    refined = torch.where(bright > 0.5, truth, 1 - truth)
    coarse = 0.5 + 0.15 * (2 * truth - 1) * (2 * flip - 0.5)
    images = 0.8 * bright + 0.2 * torch.rand(bright.shape, generator=generator)
    return images, coarse, refined, truth


class _Album:
    """Another picture for each map."""

    def __init__(self, images: Tensor):
        self.images = images

    def grid_images(self) -> tuple[Tensor, Tensor]:
        return self.images, torch.ones_like(self.images)


@pytest.mark.parametrize("kind", _LEARNING)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trained_alone_it_beats_every_constant_gate(kind: str, seed: int) -> None:
    images, coarse, refined, truth = _toy(num=24)
    train, test = slice(0, 16), slice(16, 24)
    gate = build_gate(GateConfig(kind=kind, minimum=0.0, maximum=1.0, seed=seed))
    optimiser = torch.optim.Adam(gate.parameters(), lr=0.01)

    def loss(opened: Tensor, part: slice) -> Tensor:
        gated = apply_gate(coarse[part], refined[part], opened)
        return F.binary_cross_entropy(gated.clamp(1e-4, 1 - 1e-4), truth[part])

    def opened(part: slice) -> Tensor:
        return gate(coarse[part], refined[part], _Album(images[part]))

    for _ in range(150):
        optimiser.zero_grad()
        loss(opened(train), train).backward()
        optimiser.step()
    constant = min(
        loss(torch.full_like(coarse[test], value), test) for value in torch.linspace(0, 1, 21)
    )
    with torch.no_grad():
        maps = opened(test)
        assert loss(maps, test) < 0.75 * constant
    bright = images[test] > 0.5
    assert maps[bright].mean() > maps[~bright].mean() + 0.3

"""Phase 3: the gradient through the prompts, and what protects the coarse network from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trained_parts import Logged, changed, copy_state, phantom_batch

from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.losses import JOINT_LOSSES
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.recipe import Phase3Config, trainable_refiner
from ultrarefiner.training.refinement_data import RefinementBatch, scene_of
from ultrarefiner.training.tuning import training_pipeline


@pytest.fixture(scope="module")
def batch(manifest: Path) -> RefinementBatch:
    """Two images whose masks are the coarse network's own."""
    return phantom_batch(manifest, given_share=0.0)


class AtEpoch(JointModule):
    """The module in a given epoch; a loop of Lightning's is not needed here."""

    number = 1

    @property
    def current_epoch(self) -> int:  # type: ignore[override]
        return self.number


def module_of(*, epoch: int = 1, gate: str = "none", **settings: Any) -> JointModule:
    network = load_refiner("busbra-lite").network
    refiner = replace(trainable_refiner(), gate=GateConfig(kind=gate))
    pipeline = training_pipeline(FOUNDATION_MODELS["lite-medsam"](), refiner)
    config = Phase3Config(**({"frozen_epochs": 1, "epochs": 3} | settings))
    module = AtEpoch(network, pipeline, config, trainable="decoder")
    module.number = epoch
    Logged(module)
    module.on_train_epoch_start()
    return module


def gradient(module: JointModule, batch: RefinementBatch) -> Tensor:
    """Return the gradient of the coarse network's parameters as one vector."""
    module.on_train_epoch_start()  # seeds what is random in the network
    module.zero_grad()
    torch.autograd.backward(module.training_step(batch, 0))
    return _vector(module)


def coarse_only(module: JointModule, batch: RefinementBatch) -> Tensor:
    """Return the gradient of the weighted coarse loss and the anchor alone."""
    module.on_train_epoch_start()
    module.zero_grad()
    loss = module.config.loss
    logits, _ = module.predict_coarse(batch)
    terms = loss.coarse_weight * loss.coarse(logits, batch["classes"]).mean()
    torch.autograd.backward(terms)
    return _vector(module)


def _vector(module: JointModule) -> Tensor:
    parts = [
        torch.zeros_like(value) if value.grad is None else value.grad
        for value in module.network.parameters()
    ]
    return torch.cat([part.flatten() for part in parts])


def test_a_closed_interface_leaves_the_coarse_gradient_alone(batch: RefinementBatch) -> None:
    """Exactly: bit by bit. An open one adds to it; half open adds half."""
    closed = gradient(module_of(interface_scale=0.0), batch)
    half = gradient(module_of(interface_scale=0.5), batch)
    whole = gradient(module_of(interface_scale=1.0), batch)
    own = coarse_only(module_of(), batch)
    assert torch.equal(closed, own)
    assert (whole - own).norm() > 1e-6 * own.norm()
    torch.testing.assert_close(half - own, 0.5 * (whole - own), atol=1e-7, rtol=2e-3)


def test_an_open_interface_gives_the_full_gradient(batch: RefinementBatch) -> None:
    """That of autograd through the pipeline, written out without the interface."""
    module = module_of(interface_scale=1.0)
    found = gradient(module, batch)
    module.on_train_epoch_start()
    module.zero_grad()
    logits, probs = module.predict_coarse(batch)
    refinement = module.pipeline(scene_of(batch, probs))
    loss, target = module.config.loss, batch["truth"]
    total = loss.coarse_weight * loss.coarse(logits, batch["classes"]) + (
        loss.refined_weight * loss.refined(target, logits=refinement.selected.logits)
    )
    torch.autograd.backward(total.mean())
    expected = _vector(module)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-4)


def test_with_adamw_the_interface_matters_and_a_scaled_gradient_does_not(
    batch: RefinementBatch,
) -> None:
    """Adam divides by the size of the gradient: only what is added to another one has a say."""

    def stepped(scale: float, *, parameter_scale: float = 1.0) -> Tensor:
        module = module_of(interface_scale=scale)
        optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-3, eps=1e-20)
        gradient(module, batch)
        for value in module.network.parameters():
            if value.grad is not None:
                value.grad *= parameter_scale
        optimizer.step()
        return torch.cat([value.detach().flatten() for value in module.network.parameters()])

    whole = stepped(1.0)
    assert (stepped(0.1) - whole).abs().max() > 1e-5
    torch.testing.assert_close(stepped(1.0, parameter_scale=0.125), whole, atol=1e-9, rtol=1e-6)


def test_given_masks_give_the_coarse_network_no_gradient(manifest: Path) -> None:
    given = phantom_batch(manifest, given_share=1.0)
    module = module_of(interface_scale=1.0)
    assert torch.equal(gradient(module, given), coarse_only(module_of(), given))


def test_frozen_epochs_leave_the_coarse_network_bitwise_as_it_was(batch: RefinementBatch) -> None:
    """Its moments too; the decoder learns meanwhile."""
    module = module_of(epoch=0)
    assert module.is_frozen
    assert not any(part.training for part in module.network.modules())
    before, decoder = copy_state(module.network), copy_state(module.pipeline.foundation)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)
    torch.autograd.backward(module.training_step(batch, 0))
    optimizer.step()
    assert changed(module.network, before) == set()
    assert {name.partition(".")[0] for name in changed(module.pipeline.foundation, decoder)} == {
        "mask_decoder"
    }


def test_after_them_it_learns_but_keeps_its_moments(batch: RefinementBatch) -> None:
    module = module_of(epoch=1)
    before = copy_state(module.network)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    torch.autograd.backward(module.training_step(batch, 0))
    optimizer.step()
    moved = changed(module.network, before)
    assert moved
    assert not any("running" in name or "num_batches" in name for name in moved)


def test_the_anchor_pulls_back_to_phase_1(batch: RefinementBatch) -> None:
    """Its gradient is 2 w (theta - theta_1), by the closed form."""
    loss = replace(JOINT_LOSSES["refine"], anchor_weight=0.3, anchor_reduction="sum")
    module = module_of(loss=loss, interface_scale=0.0)
    start = {name: value.detach().clone() for name, value in module.network.named_parameters()}
    with torch.no_grad():
        for value in module.network.parameters():
            value += 1e-4
    moved = gradient(module, batch)
    free = coarse_only(module, batch)
    expected = torch.cat(
        [
            0.6 * (value.detach() - start[name]).flatten()
            for name, value in module.network.named_parameters()
        ]
    )
    torch.testing.assert_close(moved - free, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("gate", ["learned", "hybrid"])
def test_gates_that_learn_are_trained(gate: str, batch: RefinementBatch) -> None:
    module = module_of(gate=gate)
    assert not module.takes_logits
    before = copy_state(module.pipeline.gate)
    optimizer = torch.optim.AdamW(module.pipeline.gate.parameters(), lr=1e-2)
    torch.autograd.backward(module.training_step(batch, 0))
    optimizer.step()
    assert changed(module.pipeline.gate, before) == set(before)


def test_other_lesions_of_a_map_are_not_held_against_it(batch: RefinementBatch) -> None:
    """The answer is about one lesion: the loss must not push the map down where another one is."""
    module = module_of(gate="constant")  # through which the coarse map shows
    coarse = torch.full_like(batch["prompt"], 0.01)
    coarse[..., 40:100, 30:90], coarse[..., 120:140, 120:140] = 0.9, 0.8
    two: Any = batch | {
        "truth": (coarse > 0.5).float(),
        "prompt": coarse.requires_grad_(),
        "is_given": torch.tensor([True, True]),
    }
    torch.autograd.backward(module.training_step(two, 0))
    assert coarse.grad is not None
    assert coarse.grad[..., 40:100, 30:90].any()
    assert not coarse.grad[..., 120:140, 120:140].any()


def test_the_coarse_map_is_zero_in_the_padding(batch: RefinementBatch) -> None:
    module = module_of()
    _, probs = module.predict_coarse(batch)
    assert probs.shape == batch["images"].shape
    for index, (rows, cols) in enumerate(batch["content_hw"].tolist()):
        assert not probs[index, :, rows:].any()
        assert not probs[index, :, :, cols:].any()
        assert probs[index, :, :rows, :cols].min() > 0


def test_rates_are_those_of_each_part() -> None:
    module = module_of(gate="learned")

    class Steps:
        estimated_stepping_batches = 10

    module._trainer = Steps()  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    config = module.config
    highest = [group["initial_lr"] for group in optimizer.param_groups]
    assert highest == [config.coarse_learning_rate, config.learning_rate, config.gate_learning_rate]
    module._trainer = None

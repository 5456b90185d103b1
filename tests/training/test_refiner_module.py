"""Phase 2: what is trained, what is not, and which loss it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trained_parts import Logged, changed, copy_state, phantom_batch

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FOUNDATION_MODELS, LiteMedSAM
from ultrarefiner.losses import REFINER_LOSSES
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.training.engine.fitting import Hardware
from ultrarefiner.training.judging import judge, mask_dice
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.recipe import Phase2Config, TrainingRecipe, trainable_refiner
from ultrarefiner.training.refinement_data import RefinementBatch
from ultrarefiner.training.refiner_module import RefinerModule
from ultrarefiner.training.targets import truth_of_lesions
from ultrarefiner.training.tuning import TUNINGS, training_pipeline, tune, tuned_parameters


@pytest.fixture(scope="module")
def batch(manifest: Path) -> RefinementBatch:
    return phantom_batch(manifest)


def module_of(
    trainable: str = "decoder", *, loss: str = "quality", gate: str = "none"
) -> RefinerModule:
    settings = replace(
        trainable_refiner(),
        gate=GateConfig(kind=gate),
        prompts=PromptConfig(jitter=0, mask="direct"),
    )
    pipeline = training_pipeline(FOUNDATION_MODELS["lite-medsam"](), settings)
    config = Phase2Config(loss=REFINER_LOSSES[loss])
    module = RefinerModule(pipeline, config, trainable=trainable)
    Logged(module)
    return module


def step(module: RefinerModule, batch: RefinementBatch) -> None:
    trained = [value for value in module.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    torch.autograd.backward(module.training_step(batch, 0))
    optimizer.step()


@pytest.mark.parametrize("trainable", ["decoder", "decoder+prompt", "decoder+prompt+tail"])
def test_what_is_frozen_stays_bitwise_as_it_was(trainable: str, batch: RefinementBatch) -> None:
    """Parameters and buffers; and of what is trained, all but the IoU head moves."""
    module = module_of(trainable, gate="learned")
    module.train()  # as Lightning or a user may call it
    before = copy_state(module)
    if "tail" in trainable:
        batch = {name: value for name, value in batch.items() if name != "embeddings"}  # type: ignore[assignment]
    step(module, batch)
    moved = {name.removeprefix("pipeline.foundation.") for name in changed(module, before)}
    parts = {name.partition(".")[0] for name in moved}
    expected = {"decoder": "mask_decoder", "prompt": "prompt_encoder", "tail": "image_encoder"}
    assert parts == {expected[name] for name in trainable.split("+")}
    late = ("image_encoder.layers.2", "image_encoder.layers.3", "image_encoder.neck")
    assert all(name.startswith(late) for name in moved if name.startswith("image_encoder"))
    decoder = {name for name, _ in module.pipeline.foundation.mask_decoder.named_parameters()}
    still = decoder - {name.removeprefix("mask_decoder.") for name in moved}
    # Of four mask tokens one is used, the IoU head has no loss here, and a softmax over keys does
    # not feel what is added to all of them.
    known = ("iou", "hypernetwork", "k_proj.bias")
    assert not [name for name in still if not any(part in name for part in known)]


def test_all_is_all() -> None:
    model = LiteMedSAM()
    tune(model, "all")
    assert all(value.requires_grad for value in model.parameters())
    encoder, others = tuned_parameters(model)
    assert {*map(id, encoder)} == {*map(id, model.image_encoder.parameters())}
    assert len(encoder) + len(others) == len(list(model.parameters()))


@pytest.mark.parametrize("trainable", TUNINGS)
def test_embeddings_are_cached_where_the_encoder_stays_as_it_was(trainable: str) -> None:
    model = LiteMedSAM()
    tune(model, trainable)
    encoder, _ = tuned_parameters(model)
    assert TrainingRecipe(trainable=trainable).encodes_in_training == bool(encoder)  # type: ignore[arg-type]


def test_the_loss_is_that_of_the_selected_logits(batch: RefinementBatch) -> None:
    module = module_of()
    with torch.no_grad():
        refinement = module.refine(batch)
        expected = module.config.loss(
            refinement.selected.logits, batch["truth"], batch["prompt"]
        ).total.mean()
        assert torch.equal(module.training_step(batch, 0), expected)


def test_the_advanced_loss_teaches_the_iou_head(batch: RefinementBatch) -> None:
    module = module_of(loss="advanced")
    head = module.pipeline.foundation.mask_decoder.get_submodule("iou_prediction_head")
    torch.autograd.backward(module.training_step(batch, 0))
    assert any(value.grad is not None and value.grad.any() for value in head.parameters())


def test_training_lowers_the_loss(batch: RefinementBatch) -> None:
    module = module_of()
    trained = [value for value in module.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    losses = []
    for _ in range(6):
        loss = module.training_step(batch, 0)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_judging_counts_each_image_once(manifest: Path) -> None:
    """Batches of two and of one weigh by their images."""
    module, whole = module_of(), phantom_batch(manifest, 3)
    options = RunOptions(hardware=Hardware(device="cpu"))
    parts = [_rows(whole, slice(0, 2)), _rows(whole, slice(2, 3))]
    one, several = judge(module, [whole], options), judge(module, parts, options)
    assert several.num_images == one.num_images == 3
    assert several.dsc == pytest.approx(one.dsc, abs=2e-3)  # bfloat16 in batches of other sizes
    assert several.coarse_dsc == pytest.approx(one.coarse_dsc, abs=1e-6)
    with torch.no_grad():
        lesions = module.refine(whole).lesions
    expected = mask_dice(lesions.probs, truth_of_lesions(whole["truth"], lesions)).mean()
    assert one.coarse_dsc == pytest.approx(float(expected), abs=1e-6)


def test_judging_leaves_the_module_ready_to_be_trained(batch: RefinementBatch) -> None:
    module = module_of()
    judge(module, [batch], RunOptions(hardware=Hardware(device="cpu")))
    foundation = module.pipeline.foundation
    assert all(part.training for part in foundation.mask_decoder.modules())
    assert not any(part.training for part in foundation.image_encoder.modules())


def test_dice_of_masks_by_hand() -> None:
    probs = torch.zeros(3, 1, 4, 4)
    truth = torch.zeros(3, 1, 4, 4)
    probs[0, 0, 0], truth[0, 0, :, 0] = 0.9, 1.0  # a row and a column share one of seven
    truth[1, 0, 0, 0] = 1.0
    assert mask_dice(probs, truth).tolist() == pytest.approx([2 / 8, 0.0, 1.0])


def test_an_unknown_choice_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"decoder, decoder\+prompt.*found adapter"):
        module_of("adapter")


def _rows(batch: RefinementBatch, rows: slice) -> RefinementBatch:
    part: RefinementBatch = {name: value[rows] for name, value in batch.items()}  # type: ignore
    return part

"""Phases 2 and 3 with the last part of the image encoder trained: nothing is cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from few_patients import FewRun, few_of, learned_in, one_step_recipe, run_few

from ultrarefiner.data.readers import read_image
from ultrarefiner.foundation import lite_medsam
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.refine.gates import ConstantGate, GateConfig
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.training.model_card import model_card
from ultrarefiner.training.recipe import TrainingRecipe, trainable_refiner

TRAINED = {"mask_decoder", "prompt_encoder", "image_encoder"}


@pytest.fixture(scope="module")
def run(nano: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> FewRun:
    folder = tmp_path_factory.mktemp("tail")
    refiner = replace(
        trainable_refiner(),
        prompts=PromptConfig(jitter=0.0, mask="direct"),
        gate=GateConfig(kind="constant", maximum=0.5),
    )
    recipe = replace(one_step_recipe(nano), refiner=refiner, trainable="decoder+prompt+tail")
    varied: dict[str, Any] = {
        "gated": False,
        "unasked_share": 0.3,
        "shape_share": 0.5,
        "grey_share": 0.5,
    }
    recipe = replace(
        recipe, phase2=replace(recipe.phase2, **varied), phase3=replace(recipe.phase3, **varied)
    )
    return run_few(recipe, few_of(manifest, folder / "few.csv"), folder / "run")


def test_the_encoder_learns_in_both_phases(run: FewRun) -> None:
    assert not (run.folder.parent / "embeddings").exists()
    assert learned_in(run, 2) == TRAINED
    assert learned_in(run, 3) == TRAINED | {"network"}


def test_each_part_has_its_rate(run: FewRun) -> None:
    state = torch.load(run.folder / "phase2" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = state["optimizers"][0]["param_groups"]
    config = run.recipe.phase2
    assert {group["name"]: group["initial_lr"] for group in groups} == {
        "refiner": config.learning_rate,
        "encoder": config.encoder_learning_rate,
    }


def test_a_gate_that_training_left_out_acts_in_prediction(run: FewRun) -> None:
    for name in ("refiner", "joint"):
        found = load_refiner(run.folder / f"{name}.safetensors")
        assert found.config.gate == run.recipe.refiner.gate
        assert isinstance(found.refiner(device="cpu").pipeline.gate, ConstantGate)


def test_the_checkpoint_brings_its_encoder(run: FewRun) -> None:
    found = load_refiner(run.folder)
    published, model = lite_medsam().state_dict(), found.foundation.state_dict()
    moved = {name for name, value in model.items() if not value.equal(published[name])}
    late = ("image_encoder.layers.2", "image_encoder.layers.3", "image_encoder.neck")
    encoder = {name for name in moved if name.startswith("image_encoder")}
    assert encoder
    assert all(name.startswith(late) for name in encoder)
    image = read_image(run.held_out.image)
    card = model_card("tail", run.folder / "joint.safetensors", found, None)
    assert "decoder and prompt encoder, tail of the image encoder" in card
    result = found.refiner(device="cpu")(image, (image > 0.5).astype("float32"))
    assert result.probs.shape == image.shape

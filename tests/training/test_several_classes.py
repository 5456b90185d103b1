"""A coarse network of several classes through all phases: any class but the first is lesion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from few_patients import FewRun, few_of, learned_in, one_step_recipe, run_few
from PIL import Image

from ultrarefiner.cli import main
from ultrarefiner.coarse import CoarsePredictor, load_checkpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.training.recipe import TrainingRecipe, trainable_refiner


def label_rim_and_core(record: Record, folder: Path) -> Record:
    """Give a lesion two classes: 1 for its rim, 2 for what is inside."""
    assert record.mask is not None
    lesion = (read_coarse(record.mask).values > 0.5).astype(np.uint8)
    labels = lesion + cv2.erode(lesion, np.ones((9, 9), np.uint8))
    assert set(np.unique(labels)) == {0, 1, 2}
    path = folder / record.mask.name
    Image.fromarray(labels).save(path)
    return replace(record, mask=path)


@pytest.fixture(scope="module")
def run(nano: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> FewRun:
    folder = tmp_path_factory.mktemp("classes")
    (folder / "labels").mkdir()
    labelled = few_of(
        manifest, folder / "few.csv", lambda r: label_rim_and_core(r, folder / "labels")
    )
    recipe = replace(
        one_step_recipe(nano),
        network=replace(nano.network, num_classes=3),
        refiner=replace(trainable_refiner(), prompts=PromptConfig(jitter=0.0, mask="direct")),
    )
    return run_few(recipe, labelled, folder / "run")


def test_every_phase_keeps_the_classes_and_both_networks_learn(run: FewRun) -> None:
    coarse = load_checkpoint(run.folder / "coarse.safetensors").network
    refiner, joint = (load_refiner(run.folder / f"{n}.safetensors") for n in ("refiner", "joint"))
    for network in (coarse, refiner.network, joint.network):
        assert network.config.num_classes == 3
    assert learned_in(run, 2) == {"mask_decoder"}
    assert learned_in(run, 3) == {"mask_decoder", "network"}


def test_what_is_refined_is_any_of_the_lesion_s_classes(run: FewRun, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / "one.png"
    image.write_bytes(run.held_out.image.read_bytes())
    source = ["--checkpoint", str(run.folder), "--images", str(image.parent), "--device", "cpu"]
    options = ["--options.save_probabilities", "true"]
    assert main(["predict", *source, "--out", str(tmp_path / "out"), *options]) == 0
    network = load_refiner(run.folder).network
    probs = CoarsePredictor([network], device="cpu").predict_classes([read_image(image)])[0]
    assert probs.shape[0] == 3
    coarse = np.load(tmp_path / "out" / "coarse_probabilities" / "one.npy")
    np.testing.assert_allclose(coarse, probs[1:].sum(axis=0), atol=1e-5)
    with Image.open(tmp_path / "out" / "masks" / "one.png") as mask:
        assert np.asarray(mask).shape == coarse.shape
        assert set(np.unique(mask)) <= {0, 255}

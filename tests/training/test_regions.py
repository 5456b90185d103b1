"""Phases 2 and 3 with a region of interest: what the model sees follows the mask."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from few_patients import FewRun, few_of, learned_in, one_step_recipe, run_few
from PIL import Image
from torch import Tensor

from ultrarefiner.cli import main
from ultrarefiner.data.readers import read_image
from ultrarefiner.foundation import LiteMedSAM
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.training.recipe import TrainingRecipe, trainable_refiner

ROI = RoiConfig(crop=True, expand=0.2, min_side_px=32.0)


@pytest.fixture(scope="module")
def encoded() -> Iterator[list[int]]:
    """How many views each call of the encoder got."""
    calls: list[int] = []
    encode = LiteMedSAM.encode

    def counting(self: LiteMedSAM, images: Tensor) -> Tensor:
        calls.append(len(images))
        return encode(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiteMedSAM, "encode", counting)
        yield calls


@pytest.fixture(scope="module")
def run(
    nano: TrainingRecipe,
    manifest: Path,
    encoded: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> FewRun:
    folder = tmp_path_factory.mktemp("regions")
    refiner = replace(trainable_refiner(), roi=ROI)
    recipe = replace(one_step_recipe(nano), refiner=refiner)
    found = run_few(recipe, few_of(manifest, folder / "few.csv"), folder / "run")
    # In each phase: an image judged before, two learned from, one validated, one judged after.
    assert encoded == [1, 2, 1, 1] * 2
    return found


def test_nothing_is_cached_and_both_networks_learn_from_the_pasted_crop(run: FewRun) -> None:
    assert not (run.folder.parent / "embeddings").exists()
    assert learned_in(run, 2) == {"mask_decoder"}
    assert learned_in(run, 3) == {"mask_decoder", "network"}


def test_the_checkpoint_looks_where_it_was_trained_to(run: FewRun) -> None:
    """Beyond the window around a small lesion the given map stays as it is."""
    found = load_refiner(run.folder)
    assert found.config == run.recipe.refiner
    assert found.config.roi == ROI
    image = read_image(run.held_out.image)
    y, x = np.indices(image.shape)
    distance = np.hypot(y - 40, x - 50)
    coarse = np.where(distance < 9, 0.9, 0.1).astype(np.float32)
    result = found.refiner(device="cpu")(image, coarse)
    far = distance > 45
    np.testing.assert_allclose(result.probs[far], coarse[far], atol=1e-3)
    assert np.abs(result.probs - coarse)[~far].max() > 0.1


def test_it_predicts_from_the_command_line(run: FewRun, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(run.held_out.image, tmp_path / "images")
    trained = ["--checkpoint", str(run.folder), "--device", "cpu"]
    out = tmp_path / "out"
    assert main(["predict", *trained, "--images", str(tmp_path / "images"), "--out", str(out)]) == 0
    name = run.held_out.image.name
    with Image.open(out / "masks" / name) as mask, Image.open(run.held_out.image) as image:
        assert mask.size == image.size

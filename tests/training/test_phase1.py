"""Phase 1 on phantoms: it learns, holds out what it says, and refuses leaks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ultrarefiner.coarse import CoarsePredictor, load_checkpoint
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.training.coarse_data import CoarseData
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.engine.loaders import EpochSampler
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase1 import prepare_coarse, train_coarse
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import split_for_training
from ultrarefiner.weights import file_sha256


def train(
    recipe: TrainingRecipe, manifest: Path, out: Path, *, fold: str | None = "3", **options: Any
) -> Path:
    """Train with a fold held out, and return the folder."""
    split = split_for_training(manifest, recipe, fold=fold)
    options = {"hardware": Hardware(device="cpu"), **options}
    return train_coarse(recipe, split, out, RunOptions(**options)).parent


@pytest.fixture(scope="module")
def finished(
    nano: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    said: list[str] = []
    folder = tmp_path_factory.mktemp("run") / "fold-3"
    train(nano, manifest, folder, command="train", say=said.append)
    return folder, said


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "log" / "metrics.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)]


def test_what_a_run_leaves(finished: tuple[Path, list[str]], manifest: Path) -> None:
    folder, said = finished
    assert len(logged(folder, "train_loss")) == len(logged(folder, "val_dsc")) == 2
    card = json.loads((folder / "run.json").read_text())
    assert card["val_dsc"] == pytest.approx(max(logged(folder, "val_dsc")), abs=1e-4)
    stored = dict(load_checkpoint(folder).card)
    assert stored.items() <= card.items()
    assert card["held_out_fold"] == "3"
    assert card["recipe"]["phase1"]["epochs"] == 2
    assert 0 <= card["loader_wait_share"] < 1
    used = [record for record in read_manifest(manifest) if record.fold != "3"]
    assert set(card["image_digests"]) == {file_sha256(r.image)[:16] for r in used}
    assert card["num_train"] + card["num_val"] == len(used)
    assert len(card["patient_digests"]) == len({record.patient for record in used})
    assert any("s a step" in line and "GiB" in line for line in said)
    assert any("waiting for images" in line for line in said)


def test_the_checkpoint_is_the_best_average(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["val_dsc"] == pytest.approx(max(logged(folder, "val_dsc")), abs=1e-9)
    for key, value in load_checkpoint(folder).network.state_dict().items():
        kept = best["state_dict"][f"network.{key}"]
        torch.testing.assert_close(value, kept, rtol=2**-8, atol=0)  # matrices in bfloat16


def test_it_learns(manifest: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    """A few steps on bright-rimmed dark lesions bring the loss well down."""
    recipe = replace(nano, phase1=replace(nano.phase1, epochs=18, batch_size=2, ema_decay=0.8))
    losses = logged(train(recipe, manifest, tmp_path), "train_loss")
    assert losses[-1] < 0.75 * losses[0]


def test_nothing_or_something_else_to_resume(
    finished: tuple[Path, list[str]], manifest: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(nano, manifest, tmp_path, resume=True)
    before = (finished[0] / "coarse.safetensors").read_bytes()
    with pytest.raises(InputError, match="cannot resume"):
        train(replace(nano, seed=1), manifest, finished[0], resume=True)
    assert (finished[0] / "coarse.safetensors").read_bytes() == before


def test_settings_of_other_phases_may_change(
    finished: tuple[Path, list[str]], manifest: Path, nano: TrainingRecipe
) -> None:
    """A finished phase 1 is resumed at once, to the same file: later phases depend on it."""
    before = (finished[0] / "coarse.safetensors").read_bytes()
    recipe = replace(nano, phase2=replace(nano.phase2, epochs=99), num_workers=1)
    train(recipe, manifest, finished[0], resume=True)
    assert (finished[0] / "coarse.safetensors").read_bytes() == before


def test_preparing_writes_nothing(manifest: Path, nano: TrainingRecipe) -> None:
    said: list[str] = []
    split = split_for_training(manifest, nano, fold="3")
    options = RunOptions(hardware=Hardware(device="cpu"), say=said.append)
    module, data = prepare_coarse(nano, split, options)
    assert "s a step" in said[0]
    assert module.network.config == nano.network
    assert len(data.train) == len(split.train)


def test_batches_name_their_images(manifest: Path, nano: TrainingRecipe) -> None:
    split = split_for_training(manifest, nano, fold="3")
    data = CoarseData(split.train, split.val, nano)
    names = [record.image.name for record in split.train]
    batch = next(iter(data.train_dataloader()))
    assert len(batch["names"]) == len(batch["image"]) == 4
    sampler = EpochSampler(len(names), nano.seed)
    assert batch["names"] == [names[index] for _, index in sampler][:4]
    assert [n for b in data.val_dataloader() for n in b["names"]] == [
        record.image.name for record in split.val
    ]


def test_a_bad_label_is_met_before_anything_is_written(
    manifest: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """Masks of 0 and 255 are no map of three classes."""
    recipe = replace(nano, network=replace(nano.network, num_classes=3))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"labels 0 to 2, found 2 axes, labels up to 255"):
        train(recipe, manifest, out)
    assert not out.exists()


def test_the_three_sets_share_no_patient(manifest: Path, nano: TrainingRecipe) -> None:
    for fold in ("1", "2", "3"):
        split = split_for_training(manifest, nano, fold=fold)
        sets = [split.train, split.val, split.held_out]
        patients = [{record.patient for record in part} for part in sets]
        assert all(patients)
        assert sum(map(len, patients)) == len(set.union(*patients)) == 12
        assert {record.fold for record in split.held_out} == {fold}


def test_images_without_a_patient_are_not_one_patient(
    manifest: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    path = tmp_path / "m.csv"
    write_manifest(path, tuple(replace(r, patient="") for r in read_manifest(manifest)))
    said = split_for_training(path, nano, fold="3").describe()
    assert "6 images of 6 patients" in said
    assert "4 images of 4 patients held out" in said


def test_a_share_of_the_patients(manifest: Path, nano: TrainingRecipe) -> None:
    full = split_for_training(manifest, nano, fold="3")
    half = split_for_training(manifest, replace(nano, patient_share=0.5), fold="3")
    assert half.held_out == full.held_out
    assert len(half.train) + len(half.val) == 4
    assert half.fingerprint != full.fingerprint


@pytest.mark.parametrize("kind", ["patient", "picture"])
def test_leaks_are_refused(manifest: Path, nano: TrainingRecipe, tmp_path: Path, kind: str) -> None:
    """One patient, or one picture under another name, on both sides of the outer split."""
    records = list(read_manifest(manifest))
    inside = next(record for record in records if record.fold == "1")
    outside = next(index for index, record in enumerate(records) if record.fold == "3")
    if kind == "patient":
        records[outside] = replace(records[outside], patient=inside.patient)
        other = records[outside].image.name
    else:
        copy = tmp_path / "copy.png"
        copy.write_bytes(inside.image.read_bytes())
        records[outside] = replace(records[outside], image=copy, mask=inside.mask)
        other = copy.name
    leaky = tmp_path / "leaky.csv"
    write_manifest(leaky, tuple(records))
    with pytest.raises(LeakError) as refusal:
        split_for_training(leaky, nano, fold="3")
    assert other in str(refusal.value)
    assert inside.image.name in str(refusal.value) or kind == "patient"


@pytest.mark.parametrize("fold", [None, "3"])
def test_a_patient_of_the_test_split_is_not_trained_on(
    manifest: Path, nano: TrainingRecipe, tmp_path: Path, fold: str | None
) -> None:
    records = list(read_manifest(manifest))
    inside, test = [index for index, record in enumerate(records) if record.fold == "1"][:2]
    records[test] = replace(records[test], fold="", split="test", patient=records[inside].patient)
    path = tmp_path / "m.csv"
    write_manifest(path, tuple(records))
    with pytest.raises(LeakError, match="--drop-leaks"):
        split_for_training(path, nano, fold=fold)
    split = split_for_training(path, nano, fold=fold, drop_leaks=True)
    used = {record.patient for record in (*split.train, *split.val)}
    assert records[inside].patient not in used
    assert len(split.notes) == 1


def test_the_checkpoint_segments(finished: tuple[Path, list[str]], manifest: Path) -> None:
    predictor = CoarsePredictor([load_checkpoint(finished[0]).network], device="cpu")
    record = read_manifest(manifest)[0]
    image = read_image(record.image)
    assert record.mask is not None
    probs, truth = predictor(image), read_coarse(record.mask).values
    assert probs.shape == truth.shape
    assert np.isfinite(probs).all()


def test_bf16_training_follows_float32(
    manifest: Path, nano: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss curve of both formats agrees where each step is the same step."""
    losses = {}
    for bf16 in (False, True):
        monkeypatch.setattr(
            "ultrarefiner.training.engine.hardware.bf16_is_fast", lambda _, b=bf16: b
        )
        losses[bf16] = logged(train(nano, manifest, tmp_path / str(bf16)), "train_loss")
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.03)

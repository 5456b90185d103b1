"""Phase 1 on phantoms: it learns, resumes exactly, holds out what it says, and refuses leaks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ultrarefiner.coarse import CoarsePredictor, load_checkpoint
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.training.coarse_module import CoarseModule
from ultrarefiner.training.phase1 import TrainedCoarse, train_coarse
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import split_for_training
from ultrarefiner.weights import file_sha256


@pytest.fixture(scope="module")
def finished(
    nano: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainedCoarse, list[str]]:
    out, said = tmp_path_factory.mktemp("run"), list[str]()
    result = train_coarse(
        nano, manifest, out, fold="3", device="cpu", command="train", say=said.append
    )
    return out / "fold-3", result, said


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "log" / "metrics.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)]


def test_what_a_run_leaves(finished: tuple[Path, TrainedCoarse, list[str]], manifest: Path) -> None:
    folder, result, said = finished
    assert result.checkpoint == folder / "coarse.safetensors"
    assert len(logged(folder, "train_loss")) == len(logged(folder, "val_dsc")) == 2
    assert result.val_dsc == pytest.approx(max(logged(folder, "val_dsc")), abs=1e-6)
    card = json.loads((folder / "run.json").read_text())
    stored = dict(load_checkpoint(folder).card)
    assert stored.items() <= card.items()
    assert card["held_out_fold"] == "3"
    assert card["recipe"]["phase1"]["epochs"] == 2
    assert 0 <= card["loader_wait_share"] < 1
    used = {
        file_sha256(record.image)[:16] for record in read_manifest(manifest) if record.fold != "3"
    }
    assert set(card["image_digests"]) == used
    assert card["num_train"] + card["num_val"] == len(used)
    assert any("s a step" in line and "GiB" in line for line in said)
    assert any("waiting for images" in line for line in said)


def test_it_learns(manifest: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    """A few steps on bright-rimmed dark lesions bring the loss well down."""
    recipe = replace(nano, phase1=replace(nano.phase1, epochs=12, batch_size=2, ema_decay=0.8))
    train_coarse(recipe, manifest, tmp_path, fold="3", device="cpu")
    losses = logged(tmp_path / "fold-3", "train_loss")
    assert losses[-1] < 0.75 * losses[0]


def test_resuming_goes_on_from_the_last_epoch(
    finished: tuple[Path, TrainedCoarse, list[str]],
    manifest: Path,
    nano: TrainingRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in the second epoch and resumed: the same best weights, nearly the same newest."""
    step, calls = CoarseModule.training_step, []

    def stop_at_third(self: CoarseModule, batch: object, index: int) -> torch.Tensor:
        calls.append(index)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CoarseModule, "training_step", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            train_coarse(nano, manifest, tmp_path, fold="3", device="cpu")
    assert not (tmp_path / "fold-3" / "coarse.safetensors").exists()
    other = replace(nano, seed=1)
    with pytest.raises(InputError, match="cannot resume"):
        train_coarse(other, manifest, tmp_path, fold="3", device="cpu", resume=True)
    resumed = train_coarse(nano, manifest, tmp_path, fold="3", device="cpu", resume=True)
    whole = load_checkpoint(finished[0]).network.state_dict()
    assert resumed.checkpoint is not None
    for key, value in load_checkpoint(resumed.checkpoint).network.state_dict().items():
        assert torch.equal(value, whole[key]), key
    last = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (finished[0], tmp_path / "fold-3")
    ]
    assert [item["epoch"] for item in last] == [1, 1]  # the newest, whichever was the best
    for key, value in last[0]["current_model_state"].items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(
                value, last[1]["current_model_state"][key], atol=1e-5, rtol=0
            )


def test_nothing_to_resume(manifest: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train_coarse(nano, manifest, tmp_path, fold="3", device="cpu", resume=True)


def test_a_dry_run_writes_nothing(manifest: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    said: list[str] = []
    result = train_coarse(nano, manifest, tmp_path, fold="3", dry_run=True, say=said.append)
    assert result.checkpoint is None
    assert list(tmp_path.iterdir()) == []
    assert "held out (fold 3)" in said[0]
    assert "s a step" in said[1]


def test_a_bad_label_is_met_before_anything_is_written(
    manifest: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """Masks of 0 and 255 are no map of three classes."""
    recipe = replace(nano, network=replace(nano.network, num_classes=3))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"labels 0 to 2, found 2 axes, labels up to 255"):
        train_coarse(recipe, manifest, out, fold="3", device="cpu")
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
    out = tmp_path / "out"
    with pytest.raises(LeakError) as refusal:
        train_coarse(nano, leaky, out, fold="3", device="cpu")
    assert other in str(refusal.value)
    assert inside.image.name in str(refusal.value) or kind == "patient"
    assert not out.exists()


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


def test_the_checkpoint_segments(
    finished: tuple[Path, TrainedCoarse, list[str]], manifest: Path
) -> None:
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
        monkeypatch.setattr("ultrarefiner.training.phase1.bf16_is_fast", lambda _, b=bf16: b)
        out = tmp_path / str(bf16)
        train_coarse(nano, manifest, out, fold="3", device="cpu")
        losses[bf16] = logged(out / "fold-3", "train_loss")
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.03)

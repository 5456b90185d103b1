"""Masks that a network drew: learned from, and nothing else; and whom the network knew counts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ultrarefiner.cli import main
from ultrarefiner.coarse import build_coarse, encode_checkpoint, load_checkpoint
from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.errors import ConfigError, InputError, LeakError
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.training.coarse_data import CoarseData
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.lineage import card_digests, card_sha256
from ultrarefiner.training.material import gather_material
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.out_of_fold import deal_inner_folds
from ultrarefiner.training.pseudo_labels import PseudoLabels, read_pseudo_labels
from ultrarefiner.training.recipe import InnerConfig, TrainingRecipe
from ultrarefiner.training.run import train_fold
from ultrarefiner.training.split import TrainingSplit, split_for_training
from ultrarefiner.weights import file_sha256

NUM_BARE = 3


@pytest.fixture(scope="module")
def bare(manifest: Path) -> Path:
    """The phantoms; three patients of folds 1 and 2 have no true mask."""
    records = read_manifest(manifest)
    inside = [record for record in records if record.fold != "3"][:NUM_BARE]
    path = manifest.parent / "bare.csv"
    write_manifest(path, tuple(replace(r, mask=None) if r in inside else r for r in records))
    return path


@pytest.fixture(scope="module")
def predicted(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``predict`` makes of all of them, not to be changed."""
    folder = tmp_path_factory.mktemp("predicted") / "run"
    assert main(["predict", "--manifest", str(manifest), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(predicted: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(predicted, tmp_path / "run")


def names(records: tuple[Record, ...]) -> set[str]:
    return {record.image.name for record in records}


def in_place(manifest: Path) -> list[Record]:
    """Return the records so that a manifest elsewhere names the same files."""
    return [
        replace(r, image=r.image.absolute(), mask=r.mask.absolute() if r.mask else None)
        for r in read_manifest(manifest)
    ]


def split_with(
    manifest: Path, recipe: TrainingRecipe, labels: PseudoLabels | None
) -> TrainingSplit:
    return split_for_training(manifest, recipe, fold="3", pseudo=labels)


def test_masks_stand_in_for_missing_ones(bare: Path, predicted: Path, nano: TrainingRecipe) -> None:
    recipe = replace(nano, min_pseudo_iou=0.0)
    split = split_with(bare, recipe, read_pseudo_labels(predicted))
    without = {r.image.name for r in read_manifest(bare) if r.mask is None}
    assert names(split.pseudo) == without
    assert not (names(split.train) | names(split.val) | names(split.held_out)) & without
    for record in split.pseudo:
        assert record.mask == predicted / "masks" / f"{record.image.stem}.png"
    assert f"{NUM_BARE} images of {NUM_BARE} patients with pseudo-labels" in split.describe()
    assert any("3 of 3 images without a true mask" in remark for _, remark in split.notes)
    data = CoarseData(split.learned, split.val, recipe)
    drawn = read_coarse(predicted / "masks" / f"{split.pseudo[0].image.stem}.png").values > 0.5
    share = data.train.frame(len(split.train)).target.mean() / 255
    content = data.train.frame(len(split.train)).content_hw
    assert share * 64**2 == pytest.approx(drawn.mean() * content[0] * content[1], rel=0.03)


def test_who_is_left_out_for_a_low_data_study_is_labelled(
    manifest: Path, predicted: Path, nano: TrainingRecipe
) -> None:
    """Their true masks are not touched; the training set itself is that without pseudo-labels."""
    recipe = replace(nano, patient_share=0.5, min_pseudo_iou=0.0)
    alone, both = (
        split_with(manifest, recipe, labels) for labels in (None, read_pseudo_labels(predicted))
    )
    assert (both.train, both.val, both.held_out) == (alone.train, alone.val, alone.held_out)
    assert both.fingerprint != alone.fingerprint
    inside = {r.image.name for r in read_manifest(manifest) if r.fold != "3"}
    assert names(both.pseudo) == inside - names(both.train) - names(both.val)
    assert all(r.mask is not None and r.mask.is_relative_to(predicted) for r in both.pseudo)


def test_a_folder_of_other_images(bare: Path, predicted: Path, nano: TrainingRecipe) -> None:
    """That nothing fits is told at once, not after the training."""
    labels = read_pseudo_labels(predicted)
    none_of_them = replace(labels, predicted_iou={}, masks={})
    for strange, share in ((none_of_them, 0.0), (labels, 1.0)):
        with pytest.raises(InputError, match=r"(?s)none of the masks .* 3 such images"):
            split_with(bare, replace(nano, min_pseudo_iou=share), strange)


def test_the_unsure_are_left_out(bare: Path, copied: Path, nano: TrainingRecipe) -> None:
    labels = read_pseudo_labels(copied)
    inside = [r for r in read_manifest(bare) if r.mask is None]
    trust = dict.fromkeys(labels.masks, 0.9) | {str(inside[0].image.absolute()): 0.49}
    split = split_with(bare, nano, replace(labels, predicted_iou=trust))
    assert names(split.pseudo) == {record.image.name for record in inside[1:]}
    remark = dict(split.notes)[str(copied)]
    assert "2 of 3" in remark
    assert "1 have a predicted IoU below 0.5, 0 were not segmented" in remark


def test_nobody_of_the_inner_validation(
    bare: Path, predicted: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """A patient with two images, of which one has a true mask, is on one side."""
    records = in_place(bare)
    first = next(index for index, r in enumerate(records) if r.mask is None)
    labels = read_pseudo_labels(predicted)
    recipe = replace(nano, min_pseudo_iou=0.0)
    val = split_with(bare, recipe, labels).val[0]
    records[first] = replace(records[first], patient=val.patient)
    write_manifest(tmp_path / "m.csv", tuple(records))
    split = split_with(tmp_path / "m.csv", recipe, labels)
    assert val.image.name in names(split.val)
    assert len(split.pseudo) == NUM_BARE - 1
    assert records[first].image.name not in names(split.pseudo)


def test_who_is_held_out_is_not_learned_from(
    bare: Path, predicted: Path, nano: TrainingRecipe
) -> None:
    """Though ``predict`` has drawn masks for them, too."""
    recipe = replace(nano, min_pseudo_iou=0.0)
    split = split_with(bare, recipe, read_pseudo_labels(predicted))
    assert len(split.held_out) == sum(r.fold == "3" for r in read_manifest(bare))
    assert not names(split.learned) & names(split.held_out)


def teacher(
    folder: Path,
    nano: TrainingRecipe,
    known: tuple[Record, ...],
    *,
    calibrated_on: tuple[Record, ...] = (),
) -> Path:
    """Write a checkpoint that says that it knows these images."""
    path = folder / "teacher.safetensors"
    card = card_digests(known)
    if calibrated_on:
        card |= {"calibration": card_digests(calibrated_on)}
    path.write_bytes(encode_checkpoint(build_coarse(nano.network), card))
    return path


def taught_by(checkpoint: Path, run: Path) -> None:
    """Make a run say that this checkpoint drew its masks."""
    content = json.loads((run / "run.json").read_text())
    card = card_sha256(load_checkpoint(checkpoint).card)
    content |= {"checkpoints": [str(checkpoint)], "card_sha256": [card]}
    (run / "run.json").write_text(json.dumps(content))


def test_a_teacher_that_knows_the_held_out_is_refused(
    bare: Path, copied: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    held_out = tuple(record for record in read_manifest(bare) if record.fold == "3")
    inside = tuple(record for record in read_manifest(bare) if record.fold != "3")
    recipe = replace(nano, min_pseudo_iou=0.0)

    def train() -> None:
        train_fold(recipe, bare, tmp_path / "out", fold="3", pseudo=copied, dry_run=True)

    for known, calibrated_on in ((held_out[:1], ()), (inside[:1], held_out[:1])):
        taught_by(teacher(tmp_path, nano, known, calibrated_on=calibrated_on), copied)
        with pytest.raises(LeakError, match=r"teacher\.safetensors has seen what is held out"):
            train()
    path = teacher(tmp_path, nano, inside[:1])  # another than the one that drew the masks
    with pytest.raises(LeakError, match=r"(?s)unknown what .* was trained on.*another"):
        train()
    taught_by(path, copied)
    train()
    path.unlink()
    with pytest.raises(LeakError, match=r"unknown what .* was trained on"):
        train()


def test_a_teacher_that_knows_who_was_left_out_for_the_fold_is_refused(
    bare: Path, copied: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """It may have learned from a copy of what is held out, or from the test set."""
    records = in_place(bare)
    inside = [index for index, r in enumerate(records) if r.fold != "3" and r.mask]
    held_out = next(record for record in records if record.fold == "3")
    copy, test = inside[:2]
    records[copy] = replace(records[copy], duplicate_group="scene")
    records[test] = replace(records[test], split="test")
    records[records.index(held_out)] = replace(held_out, duplicate_group="scene")
    write_manifest(tmp_path / "m.csv", tuple(records))
    recipe = replace(nano, min_pseudo_iou=0.0)
    for index in (copy, test):
        known = replace(records[index], duplicate_group="")
        taught_by(teacher(tmp_path, nano, (known,)), copied)
        with pytest.raises(LeakError, match=records[index].image.name):
            train_fold(
                recipe,
                tmp_path / "m.csv",
                tmp_path / "out",
                fold="3",
                drop_leaks=True,
                pseudo=copied,
                dry_run=True,
            )


def test_a_patient_of_whom_one_image_has_a_true_mask(
    bare: Path, predicted: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """The other is learned from, and predicted by an inner network that does not know him."""
    records = in_place(bare)
    labels = read_pseudo_labels(predicted)
    recipe = replace(
        nano,
        min_pseudo_iou=0.0,
        inner=InnerConfig(folds=2, epochs=1),
        phase1=replace(nano.phase1, epochs=1),
    )
    before = split_with(bare, recipe, labels)
    folds: dict[str, list[Record]] = {"1": [], "2": []}
    for record in deal_inner_folds((*before.train, *before.val), recipe):
        if record.image.name in names(before.train):
            folds[record.fold].append(record)
    one, two = folds["1"][0], folds["2"][0]
    first, second, _ = (index for index, r in enumerate(records) if r.mask is None)
    outer = {record.patient: record.fold for record in records}
    for index, known in ((first, two), (second, one)):
        fold = outer[known.patient]
        records[index] = replace(records[index], patient=known.patient, fold=fold)
    write_manifest(tmp_path / "m.csv", tuple(records))
    split = split_with(tmp_path / "m.csv", recipe, labels)
    assert names(split.train) == names(before.train)
    assert len(split.pseudo) == NUM_BARE
    options = RunOptions(hardware=Hardware(device="cpu"))
    material = gather_material(recipe, split, tmp_path, options, embeddings=tmp_path / "cache")
    places = {path.name: file for path, (file, _) in material.out_of_fold.places.items()}
    for index, known in ((first, two), (second, one)):
        assert places[records[index].image.name] == places[known.image.name]
    assert names(material.split.pseudo) == names(split.pseudo)


def test_the_student_knows_whom_the_teacher_knew(
    bare: Path, copied: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """Phases 1 and 2 on true and drawn masks: their cards, and what is learned from."""
    stranger = Record(image=tmp_path / "stranger.png", patient="stranger")
    shutil.copy(next(iter(read_manifest(bare))).image, stranger.image)
    stranger.image.write_bytes(stranger.image.read_bytes() + b"\0")  # another file
    taught_by(teacher(tmp_path, nano, (stranger,)), copied)
    recipe = replace(
        nano,
        min_pseudo_iou=0.0,
        inner=InnerConfig(folds=2, epochs=1),
        phase1=replace(nano.phase1, epochs=1),
        phase2=replace(nano.phase2, epochs=1),
    )
    options = RunOptions(hardware=Hardware(device="cpu"))
    train_fold(
        recipe, bare, tmp_path / "out", fold="3", phases=(1, 2), pseudo=copied, options=options
    )
    folder = tmp_path / "out" / "fold-3"
    inside = [record for record in read_manifest(bare) if record.fold != "3"]
    known = {file_sha256(path)[:16] for path in (stranger.image, *(r.image for r in inside))}
    for card in (load_checkpoint(folder / "coarse.safetensors").card, load_refiner(folder).card):
        assert set(card["image_digests"]) == known
        assert card["num_pseudo"] == NUM_BARE
        assert card["num_train"] + card["num_val"] == len(inside) - NUM_BARE
    options = replace(options, resume=True)
    split = split_with(bare, recipe, read_pseudo_labels(copied))
    kept = tmp_path / "out" / "embeddings"
    material = gather_material(recipe, split, folder, options, embeddings=kept)
    assert set(material.out_of_fold.places) == {record.image for record in inside}
    for inner in material.out_of_fold.cards.values():  # they have seen no drawn mask
        bare_digests = {file_sha256(record.image)[:16] for record in split.pseudo}
        assert not bare_digests & set(inner["image_digests"])
    assert len(material.data(recipe.phase2).train) == len(split.learned)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").unlink(), "cannot take masks from .*this version wrote"),
        (lambda run: (run / "results.csv").unlink(), "cannot take masks from"),
        (lambda run: (run / "run.json").write_text("[]"), "cannot take masks from"),
        (lambda run: next((run / "masks").iterdir()).unlink(), r"1 of 12 masks .* are gone"),
    ],
    ids=["no run.json", "no results.csv", "another json", "a mask gone"],
)
def test_a_folder_that_is_none(copied: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(copied)
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_pseudo_labels(copied)


@pytest.mark.parametrize(
    ("checkpoint", "error", "message"),
    [
        ("busbra-lite", LeakError, r"(?s)unknown who made the masks .* 'ultrarefiner refine'"),
        ("none", InputError, r"(?s)cannot take masks from .* 'ultrarefiner predict'"),
    ],
)
def test_masks_that_were_given_and_refined_are_none(
    manifest: Path, checkpoint: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """``refine`` leaves the same files; who made the masks that it was given, nobody knows."""
    record = read_manifest(manifest)[0]
    assert record.mask is not None
    for name, path in (("images", record.image), ("coarse", record.mask)):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / record.image.name)
    given = ["--images", str(tmp_path / "images"), "--coarse", str(tmp_path / "coarse")]
    out = tmp_path / "refined"
    assert main(["refine", *given, "--checkpoint", checkpoint, "--out", str(out)]) == 0
    with pytest.raises(error, match=message):
        read_pseudo_labels(out)


def test_the_threshold_is_a_share(nano: TrainingRecipe) -> None:
    with pytest.raises(ConfigError, match="min_pseudo_iou"):
        replace(nano, min_pseudo_iou=1.5)


def test_drawn_masks_tell_one_class(
    bare: Path, predicted: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    recipe = replace(nano, network=replace(nano.network, num_classes=3))
    with pytest.raises(ConfigError, match="a network of one class"):
        train_fold(recipe, bare, tmp_path / "out", pseudo=predicted)
    assert not (tmp_path / "out").exists()


def test_the_command(bare: Path, predicted: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    """Without ``--pseudo`` a missing mask stays an error; with it the cost is estimated."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "network: {side: 64, encoder_weights: none, decoder_channels: [32, 16, 16, 8, 8]}\n"
        "inner_share: 0.25\nmin_pseudo_iou: 0.0\n"
    )
    words = ["train", str(recipe), "--manifest", str(bare), "--out", str(tmp_path / "out")]
    words += ["--fold", "3", "--phase", "1", "--dry-run"]
    assert main(words) == 2
    assert main([*words, "--pseudo", str(predicted)]) == 0

"""Every training image is predicted once, by a network that has not seen its patient."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from killing import finish, start
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fakes.opened_files import opened_files
from ultrarefiner.coarse import CoarsePredictor, encode_checkpoint, load_checkpoint
from ultrarefiner.data.folds import assign_folds
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.readers import read_image
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.training.coarse_module import CoarseModule
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.lineage import refuse_contamination
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.out_of_fold import OutOfFold, _share_out, make_out_of_fold
from ultrarefiner.training.recipe import InnerConfig, TrainingRecipe
from ultrarefiner.training.split import TrainingSplit, split_for_training
from ultrarefiner.weights import file_sha256

SIDE = 48
FOLDS = ("1", "2")


@pytest.fixture(scope="module")
def recipe(nano: TrainingRecipe) -> TrainingRecipe:
    return replace(nano, inner=InnerConfig(folds=len(FOLDS), epochs=1))


@pytest.fixture(scope="module")
def split(manifest: Path, nano: TrainingRecipe) -> TrainingSplit:
    return split_for_training(manifest, nano, fold="3")


@pytest.fixture(scope="module")
def outer(split: TrainingSplit) -> tuple[Record, ...]:
    return (*split.train, *split.val)


def make(
    recipe: TrainingRecipe,
    records: tuple[Record, ...],
    folder: Path,
    *,
    resume: bool = False,
    side: int = SIDE,
) -> tuple[OutOfFold, list[str]]:
    said: list[str] = []
    options = RunOptions(hardware=Hardware(device="cpu"), resume=resume, say=said.append)
    return make_out_of_fold(recipe, records, folder, side=side, options=options), said


@pytest.fixture(scope="module")
def finished(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    split: TrainingSplit,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, OutOfFold]:
    """What a run leaves, not to be changed. No file of the outer fold is opened for it."""
    folder = tmp_path_factory.mktemp("run") / "inner"
    with opened_files() as files:
        out_of_fold, _ = make(recipe, outer, folder)
    held_out = {file for r in split.held_out for file in (r.image, r.mask) if file is not None}
    assert not files & {file.resolve() for file in held_out}
    assert files >= {record.image.resolve() for record in outer}
    return folder, out_of_fold


@pytest.fixture
def copied(finished: tuple[Path, OutOfFold], tmp_path: Path) -> Path:
    """The same, to be changed."""
    folder = tmp_path / "inner"
    for path in finished[0].rglob("*"):
        if path.is_file():
            place = folder / path.relative_to(finished[0])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return folder


def states(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the sha256 of the network and of the predictions of each inner fold."""
    names = ("coarse.safetensors", "out_of_fold.safetensors")
    return {
        fold: tuple(file_sha256(folder / f"fold-{fold}" / name) for name in names)  # type: ignore[misc]
        for fold in FOLDS
    }


def test_others_go_to_a_network_that_does_not_know_their_patient() -> None:
    """Those whom every network knows, by patient or by scene, go to none."""

    def image(name: str, patient: str, *, fold: str = "", scene: str = "") -> Record:
        return Record(image=Path(name), patient=patient, fold=fold, duplicate_group=scene)

    dealt = (
        image("a", "A", fold="1"),
        image("b", "B", fold="2"),
        image("c", "C", fold="1"),
        image("d", "D", fold="2", scene="both"),
    )
    others = (
        image("b2", "B"),
        image("a2", "A"),
        image("c2", "C", scene="both"),
        *(image(f"new{number}", f"new{number}") for number in range(4)),
    )
    shared = _share_out(others, dealt, 2)
    found = {fold: {record.image.name for record in records} for fold, records in shared.items()}
    strangers = {f"new{number}" for number in range(4)}
    assert found["1"] - strangers == {"a2"}
    assert found["2"] - strangers == {"b2"}
    assert sorted(len(names & strangers) for names in found.values()) == [2, 2]


def test_every_image_once_by_a_network_that_has_not_seen_it(
    finished: tuple[Path, OutOfFold], outer: tuple[Record, ...], split: TrainingSplit
) -> None:
    folder, out_of_fold = finished
    assert set(out_of_fold.places) == {record.image for record in outer}
    assert len(out_of_fold.cards) == len(FOLDS)
    predicted: list[str] = []
    for fold in FOLDS:
        with safe_open(folder / f"fold-{fold}" / "out_of_fold.safetensors", framework="np") as file:
            predicted += file.keys()
    assert sorted(predicted) == sorted(file_sha256(record.image) for record in outer)
    for record in outer:
        file, _ = out_of_fold.places[record.image]
        card = out_of_fold.cards[str(file.with_name("coarse.safetensors"))]
        assert file_sha256(record.image)[:16] not in card["image_digests"]
        patients = {r.patient for r in outer if file_sha256(r.image)[:16] in card["image_digests"]}
        assert patients
        assert record.patient not in patients
    assert refuse_contamination(split.held_out, out_of_fold.cards) == ()


def test_the_inner_folds(finished: tuple[Path, OutOfFold], outer: tuple[Record, ...]) -> None:
    """Those that `data split` deals to the same patients."""
    loose = [replace(record, fold="") for record in outer]
    dealt = assign_folds(loose, num_folds=len(FOLDS), seed=0).records
    found = {r.image.resolve(): r.fold for r in read_manifest(finished[0] / "manifest.csv")}
    assert found == {record.image.resolve(): record.fold for record in dealt}


def test_a_prediction_is_that_of_the_network_in_the_frame(
    finished: tuple[Path, OutOfFold], outer: tuple[Record, ...]
) -> None:
    _, out_of_fold = finished
    record = outer[0]
    file, _ = out_of_fold.places[record.image]
    network = load_checkpoint(file.parent).network
    image = read_image(record.image)
    expected = Letterbox(image.shape, SIDE).shrink(CoarsePredictor([network], device="cpu")(image))
    probs = out_of_fold.probs(record)
    assert probs.dtype == np.float32
    assert probs.shape == (SIDE, SIDE)
    assert np.abs(probs - expected).max() <= 0.5 / 255 + 1e-6
    rows, cols = Letterbox(image.shape, SIDE).content_hw
    assert (probs[:rows, :cols] > 0).all()  # a network of one epoch is sure of nothing
    assert not probs[rows:].any()
    assert not probs[:, cols:].any()
    elsewhere = pickle.loads(pickle.dumps(out_of_fold))  # as to the workers of a loader
    assert np.array_equal(elsewhere.probs(record), probs)


def test_an_image_from_elsewhere_has_none(
    finished: tuple[Path, OutOfFold], split: TrainingSplit
) -> None:
    with pytest.raises(InputError, match=f"no out-of-fold prediction of {split.held_out[0].image}"):
        finished[1].probs(split.held_out[0])


def test_what_is_finished_is_kept(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    """Also with other settings of later phases, more workers, and rows in another order."""
    before = states(copied)
    other = replace(recipe, foundation="sam", num_workers=1, patient_share=0.5)
    _, said = make(other, outer[::-1], copied, resume=True)
    assert states(copied) == before
    assert sum("is kept" in line for line in said) == len(FOLDS)
    assert not any("predicted" in line for line in said)


def test_a_card_of_an_earlier_version_is_known(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    """Settings that it does not have yet had their default; the split says who the patients are."""
    path = copied / "fold-1" / "coarse.safetensors"
    found = load_checkpoint(path)
    card = json.loads(json.dumps(dict(found.card)))
    del card["patient_digests"], card["scene_digests"]
    for phase in ("inner", "phase2", "phase3", "foundation"):
        card["recipe"].pop(phase, None)
    del card["recipe"]["augmentation"]["speckle"], card["recipe"]["phase1"]["loss"]["eps"]
    path.write_bytes(encode_checkpoint(found.network, card))
    before = states(copied)
    _, said = make(recipe, outer, copied, resume=True)
    assert sum("is kept" in line for line in said) == len(FOLDS)
    assert states(copied)["1"][0] == before["1"][0]
    assert states(copied)["2"] == before["2"]


@pytest.mark.parametrize(
    "damage",
    ["cut", "one bit", "of another network", "one image less", "of another size", "missing"],
)
def test_predictions_that_do_not_fit_are_made_anew(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    finished: tuple[Path, OutOfFold],
    copied: Path,
    damage: str,
) -> None:
    file = copied / "fold-1" / "out_of_fold.safetensors"
    side = SIDE + 16 if damage == "of another size" else SIDE
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "one bit":
        content = bytearray(file.read_bytes())
        content[-1000] ^= 1
        file.write_bytes(content)
    elif damage == "of another network":
        file.write_bytes((copied / "fold-2" / "out_of_fold.safetensors").read_bytes())
    elif damage == "one image less":
        with safe_open(file, framework="np") as stream:
            metadata = stream.metadata()
        maps = load_file(file)
        save_file(dict(list(maps.items())[1:]), file, metadata=metadata)
    elif damage == "missing":
        file.unlink()
    again, said = make(recipe, outer, copied, resume=True, side=side)
    assert sum("is kept" in line for line in said) == len(FOLDS)
    num_made = len(FOLDS) if damage == "of another size" else 1
    assert sum("images predicted" in line for line in said) == num_made
    assert sum("is damaged and made again" in line for line in said) == (
        damage in ("cut", "one bit", "one image less")
    )
    assert {again.probs(record).shape for record in outer} == {(side, side)}
    if side == SIDE:
        assert states(copied) == states(finished[0])  # the same bytes


def test_predictions_of_an_earlier_version_are_kept(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    """They have no checksum."""
    file = copied / "fold-1" / "out_of_fold.safetensors"
    with safe_open(file, framework="np") as stream:
        story = json.loads(stream.metadata()["ultrarefiner"])
    del story["maps_sha256"]
    save_file(load_file(file), file, metadata={"ultrarefiner": json.dumps(story)})
    before = states(copied)
    _, said = make(recipe, outer, copied, resume=True)
    assert states(copied) == before
    assert not any("predicted" in line for line in said)


def make_second(recipe: TrainingRecipe, records: tuple[Record, ...], folder: Path) -> None:
    """Do what the second of two processes does."""
    torch.set_num_threads(1)
    rank_zero_only.rank = 1
    out_of_fold, _ = make(recipe, records, folder, resume=True)
    np.save(folder / "second.npy", np.stack([out_of_fold.probs(record) for record in records]))


def test_a_second_process_waits_for_the_first(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    """Where every network is kept, nothing is trained and the two are not connected."""
    (copied / "fold-1" / "out_of_fold.safetensors").unlink()
    second = start(make_second, recipe, outer, copied)
    second.join(3)
    assert second.is_alive()
    first, _ = make(recipe, outer, copied, resume=True)
    finish(second)
    expected = np.stack([first.probs(record) for record in outer])
    assert np.array_equal(np.load(copied / "second.npy"), expected)


@pytest.mark.parametrize("cause", ["another plan", "damaged", "nan"])
def test_a_training_that_cannot_go_on(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
) -> None:
    """It starts anew if what is there does not fit, not if it stops for a reason of its own."""
    (copied / "fold-2" / "coarse.safetensors").unlink()
    checkpoints = copied / "fold-2" / "checkpoints"
    if cause == "another plan":
        (checkpoints / "plan.json").write_text("{}")
    elif cause == "damaged":
        (checkpoints / "last.ckpt").write_bytes(b"damaged")
    if cause != "nan":
        _, said = make(recipe, outer, copied, resume=True)
        assert sum("inner fold 2: starts anew: cannot re" in line for line in said) == 1
        return
    (checkpoints / "last.ckpt").unlink()
    steps: list[int] = []

    def step(module: CoarseModule, batch: object, index: int) -> torch.Tensor:
        steps.append(index)
        return torch.nan * next(module.parameters()).sum()

    monkeypatch.setattr(CoarseModule, "training_step", step)
    with pytest.raises(InputError, match="training stopped in epoch 0, step 0"):
        make(recipe, outer, copied, resume=True)
    assert steps == [0]


def test_a_network_of_other_settings_is_trained_anew(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    finished: tuple[Path, OutOfFold],
    copied: Path,
) -> None:
    longer = replace(recipe, inner=replace(recipe.inner, epochs=2))
    _, said = make(longer, outer, copied, resume=True)
    assert not any("is kept" in line for line in said)
    assert sum("images predicted" in line for line in said) == len(FOLDS)
    for fold in FOLDS:
        card = load_checkpoint(copied / f"fold-{fold}").card
        assert card["recipe"]["phase1"]["epochs"] == 2
    assert all(a != b for a, b in zip(states(copied)["1"], states(finished[0])["1"], strict=True))


def test_a_network_of_other_masks_is_trained_anew(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path, tmp_path: Path
) -> None:
    """The network of the fold itself, which was not trained on the mask, is kept."""
    assert outer[0].mask is not None
    with Image.open(outer[0].mask) as mask:
        Image.new("L", mask.size, 255).save(tmp_path / "other.png")
    changed = replace(outer[0], mask=tmp_path / "other.png")
    _, said = make(recipe, (changed, *outer[1:]), copied, resume=True)
    assert sum("is kept" in line for line in said) == 1


@pytest.mark.parametrize("doing", ["training", "predicting"])
def test_a_stopped_run_goes_on(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    finished: tuple[Path, OutOfFold],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    doing: str,
) -> None:
    """Stopped in the second fold: the rest is the same as without the stop."""
    num_first = sum("fold-1" in str(file) for file, _ in finished[1].places.values())
    place, most = {
        "training": ("ultrarefiner.training.coarse_module.CoarseModule.training_step", 1),
        "predicting": ("ultrarefiner.training.out_of_fold.read_image", num_first + 2),
    }[doing]
    module, _, name = place.rpartition(".")
    real = getattr(resolve_name(module), name)
    calls: list[object] = []

    def stop_after_some(*args: object) -> object:
        calls.append(args)
        if len(calls) > most:
            raise KeyboardInterrupt
        return real(*args)

    folder = tmp_path / "inner"
    with monkeypatch.context() as patch:
        patch.setattr(place, stop_after_some)
        with pytest.raises(KeyboardInterrupt):
            make(recipe, outer, folder)
    assert (folder / "fold-1" / "out_of_fold.safetensors").is_file()
    assert (folder / "fold-2" / "coarse.safetensors").exists() == (doing == "predicting")
    assert not (folder / "fold-2" / "out_of_fold.safetensors").exists()
    again, said = make(recipe, outer, folder, resume=True)
    assert sum("is kept" in line for line in said) == (2 if doing == "predicting" else 1)
    assert sum("images predicted" in line for line in said) == 1
    for record in outer:
        assert np.array_equal(again.probs(record), finished[1].probs(record))
    for fold in FOLDS:
        one, other = (
            load_checkpoint(place / f"fold-{fold}").network.state_dict()
            for place in (folder, finished[0])
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_without_resuming_all_is_made_anew(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    (copied / "fold-2" / "coarse.safetensors").write_bytes(b"stale")
    _, said = make(recipe, outer, copied)
    assert not any("is kept" in line for line in said)
    assert sum("images predicted" in line for line in said) == len(FOLDS)


def test_a_network_that_has_seen_the_fold_is_refused(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path
) -> None:
    """Its card names a patient of the fold, whatever else it says."""
    path = copied / "fold-1" / "coarse.safetensors"
    found, other = (load_checkpoint(copied / f"fold-{fold}") for fold in FOLDS)
    card = dict(found.card) | {"patient_digests": other.card["patient_digests"]}
    path.write_bytes(encode_checkpoint(found.network, card))
    with pytest.raises(LeakError, match=r"fold-1/coarse\.safetensors has seen .*its patient"):
        make(recipe, outer, copied, resume=True)


def test_one_image_more_with_an_odd_name(
    recipe: TrainingRecipe, outer: tuple[Record, ...], copied: Path, tmp_path: Path
) -> None:
    """All networks are trained anew; a copy in its scene has the prediction of its original."""
    odd = tmp_path / "a.b.c: \u00fc'.png"
    odd.write_bytes(outer[0].image.read_bytes())
    twin = replace(outer[0], image=odd)
    out_of_fold, said = make(recipe, (*outer, twin), copied, resume=True)
    assert not any("is kept" in line for line in said)
    assert set(out_of_fold.places) == {record.image for record in (*outer, twin)}
    assert np.array_equal(out_of_fold.probs(twin), out_of_fold.probs(outer[0]))


@pytest.mark.parametrize(("num_patients", "num_folds"), [(2, 3), (3, 2), (1, 2), (0, 2)])
def test_too_few_patients(
    recipe: TrainingRecipe,
    outer: tuple[Record, ...],
    tmp_path: Path,
    num_patients: int,
    num_folds: int,
) -> None:
    few = replace(recipe, inner=InnerConfig(folds=num_folds))
    patients = list(dict.fromkeys(record.patient for record in outer))[:num_patients]
    records = tuple(record for record in outer if record.patient in patients)
    with pytest.raises(InputError, match=f"cannot make {num_folds} inner folds.*{num_patients} in"):
        make(few, records, tmp_path / "inner")
    assert not (tmp_path / "inner").exists()


def test_an_inner_fold_can_be_trained_by_hand(
    recipe: TrainingRecipe, finished: tuple[Path, OutOfFold]
) -> None:
    """The manifest beside the networks is what they were trained on."""
    by_hand = replace(recipe, phase1=replace(recipe.phase1, epochs=1))
    split = split_for_training(finished[0] / "manifest.csv", by_hand, fold="1", drop_leaks=True)
    card = load_checkpoint(finished[0] / "fold-1").card
    assert card["split_sha256"] == split.fingerprint

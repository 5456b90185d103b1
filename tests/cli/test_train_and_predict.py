"""From a manifest to trained networks to masks to a score, one command each."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from commands import FAST, Command, Outcome, Run, call, read_rows
from PIL import Image

from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.refine.checkpoint import encode_refiner, is_refiner, load_refiner

RECIPE = """
network: {encoder_weights: none, side: 64, decoder_channels: [32, 16, 16, 8, 8]}
phase1: {epochs: 3, batch_size: 4}
inner: {folds: 2, epochs: 1}
phase2: {epochs: 1, batch_size: 4, flips: false}
phase3: {epochs: 1, batch_size: 4, frozen_epochs: 0, flips: false}
inner_share: 0.25
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, nine phantoms in three folds, and rough masks of them; not to be changed."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "tiny.yaml").write_text(RECIPE)
    config = PhantomConfig(height_px=(120, 140), width_px=(150, 170), relative_radius=(0.2, 0.25))
    manifest = write_phantoms(9, 4, folder / "data", config=config)
    assert (
        call(("data", "split", manifest, "--folds", 3, "--out", manifest.parent / "folds.csv")) == 0
    )
    return folder


@pytest.fixture(scope="module")
def few(place: Path) -> Path:
    """An image of each fold, with its rough mask; not to be changed."""
    records = read_manifest(place / "data" / "folds.csv")
    for fold in "123":
        name = next(record.image.name for record in records if record.fold == fold)
        for kind in ("images", "coarse"):
            (place / "few" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(place / "data" / kind / name, place / "few" / kind)
    return place / "few"


def train_args(place: Path, out: Path, *more: object) -> list[object]:
    manifest = place / "data" / "folds.csv"
    arguments = ["train", place / "tiny.yaml", "--manifest", manifest, "--fold", "3"]
    return [*arguments, "--out", out, "--device", "cpu", *more]


@pytest.fixture(scope="module")
def trained(place: Path) -> Run:
    """All phases, with one setting of the recipe changed; not to be changed."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(train_args(place, place / "run", "--phase1.epochs", 1))
    return Run(place / "run" / "fold-3", Outcome(code, out.getvalue(), err.getvalue()))


def test_a_dry_run_tells_the_cost(command: Command, place: Path, tmp_path: Path) -> None:
    tried = command(*train_args(place, tmp_path / "run", "--phase", "1", "--dry-run"))
    assert tried.code == 0
    assert "phase 1, estimated: " in tried.out
    assert "s a step" in tried.out
    assert "GiB" in tried.out
    assert not (tmp_path / "run").exists()


def test_all_phases_are_trained_unless_one_is_asked_for(trained: Run) -> None:
    assert (trained.outcome.code, trained.outcome.err) == (0, "")
    said = trained.outcome.out
    assert "3 images of 3 patients held out (fold 3)" in said
    for line in ("phase 1: DSC ", "phase 2, before: DSC ", "phase 3, after:  DSC "):
        assert line in said
    for name in ("coarse", "refiner", "joint"):
        assert f"see {trained.folder / name}.safetensors" in said
    card = json.loads((trained.folder / "run.json").read_text())
    assert card["recipe"]["phase1"]["epochs"] == 1
    assert card["recipe"]["network"]["side"] == 64
    assert card["command"].startswith("ultrarefiner train ")


def test_help_of_training_says_what_a_phase_is(command: Command) -> None:
    said = " ".join(command("train", "--help").out.split())
    for words in ("--phase {1,2,3,all}", "default: all", "Phase 3: both together", "--resume"):
        assert words in said


def test_nothing_to_resume(command: Command, place: Path, tmp_path: Path) -> None:
    refused = command(*train_args(place, tmp_path / "run", "--resume"))
    assert refused.code == 2
    assert "nothing to resume" in refused.err
    assert not (tmp_path / "run").exists()


def test_a_patient_on_both_sides_ends_with_3(command: Command, place: Path, tmp_path: Path) -> None:
    records = list(read_manifest(place / "data" / "folds.csv"))
    inside, held_out = (next(r for r in records if r.fold == fold) for fold in ("1", "3"))
    records[records.index(inside)] = replace(inside, patient=held_out.patient)
    write_manifest(tmp_path / "leak.csv", records)
    arguments = train_args(place, tmp_path / "run", "--manifest", tmp_path / "leak.csv")
    refused = command(*arguments)
    assert refused.code == 3
    assert inside.image.name in refused.err
    assert "--drop-leaks" in refused.err
    kept = command(*arguments, "--drop-leaks", "--phase", "1", "--dry-run")
    assert kept.code == 0


def test_predict_a_fold_and_score_it(command: Command, place: Path, trained: Run) -> None:
    """With the folder of a run, which stands for what its last phase left."""
    manifest, out = place / "data" / "folds.csv", place / "fold3"
    predicted = command(
        *("predict", "--checkpoint", trained.folder, "--manifest", manifest),
        *("--fold", "3", "--out", out, "--device", "cpu", "--flips", *FAST),
        *("--options.save_probabilities", "true", "--options.save_8bit_probabilities", "true"),
    )
    assert predicted.code == 0
    assert "not a medical device" in predicted.err
    assert "seen in training" not in predicted.err
    assert (out / "report.html").is_file()
    names = sorted(read_rows(out))
    assert len(names) == 3
    for name in names:
        mask = np.asarray(Image.open(out / "masks" / f"{name}.png"))
        coarse = np.asarray(Image.open(out / "coarse" / f"{name}.png"))
        exact = np.load(out / "coarse_probabilities" / f"{name}.npy")
        rounded = np.asarray(Image.open(out / "coarse_probabilities" / f"{name}.png"))
        image = np.asarray(Image.open(place / "data" / "images" / f"{name}.png"))
        assert mask.shape == coarse.shape == exact.shape == rounded.shape == image.shape
        assert set(np.unique(mask)) <= {0, 255}
        np.testing.assert_array_equal(coarse > 0, exact > 0.5)
        np.testing.assert_allclose(rounded / 255, exact, atol=0.5 / 255 + 1e-6)
        assert (out / "probabilities" / f"{name}.npy").is_file()
    scored = command(
        *("evaluate", "--manifest", manifest, "--fold", "3", "--preds", out),
        *("--baseline", out / "coarse", "--out", out / "eval.json"),
    )
    assert scored.code == 0
    assert "3 images" in scored.out
    assert "coarse DSC" in scored.out


def test_a_trained_refiner_keeps_to_what_it_was_trained_with(
    command: Command, few: Path, trained: Run, tmp_path: Path
) -> None:
    masks = ["--images", few / "images", "--coarse", few / "coarse", "--out", tmp_path / "out"]
    trained_one = ["--checkpoint", trained.folder / "refiner.safetensors", "--device", "cpu"]
    refused = command("refine", *masks, *trained_one, "--refiner.prompts.mask", "direct")
    assert refused.code == 2
    assert "setting prompts of checkpoint" in refused.err
    assert "trained with" in refused.err
    refused = command("refine", *masks, *trained_one, "--preset", "literal")
    assert refused.code == 2
    assert not (tmp_path / "out").exists()
    refined = command("refine", *masks, *trained_one, *FAST)
    assert refined.code == 0
    assert len(read_rows(tmp_path / "out")) == 3
    assert "2 of the 3 images were seen in training (the image itself: 2)" in refined.err


def test_an_opinion_that_was_never_learned_is_doubted(
    command: Command, few: Path, trained: Run, tmp_path: Path
) -> None:
    """Only where it is asked for; and a phase that never ran has taught nothing."""
    store = load_refiner(trained.folder)
    recipe = store.card["recipe"]
    recipe["phase2"]["unasked_share"] = 0.3
    for name, last in (("learned", {"phase": 3}), ("published", {"phase": 1}), ("bare", None)):
        content = encode_refiner(
            store.network,
            store.refiner(device="cpu").pipeline,
            foundation=store.foundation_name,
            config=store.config,
            card={} if last is None else {**store.card, "recipe": recipe, **last},
        )
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "one").mkdir()
    shutil.copy(next((few / "images").iterdir()), tmp_path / "one")
    predict = ("predict", "--images", tmp_path / "one", "--out", tmp_path / "out")
    for checkpoint, share, num in (
        (trained.folder, 0.5, 1),
        (trained.folder, 0.0, 0),
        (trained.folder / "coarse.safetensors", 0.5, 1),
        (tmp_path / "learned.safetensors", 0.5, 0),
        (tmp_path / "published.safetensors", 0.5, 1),
        (tmp_path / "bare.safetensors", 0.5, 1),
        (tmp_path / "bare.safetensors", 0.0, 0),
    ):
        asked = ("--checkpoint", checkpoint, "--refiner.second_opinion", share)
        outcome = command(*predict, *asked, "--device", "cpu", *FAST)
        assert outcome.code == 0
        assert outcome.err.count("note: refiner second_opinion: ") == num
        assert outcome.err.count("not trained without a prompt (unasked_share 0)") == num


def test_a_refiner_is_not_averaged(
    command: Command, few: Path, trained: Run, tmp_path: Path
) -> None:
    both = ("--checkpoint", trained.folder / "coarse.safetensors", trained.folder)
    refused = command("predict", *both, "--images", few / "images", "--out", tmp_path)
    assert refused.code == 2
    assert f"--checkpoint {trained.folder}: expected a trained refiner alone" in refused.err
    assert "2 checkpoints" in refused.err


def test_an_ensemble_warns_of_what_it_has_seen(
    command: Command, few: Path, trained: Run, tmp_path: Path
) -> None:
    members = ("--checkpoint", *[trained.folder / "coarse.safetensors"] * 2)
    outcome = command(
        *("predict", *members, "--images", few / "images", "--out", tmp_path / "all"),
        *("--device", "cpu", *FAST),
    )
    assert outcome.code == 0
    assert outcome.out.startswith("3 images segmented")
    words = "2 of the 3 images were seen in training (the image itself: 2)"
    assert outcome.err.count(words) == 2


def test_other_images_of_its_patients_count_as_seen(
    command: Command, place: Path, trained: Run, tmp_path: Path
) -> None:
    """A manifest says whose the images are; a file that is none does not hide that."""
    records = read_manifest(place / "data" / "folds.csv")
    inside = next(record for record in records if record.fold == "1")
    held_out = [record for record in records if record.fold == "3"]
    broken = tmp_path / "broken.png"
    rows = [
        replace(held_out[0], patient=inside.patient),
        held_out[1],
        replace(held_out[2], image=broken, patient="another"),
    ]
    write_manifest(tmp_path / "other.csv", rows)
    outcome = command(
        *("predict", "--checkpoint", trained.folder, "--manifest", tmp_path / "other.csv"),
        *("--out", tmp_path / "out", "--device", "cpu", *FAST),
    )
    assert outcome.code == 1
    assert "skipped: broken: " in outcome.err
    assert "1 of the 3 images were seen in training (its patient: 1)" in outcome.err


@pytest.mark.parametrize("name", list(PRETRAINED))
def test_what_comes_with_the_package_predicts_by_name(
    name: str, command: Command, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(place / "data" / "images" / "phantom-4-0000.png", tmp_path / "images")
    fast = () if is_refiner(name) else FAST  # a refiner has the settings it was trained with
    outcome = command(
        *("predict", "--checkpoint", name, "--images", tmp_path / "images"),
        *("--out", tmp_path / "out", "--device", "cpu", *fast),
    )
    assert outcome.code == 0
    assert list(read_rows(tmp_path / "out")) == ["phantom-4-0000"]


def test_masks_that_were_given_are_not_written_over(
    command: Command, few: Path, trained: Run, tmp_path: Path
) -> None:
    images, out = few / "images", tmp_path / "run"
    shutil.copytree(few / "coarse", out / "coarse")
    before = {path.name: path.read_bytes() for path in (out / "coarse").iterdir()}
    refined = command("refine", "--images", images, "--coarse", out / "coarse", "--out", out, *FAST)
    assert refined.code == 0
    refused = command("predict", "--checkpoint", trained.folder, "--images", images, "--out", out)
    assert refused.code == 2
    assert "overwrite the coarse masks" in refused.err
    assert {path.name: path.read_bytes() for path in (out / "coarse").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "--out", "{o}"), "either --images or --manifest"),
        (("predict", "--images", "{i}", "--fold", "3", "--out", "{o}"), "--manifest with it"),
        (("predict", "--images", "{i}", "--checkpoint", "no", "--out", "{o}"), "busbra-lite"),
        (("predict", "--manifest", "{m}", "--fold", "7", "--out", "{o}"), "7"),
        (("train", "{r}", "--manifest", "{m}", "--fold", "7", "--out", "{o}"), "7"),
        (("train", "{r}", "--manifest", "no.csv", "--out", "{o}"), "no.csv"),
        (("train", "{r}", "--manifest", "{m}", "--out", "{o}", "--phase", "4"), "phase"),
        (("train", "{r}", "--manifest", "{m}", "--out", "{o}", "--trainable", "gate"), "trainable"),
        (("train", "no.yaml", "--manifest", "{m}", "--out", "{o}"), "no.yaml"),
        (("train", "{r}", "--manifest", "{m}", "--out", "{o}", "--phase1.epochs", "0"), "epochs"),
        (("train", "{r}", "--manifest", "{m}", "--out", "{o}", "--network.side", "65"), "side"),
    ],
)
def test_bad_requests(
    command: Command, place: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    names = {
        "o": tmp_path / "out",
        "i": place / "data" / "images",
        "m": place / "data" / "folds.csv",
        "r": place / "tiny.yaml",
    }
    outcome = command(*(part.format(**names) for part in arguments))
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()

"""From a manifest to a trained network to masks to a score, one command each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import FAST, Command, read_rows
from PIL import Image

RECIPE = """
network: {encoder_weights: none, side: 64, decoder_channels: [32, 16, 16, 8, 8]}
phase1: {epochs: 3, batch_size: 4}
inner_share: 0.25
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the steps of the story share."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "nano.yaml").write_text(RECIPE)
    return folder


def test_draw_and_split(command: Command, place: Path) -> None:
    drawn = command("data", "phantom", "--num", "9", "--seed", "4", "--out", place / "data")
    assert drawn.code == 0
    split = command(
        *("data", "split", place / "data" / "manifest.csv", "--folds", "3"),
        *("--out", place / "data" / "folds.csv"),
    )
    assert split.code == 0


def test_train(command: Command, place: Path) -> None:
    arguments = [
        *("train", place / "nano.yaml", "--manifest", place / "data" / "folds.csv"),
        *("--phase", "1", "--fold", "3", "--out", place / "run", "--device", "cpu"),
    ]
    tried = command(*arguments, "--dry-run")
    assert tried.code == 0
    assert "s a step" in tried.out
    assert not (place / "run").exists()
    trained = command(*arguments, "--phase1.epochs", "1")
    assert trained.code == 0
    assert "inner validation" in trained.out
    card = json.loads((place / "run" / "fold-3" / "run.json").read_text())
    assert card["recipe"]["phase1"]["epochs"] == 1
    assert card["recipe"]["network"]["side"] == 64
    assert card["command"].startswith("ultrarefiner train ")


def test_predict_a_fold_and_score_it(command: Command, place: Path) -> None:
    manifest, out = place / "data" / "folds.csv", place / "fold3"
    predicted = command(
        *("predict", "--checkpoint", place / "run" / "fold-3", "--manifest", manifest),
        *("--fold", "3", "--out", out, "--device", "cpu", "--flips", *FAST),
        *("--options.save_probabilities", "true", "--options.save_8bit_probabilities", "true"),
    )
    assert predicted.code == 0
    assert "not a medical device" in predicted.err
    assert "were used to train it" not in predicted.err
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


def test_an_ensemble_warns_of_what_it_has_seen(command: Command, place: Path) -> None:
    member = place / "run" / "fold-3"
    outcome = command(
        *("predict", "--checkpoint", member, member / "coarse.safetensors"),
        *("--images", place / "data" / "images", "--out", place / "all", "--device", "cpu", *FAST),
    )
    assert outcome.code == 0
    assert outcome.out.startswith("9 images segmented")
    assert outcome.err.count("6 of the 9 images were used to train it") == 2


def test_masks_that_were_given_are_not_written_over(
    command: Command, place: Path, tmp_path: Path
) -> None:
    images, out = place / "data" / "images", tmp_path / "run"
    shutil.copytree(place / "data" / "coarse", out / "coarse")
    before = {path.name: path.read_bytes() for path in (out / "coarse").iterdir()}
    refined = command("refine", "--images", images, "--coarse", out / "coarse", "--out", out, *FAST)
    assert refined.code == 0
    checkpoint = place / "run" / "fold-3"
    refused = command("predict", "--checkpoint", checkpoint, "--images", images, "--out", out)
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
        "r": place / "nano.yaml",
    }
    outcome = command(*(part.format(**names) for part in arguments))
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()

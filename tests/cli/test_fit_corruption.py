"""`data fit-corruption` and `data corruption-gallery`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Command

from ultrarefiner.data.corruption import PRESETS, corrupt, read_config
from ultrarefiner.data.manifest import Record, write_manifest
from ultrarefiner.data.writers import write_mask, write_probability

NUM = 40


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``manifest.csv``, ``masks`` and ``preds``, not to be changed."""
    folder = tmp_path_factory.mktemp("predicted")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120] + 0.5
    records = []
    for k in range(NUM):
        (cx, cy), (a, b) = rng.uniform((40, 35), (80, 55)), rng.uniform(8, 22, size=2)
        mask = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
        truth, image = folder / "masks" / f"{k:02d}.png", folder / "images" / f"{k:02d}.png"
        write_mask(truth, mask)
        write_mask(image, mask)
        made = corrupt(mask, seed=0, index=k, config=PRESETS["boundary"])
        write_probability(folder / "preds" / f"{k:02d}.npy", made.probs)
        records.append(Record(image=image, mask=truth, fold=str(1 + k % 2)))
    write_manifest(folder / "manifest.csv", tuple(records))
    return folder


def test_fit(command: Command, predicted: Path, tmp_path: Path) -> None:
    arguments = ("--manifest", predicted / "manifest.csv", "--preds", predicted / "preds")
    settings = tmp_path / "corruption.yaml"
    done = command("data", "fit-corruption", *arguments, "--masks_per_band", 10, "--out", settings)
    assert done.code == 0
    assert f"{NUM} predictions; see {settings}" in done.out
    assert "edge spread" in done.out
    assert f"Fitted to {NUM} predictions." in settings.read_text()
    config = read_config(settings)
    of_outline = sum(config.probabilities[kind] for kind in ("identity", "over", "under", "shift"))
    assert of_outline > 0.8
    picture = tmp_path / "corruption.jpg"
    drawn = command("data", "corruption-gallery", "--config", settings, "--out", picture)
    assert drawn.code == 0
    assert f"see {picture}" in drawn.out
    assert cv2.imread(str(picture)).shape[1] > 800


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--fold", "1"), "at least 20"),
        (("--fold", "7"), "images of fold 7"),
        (("--seed", "-1"), "--seed"),
        (("--masks_per_band", "2"), "masks_per_band"),
    ],
)
def test_wrong_use_is_named(
    command: Command, predicted: Path, tmp_path: Path, more: tuple[str, str], message: str
) -> None:
    if more == ("--fold", "1"):
        preds = tmp_path / "preds"
        preds.mkdir()
        for name in ("00.npy", "02.npy"):
            (preds / name).write_bytes((predicted / "preds" / name).read_bytes())
    else:
        preds = predicted / "preds"
    done = command(
        "data",
        "fit-corruption",
        *("--manifest", predicted / "manifest.csv", "--preds", preds, *more),
        *("--out", tmp_path / "corruption.yaml"),
    )
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "corruption.yaml").exists()


def test_too_few_usable_predictions_are_explained(
    command: Command, predicted: Path, tmp_path: Path
) -> None:
    for path in (predicted / "preds").iterdir():
        write_probability(tmp_path / "preds" / path.name, np.load(path)[:50])
    done = command(
        "data",
        "fit-corruption",
        *("--manifest", predicted / "manifest.csv", "--preds", tmp_path / "preds"),
        *("--out", tmp_path / "corruption.yaml"),
    )
    assert done.code == 2
    assert "at least 20" in done.err
    assert "skipped: 00: " in done.err
    assert "120x50 px" in done.err


def test_the_gallery_shows_every_type(command: Command, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for picture, seed in zip(pictures, (0, 0, 1), strict=True):
        done = command("data", "corruption-gallery", "--seed", seed, "--out", picture)
        assert done.code == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes() != pictures[2].read_bytes()
    wrong = command("data", "corruption-gallery", "--out", tmp_path / "a.txt")
    assert wrong.code == 2
    assert ".jpg" in wrong.err
    unknown = command("data", "corruption-gallery", "--config", "none", "--out", pictures[0])
    assert unknown.code == 2
    assert "cannot read none" in unknown.err

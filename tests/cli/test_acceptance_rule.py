"""``refine`` and ``predict`` use a calibrated checkpoint's rule, and say where it is in doubt."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command, read_rows
from PIL import Image

from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.precision import bf16_is_fast
from ultrarefiner.refine.acceptance import SIGNS, AcceptanceRule
from ultrarefiner.refine.checkpoint import add_rule, load_refiner

FIRST = "phantom-7-0000"
NANO = PRETRAINED["nano"].verify()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that trusts no refinement of masks of its own network."""
    rule = AcceptanceRule(
        weights=dict.fromkeys(SIGNS, 1.0),
        threshold=math.inf,
        alpha=0.05,
        delta=0.02,
        eta=0.05,
        method="learn-then-test",
        source="network",
        scores=(-1.0, -0.5),
        binding=load_refiner("nano").binding,
        num_images=2,
        num_patients=2,
        bf16=bf16_is_fast(torch.device("cpu")),
    )
    path = tmp_path_factory.mktemp("checkpoint") / "calibrated.safetensors"
    path.write_bytes(add_rule(NANO, rule))
    return path


@pytest.fixture
def images(phantoms: Path, tmp_path: Path) -> Path:
    """A folder of one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(phantoms / "images" / f"{FIRST}.png", folder)
    return folder


def _mask(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{FIRST}.png"))


def test_predict_keeps_what_the_rule_does_not_trust(
    calibrated: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    arguments = ("--checkpoint", calibrated, "--images", images, "--device", "cpu", "--out", out)
    done = command("predict", *arguments)
    assert done.code == 0
    assert "1 image segmented, 0 of them refined" in done.out
    assert "note" not in done.err
    row = read_rows(out)[FIRST]
    assert row["accepted"] == "no"
    assert row["reason"].startswith("calibrated rule: ")
    assert float(row["score"]) < 0
    assert np.array_equal(_mask(out / "masks"), _mask(out / "coarse"))
    flipped = command("predict", *arguments, "--flips")
    assert flipped.code == 2
    assert "setting flips of checkpoint" in flipped.err
    assert "what its acceptance rule was calibrated with: False" in flipped.err


def test_refine_says_that_the_masks_are_others(
    calibrated: Path, images: Path, phantoms: Path, tmp_path: Path, command: Command
) -> None:
    coarse, out = tmp_path / "coarse", tmp_path / "out"
    coarse.mkdir()
    shutil.copy(phantoms / "coarse" / f"{FIRST}.png", coarse)
    arguments = ("--images", images, "--coarse", coarse, "--device", "cpu", "--out", out)
    done = command("refine", "--checkpoint", calibrated, *arguments)
    assert done.code == 0
    assert "0 masks refined, 1 kept as given" in done.out
    assert "note: acceptance rule: calibrated on masks of the checkpoint's own network" in done.err
    assert np.array_equal(_mask(out / "masks"), _mask(coarse))
    free = command("refine", "--checkpoint", calibrated, "--no-rule", *arguments)
    assert f"note: {calibrated}: its acceptance rule is left out, as asked" in free.err
    assert "1 mask refined, 0 kept as given" in free.out
    assert read_rows(out)[FIRST]["score"] == ""
    assert not np.array_equal(_mask(out / "masks"), _mask(coarse))


@pytest.mark.parametrize("name", ["predict", "refine"])
def test_a_folder_with_a_calibrated_checkpoint_is_remarked_on(
    name: str, calibrated: Path, images: Path, phantoms: Path, tmp_path: Path, command: Command
) -> None:
    folder, coarse = tmp_path / "run", tmp_path / "coarse"
    for made in (folder, coarse):
        made.mkdir()
    shutil.copy(NANO, folder / "joint.safetensors")
    shutil.copy(calibrated, folder)
    shutil.copy(phantoms / "coarse" / f"{FIRST}.png", coarse)
    given = ("--coarse", coarse) if name == "refine" else ()
    arguments = ("--checkpoint", folder, "--images", images, *given, "--out", tmp_path / "out")
    done = command(name, *arguments, "--device", "cpu")
    assert done.code == 0
    remark = f"note: {folder}: used without an acceptance rule; --checkpoint {folder / 'cal'}"
    assert remark in done.err
    other = command(name, *arguments, "--foundation", "medsam")
    assert other.code == 2
    assert "the one that it was trained with: lite-medsam, found medsam" in other.err


def test_a_changed_checkpoint_is_refused(
    calibrated: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    content = calibrated.read_bytes()
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = command("predict", "--checkpoint", changed, "--images", images, "--out", tmp_path / "o")
    assert done.code == 2
    assert "is void" in done.err
    assert "ultrarefiner calibrate" in done.err
    assert not (tmp_path / "o").exists()

"""All phases on two processes, by either launcher, from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killing import state_of

RECIPE = """
network: {encoder_weights: none, side: 64, decoder_channels: [32, 16, 16, 8, 8]}
phase1: {epochs: 2, batch_size: 2}
inner: {folds: 2, epochs: 1}
phase2: {epochs: 2, batch_size: 2, flips: false}
phase3: {epochs: 2, batch_size: 2, flips: false, frozen_epochs: 1}
inner_share: 0.25
"""


def train(launcher: list[str], manifest: Path, out: Path, *more: str) -> str:
    """Run the command with fold 3 held out, and return what it printed."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(RECIPE)
    command = [*launcher, "-m", "ultrarefiner", "train", recipe, "--manifest", manifest]
    done = subprocess.run(
        [*map(str, command), "--fold", "3", "--out", str(out), "--device", "cpu", *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_all_phases_on_two_processes(manifest: Path, tmp_path: Path) -> None:
    """torchrun, and Lightning's own processes, which it starts only where something is left to do.

    Both end in the same weights, and lines are printed once.
    """
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    said = train([torchrun, "--standalone", "--nproc-per-node", "2"], manifest, whole)
    for words in ("training on 6 images", "phase 1: DSC", "phase 2, after: ", "phase 3, after: "):
        assert said.count(words) == 1 + 2 * (words == "phase 1: DSC"), words
    gone = ("inner", "phase2", "phase3", "refiner.safetensors", "joint.safetensors")
    shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns(*gone))
    train([sys.executable], manifest, resumed, "--devices", "2", "--resume")
    left, right = (state_of(folder / "fold-3") for folder in (whole, resumed))
    assert left.keys() == right.keys()
    for name in ("coarse", "refiner", "joint"):
        torch.testing.assert_close(
            right[f"{name}.safetensors"], left[f"{name}.safetensors"], rtol=1e-4, atol=1e-6
        )

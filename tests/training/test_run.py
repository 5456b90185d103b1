"""All three phases on phantoms: what they leave, what they never read, and stops at any moment."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import assert_same, state_of, train_with_kills
from PIL import Image

from fakes.opened_files import opened_files
from ultrarefiner.cli import main
from ultrarefiner.coarse import encode_checkpoint, load_checkpoint
from ultrarefiner.coarse.checkpoint import COARSE
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.errors import ConfigError, InputError, LeakError
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.checkpoint import encode_refiner, load_refiner
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.lineage import card_digests
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.recipe import InnerConfig, Phase2Config, Phase3Config, TrainingRecipe
from ultrarefiner.training.run import TrainedFold, train_fold

CPU = RunOptions(hardware=Hardware(device="cpu"))


@pytest.fixture(scope="module")
def recipe(nano: TrainingRecipe) -> TrainingRecipe:
    """Batch statistics and stochastic depth in the coarse network, LiteMedSAM behind it."""
    return replace(
        nano,
        phase1=replace(nano.phase1, epochs=2, batch_size=2),
        inner=InnerConfig(folds=2, epochs=1),
        phase2=Phase2Config(epochs=2, batch_size=2, flips=False),
        phase3=Phase3Config(epochs=2, batch_size=2, flips=False, frozen_epochs=1),
    )


class Run:
    """An uninterrupted run with fold 3 held out; its seconds are those with cached embeddings."""

    def __init__(self, recipe: TrainingRecipe, manifest: Path, out: Path) -> None:
        self.recipe, self.manifest, self.out, self.folder = recipe, manifest, out, out / "fold-3"
        self.said: list[str] = []
        self.held_out = [record for record in read_manifest(manifest) if record.fold == "3"]
        self._heard, self.seconds = time.perf_counter(), 0.0
        with opened_files() as self.opened:
            self.result: TrainedFold = train_fold(
                recipe, manifest, out, fold="3", options=replace(CPU, say=self._hear)
            )
        self._hear("end")

    def _hear(self, line: str) -> None:
        now = time.perf_counter()
        if not line.startswith("embeddings: "):
            self.seconds += now - self._heard
        self._heard = now
        self.said.append(line)


@pytest.fixture(scope="module")
def whole(recipe: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(recipe, manifest, tmp_path_factory.mktemp("whole"))


def train_all(out: Path, resume: bool, recipe: TrainingRecipe, manifest: Path) -> None:
    torch.set_num_threads(1)
    train_fold(recipe, manifest, out, fold="3", options=replace(CPU, resume=resume))


def copy_of(run: Run, out: Path, *, without: tuple[str, ...] = ()) -> Path:
    shutil.copytree(run.out, out, ignore=shutil.ignore_patterns(*without))
    return out


def written(out: Path) -> dict[Path, int]:
    """Return when each state of a training was written."""
    found = {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")}
    assert found
    return found


def test_every_phase_leaves_a_checkpoint_with_its_story(whole: Run) -> None:
    names = ("coarse", "refiner", "joint")
    assert [path.name for path in whole.result.checkpoints] == [f"{n}.safetensors" for n in names]
    used = [record for record in read_manifest(whole.manifest) if record.fold != "3"]
    for phase, name in ((2, "refiner"), (3, "joint")):
        found = load_refiner(whole.folder / f"{name}.safetensors")
        card = json.loads((whole.folder / f"phase{phase}" / "run.json").read_text())
        assert found.card.items() <= card.items()
        assert found.card["phase"] == phase
        assert found.card["held_out_fold"] == "3"
        assert found.card["num_train"] + found.card["num_val"] == len(used)
        assert found.config == whole.recipe.refiner
        digests = card_digests(used)
        assert {key: found.card[key] for key in digests} == digests
    assert load_refiner(whole.folder).card["phase"] == 3  # a folder is its last phase
    assert any("phase 2, before: DSC" in line for line in whole.said)
    assert any("phase 3, after:  DSC" in line for line in whole.said)


def test_both_networks_learn_in_phase_3(whole: Run) -> None:
    before = load_refiner(whole.folder / "refiner.safetensors")
    after = load_refiner(whole.folder / "joint.safetensors")
    for one, other in ((before.network, after.network), (before.foundation, after.foundation)):
        states = one.state_dict(), other.state_dict()
        assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
    encoder = before.foundation.image_encoder.state_dict()
    for name, value in after.foundation.image_encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name


def test_no_mask_of_the_held_out_fold_is_read(
    whole: Run, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    """Files are recorded; and with garbage in their place all weights are the same."""
    masks = {record.mask for record in whole.held_out}
    assert not masks & whole.opened
    others = {r.mask for r in read_manifest(whole.manifest) if r.fold != "3"}
    assert others <= whole.opened  # the recorder sees masks
    records = read_manifest(whole.manifest)
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(b"no mask")
    manifest = tmp_path / "manifest.csv"
    write_manifest(manifest, [replace(r, mask=garbage) if r.fold == "3" else r for r in records])
    out = copy_of(whole, tmp_path / "run", without=("refiner*", "joint*", "phase2", "phase3"))
    train_fold(recipe, manifest, out, fold="3", options=replace(CPU, resume=True))
    assert_same(state_of(out / "fold-3"), state_of(whole.folder))


@pytest.mark.parametrize("phase", [1, 2])
def test_a_network_that_has_seen_the_held_out_patients_is_refused(
    phase: int, whole: Run, tmp_path: Path
) -> None:
    out = copy_of(whole, tmp_path / "run")
    path = out / "fold-3" / ("" if phase == 1 else "inner/fold-1") / "coarse.safetensors"
    found = load_checkpoint(path)
    card = dict(found.card) | {"patient_digests": card_digests(whole.held_out)["patient_digests"]}
    path.write_bytes(encode_checkpoint(found.network, card))
    with pytest.raises(LeakError, match=f"{path} has seen what is held out.*its patient"):
        train_fold(whole.recipe, whole.manifest, out, fold="3", phases=(3,), options=CPU)


def test_a_finished_run_is_not_trained_again(whole: Run, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "run")
    before = written(out)
    train_all(out, True, whole.recipe, whole.manifest)
    assert written(out) == before
    assert_same(state_of(out), state_of(whole.out))


def test_another_command_goes_on_with_what_is_there(whole: Run, tmp_path: Path) -> None:
    """What is finished keeps its bytes, since what comes after depends on them."""
    out = copy_of(whole, tmp_path / "run", without=("joint*", "phase3"))
    options = replace(CPU, resume=True, command="ultrarefiner train --resume")
    train_fold(whole.recipe, whole.manifest, out, fold="3", options=options)
    assert_same(state_of(out), state_of(whole.out))
    for name in (COARSE, "refiner.safetensors"):
        assert (out / "fold-3" / name).read_bytes() == (whole.folder / name).read_bytes()
    assert load_refiner(out / "fold-3").card["command"] == options.command


def test_the_story_of_a_run(whole: Run) -> None:
    story = json.loads((whole.folder / "training.json").read_text())
    names = ["phase 1", "inner fold-1", "inner fold-2", "phase 2", "phase 3"]
    assert [phase["name"] for phase in story["phases"]] == names
    plan = json.loads((whole.folder / "phase3" / "checkpoints" / "plan.json").read_text())
    assert story["data_sha256"] == plan["data_sha256"]
    with (whole.folder / "phase3" / "log" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = (whole.folder / "training.json").read_text().splitlines()
    assert any(re.fullmatch(r' *"val_dsc": \[[0-9.]+, [0-9.]+\],?', line) for line in lines)
    curves = story["phases"][-1]["curves"]
    assert curves.keys() == rows[0].keys()
    for name, column in curves.items():  # rates of 1e-6 too
        cells = [row[name] for row in rows]
        assert [value is None for value in column] == [not cell for cell in cells], name
        found = [value for value in column if value is not None]
        known = [float(cell) for cell in cells if cell]
        assert found == pytest.approx(known, rel=1e-4, abs=0), name


def test_a_new_phase_leaves_nothing_of_those_after_it(whole: Run, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "run")
    train_fold(whole.recipe, whole.manifest, out, fold="3", phases=(1,), options=CPU)
    left = {path.name for path in (out / "fold-3").glob("phase*/**/*") if path.is_file()}
    assert left == set()
    story = json.loads((out / "fold-3" / "training.json").read_text())
    assert [phase["name"] for phase in story["phases"]] == ["phase 1"]
    assert story["data_sha256"]


def test_what_later_phases_need_is_checked_first(whole: Run, tmp_path: Path) -> None:
    """Hours of phase 1 are not spent on a recipe that cannot go on; what is there stays."""
    out = copy_of(whole, tmp_path / "run")
    before = state_of(out)
    for changes, error, match in (
        ({"inner": InnerConfig(folds=20)}, InputError, "cannot make 20 inner folds"),
        ({"foundation": "sam-vit-x"}, ConfigError, "sam-vit-x"),
    ):
        with pytest.raises(error, match=match):
            train_fold(replace(whole.recipe, **changes), whole.manifest, out, fold="3", options=CPU)
    assert_same(state_of(out), before)


def test_other_masks_than_those_of_phase_1(whole: Run, manifest: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "run")
    records = list(read_manifest(manifest))
    trained = [i for i, record in enumerate(records) if record.fold != "3"]
    other = records[trained[1]].mask
    assert other is not None
    with Image.open(other) as mask:
        Image.new("L", mask.size).save(tmp_path / "other.png")
    records[trained[1]] = replace(records[trained[1]], mask=tmp_path / "other.png")
    changed = tmp_path / "changed.csv"
    write_manifest(changed, records)
    with pytest.raises(InputError, match=r"coarse.safetensors is of another run.*data"):
        train_fold(whole.recipe, changed, out, fold="3", phases=(2,), options=CPU)


def test_phase_3_goes_on_with_the_refiner_of_phase_2(whole: Run, tmp_path: Path) -> None:
    """Also what is a default in general must be what it was trained with."""
    out = copy_of(whole, tmp_path / "run")
    general = replace(whole.recipe, refiner=RefinerConfig())
    with pytest.raises(ConfigError, match=r"refiner.safetensors.*localizer"):
        train_fold(general, whole.manifest, out, fold="3", phases=(3,), options=CPU)
    path = out / "fold-3" / "refiner.safetensors"
    found = load_refiner(path)
    pipeline = found.refiner(device="cpu").pipeline
    for changes, match in (
        ({"split_sha256": "0" * 64}, "is of another run"),
        ({"recipe": found.card["recipe"] | {"foundation": "sam-vit-b"}}, "is of another run"),
        (card_digests(whole.held_out), "has seen what is held out"),
    ):
        path.write_bytes(
            encode_refiner(
                found.network,
                pipeline,
                foundation=whole.recipe.foundation,
                config=found.config,
                card=dict(found.card) | changes,
            )
        )
        with pytest.raises((InputError, LeakError), match=match):
            train_fold(whole.recipe, whole.manifest, out, fold="3", phases=(3,), options=CPU)


def test_a_phase_alone_gives_what_it_gave_in_the_row(whole: Run, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "run")
    joint = out / "fold-3" / "joint.safetensors"
    before = joint.read_bytes()
    joint.unlink()
    train_fold(whole.recipe, whole.manifest, out, fold="3", phases=(3,), options=CPU)
    assert joint.read_bytes() == before


def test_a_phase_that_only_spoils_keeps_its_start(whole: Run, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "run")
    spoiling = replace(whole.recipe.phase3, learning_rate=1.0, coarse_learning_rate=0.5)
    said: list[str] = []
    options = replace(CPU, say=said.append)
    recipe = replace(whole.recipe, phase3=spoiling)
    train_fold(recipe, whole.manifest, out, fold="3", phases=(3,), options=options)
    assert "phase 3: no epoch was as good as the start, which is kept" in said
    start, kept = (load_refiner(out / "fold-3" / f"{n}.safetensors") for n in ("refiner", "joint"))
    for one, other in ((start.network, kept.network), (start.foundation, kept.foundation)):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=2e-2, atol=1e-4)
    judged = kept.card["inner_validation"]
    assert kept.card["epoch"] == -1
    assert judged["after"] == judged["before"]


def test_phases_need_their_forerunners(whole: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no coarse network in .*Run phase 1 first"):
        train_fold(whole.recipe, whole.manifest, tmp_path, fold="3", phases=(2,), options=CPU)
    out = copy_of(whole, tmp_path / "run")
    other = replace(whole.recipe, network=replace(whole.recipe.network, side=96))
    with pytest.raises(InputError, match=r"coarse.safetensors is of another run.*side=96"):
        train_fold(other, whole.manifest, out, fold="3", phases=(3,), options=CPU)
    changed = replace(whole.recipe, phase2=replace(whole.recipe.phase2, learning_rate=2e-3))
    words = r"cannot resume .*phase2: .*found others .*: recipe.phase2.learning_rate: .+ -> 0.002\."
    with pytest.raises(InputError, match=words):
        train_fold(changed, whole.manifest, out, fold="3", options=replace(CPU, resume=True))


def test_a_dry_run_says_the_cost_and_leaves_nothing(whole: Run, tmp_path: Path) -> None:
    said: list[str] = []
    result = train_fold(
        whole.recipe,
        whole.manifest,
        tmp_path / "run",
        fold="3",
        dry_run=True,
        options=replace(CPU, say=said.append),
    )
    assert result.checkpoints == ()
    assert not (tmp_path / "run").exists()
    for part in ("phase 1", "2 inner networks", "embeddings", "phase 2", "phase 3"):
        assert any(line.startswith(part) and "estimated: " in line for line in said), part


def test_the_result_predicts_and_refines(whole: Run, tmp_path: Path) -> None:
    """From the command line: images alone, and masks of others through the same refiner."""
    predicted, refined = tmp_path / "predicted", tmp_path / "refined"
    few = whole.held_out[:2]
    write_manifest(tmp_path / "few.csv", few)
    arguments = ["--manifest", str(tmp_path / "few.csv"), "--out", str(predicted)]
    assert main(["predict", "--checkpoint", str(whole.folder), *arguments]) == 0
    stems = {record.image.stem for record in few}
    assert {path.stem for path in (predicted / "masks").iterdir()} == stems
    arguments = ["--coarse", str(predicted / "coarse"), "--out", str(refined)]
    chosen = tmp_path / "images"
    chosen.mkdir()
    for record in few:
        shutil.copy(record.image, chosen)
    arguments += ["--images", str(chosen), "--checkpoint", str(whole.folder)]
    assert main(["refine", *arguments]) == 0
    assert {path.stem for path in (refined / "masks").iterdir()} == stems


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "num_kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_killed_at_random_moments_of_all_phases(num_kills: int, whole: Run, tmp_path: Path) -> None:
    """SIGKILL, again and again: all weights, optimizers and curves are those of an unbroken run."""
    expected, num_met = state_of(whole.folder), 0
    rng = np.random.default_rng(num_kills)
    for number in itertools.count():
        if num_met >= num_kills:
            break
        out = tmp_path / f"killed-{number}"
        shutil.copytree(whole.out / "embeddings", out / "embeddings")
        moments = rng.uniform(0.1, 0.8, num_kills - num_met)
        num_met += train_with_kills(
            train_all, out, whole.recipe, whole.manifest, moments=moments, seconds=whole.seconds
        )
        assert_same(state_of(out / "fold-3"), expected)

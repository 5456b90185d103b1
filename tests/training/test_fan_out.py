"""All folds of a manifest: in turn, and over Ray, where one worker is killed and another leaks."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from killing import assert_same, state_of

from ultrarefiner.cli import main
from ultrarefiner.cli.train import conclude
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.errors import ConfigError, InputError, LeakError, UltraRefinerError
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.fan_out import Job, Outcome, folds_of, plan_jobs, train_in_turn
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.ray_workers import Share, train_over_ray
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.run import fold_folder

CPU = RunOptions(hardware=Hardware(device="cpu"))


@pytest.fixture(scope="module")
def job(nano: TrainingRecipe, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Phase 1 of a small network: five epochs of three steps."""
    network = replace(nano.network, name="unet", decoder_channels=(32, 16, 16, 8, 8))
    recipe = replace(nano, network=network, phase1=replace(nano.phase1, epochs=5, batch_size=2))
    return Job(
        recipe=recipe, manifest=manifest, out=tmp_path_factory.mktemp("in turn"), phases=(1,)
    )


@pytest.fixture(scope="module")
def short(job: Job) -> Job:
    """One epoch of it."""
    return replace(job, recipe=replace(job.recipe, phase1=replace(job.recipe.phase1, epochs=1)))


@pytest.fixture(scope="module")
def leaky(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with a patient of fold 2 in fold 3 too."""
    records = list(read_manifest(manifest))
    two, three = (next(r for r in records if r.fold == fold) for fold in "23")
    records[records.index(three)] = replace(three, patient=two.patient)
    path = tmp_path_factory.mktemp("leaky") / "manifest.csv"
    write_manifest(path, records)
    return path


class Told:
    """Lines that were said, and folders that were reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.finished: list[Path] = []

    def options(self) -> RunOptions:
        return replace(
            CPU, say=self.lines.append, warn=self.warnings.append, finished=self.finished.append
        )


@pytest.fixture(scope="module")
def in_turn(job: Job) -> Told:
    told = Told()
    outcomes = train_in_turn(plan_jobs(job, folds=folds_of(job.manifest)), told.options())
    assert [outcome.error for outcome in outcomes] == [None] * 3
    return told


def test_every_fold_in_turn(job: Job, in_turn: Told) -> None:
    assert sorted(path.name for path in job.out.iterdir()) == ["fold-1", "fold-2", "fold-3"]
    names = [line.partition(": ")[0] for line in in_turn.lines]
    assert names == sorted(names)
    assert set(names) == {"fold 1", "fold 2", "fold 3"}
    assert [path.name for path in in_turn.finished] == ["fold-1", "fold-2", "fold-3"]
    states = [state_of(job.out / f"fold-{fold}")["coarse.safetensors"] for fold in (1, 2)]
    assert any(not np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_seeds_have_folders_of_their_own_and_share_the_embeddings(job: Job) -> None:
    jobs = plan_jobs(job, folds=("1", "2"), seeds=(0, 7))
    assert [one.name for one in jobs] == [f"seed {s}, fold {f}" for s in (0, 7) for f in (1, 2)]
    assert [one.recipe.seed for one in jobs] == [0, 0, 7, 7]
    folders = [fold_folder(one.out, one.fold).relative_to(job.out) for one in jobs]
    assert [str(path) for path in folders] == [f"seed-{s}/fold-{f}" for s in (0, 7) for f in (1, 2)]
    assert {one.embeddings for one in jobs} == {job.out / "embeddings"}
    (alone,) = plan_jobs(job, seeds=(7,))
    assert (alone.name, alone.out, alone.recipe.seed) == ("", job.out, 7)
    with pytest.raises(ConfigError, match="seeds: expected each one once, found 1, 1"):
        plan_jobs(job, seeds=(1, 1))


def test_one_that_fails_does_not_stop_those_after_it(
    short: Job, leaky: Path, tmp_path: Path
) -> None:
    told = Told()
    first, second, last = plan_jobs(replace(short, out=tmp_path), folds=("1", "nowhere", "2"))
    outcomes = train_in_turn((replace(first, manifest=leaky), second, last), told.options())
    assert [type(outcome.error) for outcome in outcomes] == [LeakError, InputError, type(None)]
    assert outcomes[2].trained is not None
    assert [line.partition(": given up: ")[0] for line in told.warnings] == [
        "fold 1",
        "fold nowhere",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["fold-2"]


def test_what_was_not_begun_is_begun_and_what_an_older_run_left_is_not_resumed(
    short: Job, tmp_path: Path
) -> None:
    """A new run that was stopped in its first fold: of the second only an older run's is there."""
    older = replace(short, recipe=replace(short.recipe, seed=5), out=tmp_path / "run")
    train_in_turn(plan_jobs(older, folds=("1", "2")), CPU)
    jobs = plan_jobs(replace(short, out=older.out), folds=("1", "2"))

    class StopError(Exception):
        pass

    def stop(folder: Path) -> None:
        raise StopError

    with pytest.raises(StopError):
        train_in_turn(jobs, replace(CPU, finished=stop))
    resumed = train_in_turn(jobs, replace(CPU, resume=True))
    assert [outcome.error for outcome in resumed] == [None, None]
    whole = plan_jobs(replace(short, out=tmp_path / "whole"), folds=("1", "2"))
    train_in_turn(whole, CPU)
    assert_same(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))


@pytest.mark.timeout(600)
def test_over_ray_a_killed_worker_s_fold_is_resumed_and_a_leak_is_not_tried_again(
    job: Job, in_turn: Told, leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers; that of fold 2 gets a SIGKILL once an epoch is kept. Same bits as in turn."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told, killed = Told(), list[int]()
    heard: set[str] = set()

    def finished(folder: Path) -> None:
        told.finished.append(folder)
        heard.update(addresses_listened_to())

    leaking = replace(job, manifest=leaky, fold="3", out=tmp_path / "leaky", name="leaky")
    jobs = (*plan_jobs(replace(job, out=tmp_path), folds=("1", "2")), leaking)
    killing = (told, tmp_path / "fold-2", killed)
    threading.Thread(target=kill_once, args=killing, daemon=True).start()
    options = replace(told.options(), finished=finished)
    outcomes = train_over_ray(jobs, options, num_workers=2)
    assert len(killed) == 1
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 2 + [LeakError]
    assert told.warnings[0] == "fold 2: its worker died; another one goes on"
    assert len(told.warnings) == 2
    assert told.warnings[1].startswith("leaky: given up: ")
    assert sum(": process " in line for line in told.lines) == 4
    assert sorted(path.name for path in told.finished) == ["fold-1", "fold-2"]
    for fold in ("1", "2"):
        assert_same(state_of(tmp_path / f"fold-{fold}"), state_of(job.out / f"fold-{fold}"))
    assert heard
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def kill_once(told: Told, folder: Path, killed: list[int]) -> None:
    """Wait until fold 2 has kept an epoch, and kill its worker."""
    limit = time.monotonic() + 300
    while not killed and time.monotonic() < limit:
        found = re.search(r"fold 2: process (\d+) on ", "\n".join(told.lines))
        if found and (folder / "checkpoints" / "last.ckpt").is_file():
            os.kill(int(found[1]), signal.SIGKILL)
            killed.append(int(found[1]))
        time.sleep(0.02)


def addresses_listened_to() -> set[str]:
    """Return where the processes that this one has started, and theirs, can be reached."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[stat.parent.name] = stat.read_text().rpartition(")")[2].split()[1]
    family = {str(os.getpid())}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    sockets = set()
    for pid in family:
        with suppress(OSError):
            links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    listening = "0A"
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == listening and inode in sockets:
                words = bytes.fromhex(local.partition(":")[0])
                ordered = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(ip_text(ordered))
    return found


def ip_text(octets: bytes) -> str:
    """Return an address as text; one of IPv4 that is written as IPv6 keeps its prefix."""
    address = ipaddress.ip_address(octets)
    mapped = getattr(address, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(address)


@pytest.mark.parametrize(
    ("nodes", "num_jobs", "wanted", "share"),
    [
        ([(2, 0)], 5, None, (2, 1, 0)),
        ([(16, 0)], 3, None, (3, 5, 0)),
        ([(16, 0)], 5, 2, (2, 8, 0)),
        ([(8, 0), (8, 0)], 3, None, (3, 4, 0)),  # 16 // 3 = 5, of which one fits on each machine
        ([(2, 0)], 5, 4, (4, 1, 0)),
        ([(16, 4)], 10, None, (4, 4, 1)),
        ([(16, 1)], 3, 3, (3, 5, 0.3333)),
    ],
)
def test_machines_are_shared_out(
    nodes: list[tuple[int, int]], num_jobs: int, wanted: int | None, share: tuple[float, ...]
) -> None:
    found = Share.of(nodes, num_jobs, wanted=wanted)
    assert (found.num_workers, found.num_cores, found.num_gpus) == share


def test_the_cpu_leaves_gpus_alone() -> None:
    assert Share.of([(16, 1)], 3, device="cpu").num_gpus == 0


@pytest.mark.parametrize(
    ("hardware", "num_workers", "words"),
    [
        (Hardware(device="cpu", num_devices=2), 2, "one process for each training, found 2"),
        (Hardware(device="cuda:1"), 2, "Ray says which one, found cuda:1"),
        (Hardware(device="cpu"), 0, "workers: expected >= 1"),
    ],
)
def test_what_ray_does_not_go_with(
    job: Job, hardware: Hardware, num_workers: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train_over_ray([job], RunOptions(hardware=hardware), num_workers=num_workers)


def test_ray_is_an_extra(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"the package ray, found none.*ultrarefiner\[ray\]"):
        train_over_ray([job], replace(CPU, resume=True))


# The command

RECIPE = "network: {encoder_weights: none, side: 64}\ninner_share: 0.25\n"


def test_the_command_names_every_fold_that_fails(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nano.yaml").write_text(RECIPE)
    arguments = ["train", str(tmp_path / "nano.yaml"), "--manifest", str(leaky), "--fold", "all"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 3
    errors = re.findall("^error: (.*?): the manifest leaks", capsys.readouterr().err, re.MULTILINE)
    assert errors == ["fold 1", "fold 2", "fold 3"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([None, None], 0),
        ([UltraRefinerError("its worker died"), None], 1),
        ([InputError("no file"), UltraRefinerError("its worker died")], 2),
        ([InputError("no file"), LeakError("a patient")], 3),
    ],
)
def test_the_exit_code_is_that_of_the_gravest(
    job: Job, errors: list[UltraRefinerError | None], code: int
) -> None:
    assert conclude([Outcome(job=job, error=error) for error in errors]) == code

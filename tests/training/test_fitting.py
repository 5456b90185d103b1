"""One training like another: stopped and resumed, on two processes, or met by a NaN."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_fit
import torch
from killing import assert_same, finish, start
from tiny_fit import SCHEDULE, StopError, TinyData, TinyModule, fit_tiny, load, with_statistics
from torch import nn

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.training.engine import checkpoints
from ultrarefiner.training.engine.averaging import WeightAverage
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.engine.loaders import EpochSampler, training_loader


def kept(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on how often a run was stopped."""
    last = load(folder / "checkpoints" / "last.ckpt")
    del last["seconds"]
    best = load(folder / "checkpoints" / "best.ckpt")
    return {"last": last, "best": best, "log": (folder / "log" / "metrics.csv").read_bytes()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    fit_tiny(with_statistics(), folder)
    return folder


def stopping(num_steps: int) -> TinyModule:
    module = with_statistics()
    module.stop_after = num_steps
    return module


def test_what_is_left(whole: Path) -> None:
    log = rows(whole)
    assert list(log[0]) == ["epoch", "step", "grad_norm", "lr", "train_loss", "val_dsc"]
    assert [(row["epoch"], row["step"]) for row in log] == [
        ("0", "2"),
        ("1", "4"),
        ("2", "6"),
        ("3", "8"),
    ]
    assert all(float(row["grad_norm"]) > 0 for row in log)
    best = load(whole / "checkpoints" / "best.ckpt")
    scores = [float(row["val_dsc"]) for row in log]
    assert (best["epoch"], best["val_dsc"]) == (scores.index(max(scores)), max(scores))


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5, 6])
def test_stopped_and_resumed_is_the_same_to_the_bit(
    whole: Path, tmp_path: Path, num_steps: int
) -> None:
    """Before the first epoch is over, at its border, in the middle of the third, in the last."""
    with pytest.raises(StopError):
        fit_tiny(stopping(num_steps), tmp_path)
    module = with_statistics()
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(1 if num_steps < 2 else 0)  # what counts is what was kept
    fit_tiny(module, tmp_path, resume=True)
    assert module.num_steps == 8 - num_steps // 2 * 2
    assert_same(kept(tmp_path), kept(whole))


def test_processes_that_load_change_nothing(whole: Path, tmp_path: Path) -> None:
    """They load ahead: what they load after a resume must be of the epoch that is resumed."""
    with pytest.raises(StopError):
        fit_tiny(stopping(5), tmp_path, data=TinyData(num_workers=1))
    fit_tiny(with_statistics(), tmp_path, data=TinyData(num_workers=1), resume=True)
    assert_same(kept(tmp_path), kept(whole))


@pytest.mark.parametrize("num_writes", range(6))
def test_killed_while_writing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_writes: int
) -> None:
    """Between best and last, and between last and the log, nothing is lost or counted twice."""
    save, calls = checkpoints.save_state, list[Path]()

    def save_some(path: Path, state: Any) -> None:
        if len(calls) == num_writes:
            raise StopError
        calls.append(path)
        save(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_state", save_some)
        with pytest.raises(StopError):
            fit_tiny(with_statistics(), tmp_path)
    fit_tiny(with_statistics(), tmp_path, resume=True)
    assert_same(kept(tmp_path), kept(whole))


def test_killed_before_the_last_log(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.Curves.write

    def write_some(self: Any, rows: Any) -> None:
        if len(rows) == SCHEDULE.epochs:
            raise StopError
        write(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Curves, "write", write_some)
        with pytest.raises(StopError):
            fit_tiny(with_statistics(), tmp_path)
    fit_tiny(with_statistics(), tmp_path, resume=True)
    assert_same(kept(tmp_path), kept(whole))


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    before = kept(whole)
    module = with_statistics()
    first = fit_tiny(module, whole, resume=True)
    assert module.num_steps == 0
    assert first == fit_tiny(with_statistics(), whole, resume=True)
    assert first.val_dsc == before["best"]["val_dsc"]
    assert first.minutes > 0
    assert "in epoch" in first.describe()
    assert_same(dict(module.state_dict()), before["best"]["state_dict"])
    assert_same(kept(whole), before)


def test_a_fresh_run_leaves_nothing_of_the_one_before(whole: Path, tmp_path: Path) -> None:
    fit_tiny(with_statistics(), tmp_path, schedule=replace(SCHEDULE, epochs=6), plan={"b": 2})
    fit_tiny(with_statistics(), tmp_path)
    assert_same(kept(tmp_path), kept(whole))
    assert json.loads((tmp_path / "checkpoints" / "plan.json").read_text()) == {"a": 1}
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    events = "events.out.tfevents.0.ultrarefiner"
    assert names == ["best.ckpt", events, "last.ckpt", "metrics.csv", "plan.json"]


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        fit_tiny(with_statistics(), tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []
    fit_tiny(with_statistics(), tmp_path)
    with pytest.raises(InputError, match=r"cannot resume .*found others .*: a: 1 -> 2\."):
        fit_tiny(with_statistics(), tmp_path, resume=True, plan={"a": 2})
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot read checkpoint .*last\.ckpt"):
        fit_tiny(with_statistics(), tmp_path, resume=True)


def test_an_error_tells_what_was_changed(tmp_path: Path) -> None:
    files = checkpoints.RunFiles(tmp_path)
    recipe = {"phase1": {"epochs": 5, "sides": [1, 2]}, "seed": 0, "x": None}
    was = {"recipe": recipe, "sha256": "a" * 64}
    files.start(was)
    files.check_plan({"sha256": "a" * 64, "recipe": dict(reversed(recipe.items()))})
    now = {"recipe": {"phase1": {"epochs": 3, "sides": [1, 3]}, "seed": 0, "y": 0.5}}
    with pytest.raises(checkpoints.ResumeError) as refused:
        files.check_plan(now)
    changes = (
        "recipe.phase1.epochs: 5 -> 3",
        "recipe.phase1.sides: [1, 2] -> [1, 3]",
        "recipe.x: null -> absent and 2 more. Give the same ones",
    )
    assert "; ".join(changes) in str(refused.value)
    with pytest.raises(checkpoints.ResumeError, match=r': sha256: "a{23} -> "b{23}. Give'):
        files.check_plan(was | {"sha256": "b" * 64})


def test_a_nan_stops_the_run_and_reaches_nothing(whole: Path, tmp_path: Path) -> None:
    """In the third epoch; the error names the image, and the run can go on without it."""
    order = [index for _, index in _epoch(EpochSampler(10, 5), 2)]
    module = with_statistics()
    with pytest.raises(InputError, match=r"stopped in epoch 2, step 1, on the images ") as stop:
        fit_tiny(module, tmp_path, data=TinyData(bad=(2, order[5])))
    assert all(f"{index}.png" in str(stop.value) for index in order[4:8])
    assert "loss nan" in str(stop.value)
    broken = load(tmp_path / "checkpoints" / "not-finite.ckpt")
    assert (broken["epoch"], broken["step"]) == (2, 1)
    assert broken["batch"]["image"].isnan().sum() == 1
    for name, value in module.named_parameters():
        assert value.isfinite().all()
        assert torch.equal(value, broken["state_dict"][name]), name
    assert load(tmp_path / "checkpoints" / "last.ckpt")["epochs"] == 2
    fit_tiny(with_statistics(), tmp_path, resume=True)
    assert_same(kept(tmp_path), kept(whole))


def test_an_endless_gradient_of_a_finite_loss_stops_the_run(tmp_path: Path) -> None:
    class Steep(TinyModule):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = super().training_step(batch, index)
            return loss + (self.body[0].weight * 0).abs().sqrt().sum()  # slope 0 · ∞ at 0

    module = Steep()
    before = {name: value.clone() for name, value in module.named_parameters()}
    with pytest.raises(InputError, match=r"found loss 0\.\d+, length of the gradient nan"):
        fit_tiny(module, tmp_path)
    assert_same(
        dict(module.named_parameters()) | {}, {k: nn.Parameter(v) for k, v in before.items()}
    )


def test_a_score_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class Unscored(TinyModule):
        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_dsc", torch.tensor(float("nan")), on_epoch=True, batch_size=1)

    with pytest.raises(InputError, match="after epoch 0: expected a finite val_dsc"):
        fit_tiny(Unscored(), tmp_path)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """AdamW forgets the scale; SGD of rate 1 shows it: no step is longer than the bound."""

    class Plain(TinyModule):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module = Plain()
    start = [value.detach().clone() for value in module.parameters()]
    schedule = replace(SCHEDULE, epochs=1, max_grad_norm=1e-3, ema_decay=0.0)
    fit_tiny(module, tmp_path, schedule=schedule)
    moved = torch.stack(
        [(a - b).norm() for a, b in zip(start, module.parameters(), strict=True)]
    ).norm()
    assert 0 < moved <= 2 * 1e-3 * 1.001
    assert float(rows(tmp_path)[0]["grad_norm"]) > 1e-2


def test_the_bar_sees_every_step_that_is_left(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def track(items: Iterable[Any], total: int) -> Iterator[Any]:
        seen.append((total, 0))
        for item in items:
            seen[-1] = (total, seen[-1][1] + 1)
            yield item

    with pytest.raises(StopError):
        fit_tiny(stopping(3), tmp_path, track=track)
    fit_tiny(with_statistics(), tmp_path, track=track, resume=True)
    assert seen == [(8, 4), (6, 6)]


# The average


def test_the_average_follows_its_formula() -> None:
    module, average, expected = nn.Linear(1, 1, bias=False), WeightAverage(0.5), 0.0
    for step, value in enumerate([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0]):
        module.weight.data.fill_(value)
        average.update(module)
        share = min(0.5, (1 + step) / (10 + step))
        expected = value if step == 0 else share * expected + (1 - share) * value
        assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    average.swap(module)
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    average.swap(module)
    assert module.weight.item() == 29.0


def test_what_is_not_trained_has_no_average_and_what_rests_does_not_drift() -> None:
    module, average = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), WeightAverage(0.9)
    module[0].requires_grad_(False)
    start = module[1].weight.detach().clone()
    for _ in range(50):
        average.update(module)
    assert set(average.weights) == {"1.weight", "1.bias"}
    assert torch.equal(average.weights["1.weight"], start)


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    seen = []

    class Watching(TinyModule):
        def on_validation_epoch_start(self) -> None:
            seen.append(self.body[0].weight.detach().clone())

    module = Watching(nn.BatchNorm2d(4))
    fit_tiny(module, tmp_path)
    last = load(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(seen[-1], last["average"]["weights"]["body.0.weight"])
    assert not torch.equal(seen[-1], last["state_dict"]["body.0.weight"])
    best = load(tmp_path / "checkpoints" / "best.ckpt")
    assert torch.equal(seen[best["epoch"]], best["state_dict"]["body.0.weight"])
    assert torch.equal(module.body[0].weight, seen[best["epoch"]])


def test_without_an_average_the_weights_themselves_are_kept(tmp_path: Path) -> None:
    module = TinyModule()
    fit_tiny(module, tmp_path, schedule=replace(SCHEDULE, epochs=1, ema_decay=0.0))
    assert_same(
        load(tmp_path / "checkpoints" / "best.ckpt")["state_dict"],
        load(tmp_path / "checkpoints" / "last.ckpt")["state_dict"],
    )


# Several processes


def _epoch(sampler: EpochSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_share_the_batches_of_one(num_ranks: int) -> None:
    one = _epoch(EpochSampler(20, 7), 3)
    samplers = [
        EpochSampler(20, 7, batch_size=6, rank=rank, num_ranks=num_ranks)
        for rank in range(num_ranks)
    ]
    parts = [_epoch(sampler, 3) for sampler in samplers]
    size = 6 // num_ranks
    for batch in range(3):
        shared = [item for part in parts for item in part[batch * size : (batch + 1) * size]]
        assert shared == one[batch * 6 : (batch + 1) * 6]
    assert (
        [len(sampler) for sampler in samplers]
        == [len(part) for part in parts]
        == [3 * size] * (num_ranks)
    )


def test_a_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    class Three:
        global_rank, world_size = 0, 3

    for num_items, batch_size in ((10, 4), (2, 3)):
        with pytest.raises(ConfigError, match="batch_size: expected a multiple of the 3 processes"):
            training_loader(
                tiny_fit.TinyItems(num_items),
                batch_size=batch_size,
                seed=0,
                trainer=Three(),  # type: ignore[arg-type]
            )
    for name in ("num_devices", "num_nodes"):
        with pytest.raises(ConfigError, match=name):
            Hardware(**{name: 0})


def test_loading_does_not_touch_the_random_numbers_of_torch() -> None:
    before = torch.get_rng_state()
    list(training_loader(tiny_fit.TinyItems(10), batch_size=4, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def assert_close(one: Path, other: Path) -> None:
    """Compare two runs but for rounding, which Adam magnifies where a gradient is nearly 0."""
    left, right = kept(one), kept(other)
    for kind in ("last", "best"):
        torch.testing.assert_close(
            right[kind]["state_dict"], left[kind]["state_dict"], rtol=1e-4, atol=1e-6
        )
    assert len(left["last"]["rows"]) == len(right["last"]["rows"])
    for mine, theirs in zip(left["last"]["rows"], right["last"]["rows"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """In the environment that torchrun makes; a network without batch statistics."""
    finish(start(tiny_fit.train_rank, tmp_path / "one", 0, 1, 0))
    port = _free_port()
    finish(*(start(tiny_fit.train_rank, tmp_path / "two", rank, 2, port) for rank in range(2)))
    assert_close(tmp_path / "one", tmp_path / "two")
    # What one process has begun, two can finish.
    finish(start(tiny_fit.train_rank, tmp_path / "mixed", 0, 1, 0, 2))
    port = _free_port()
    finish(*(start(tiny_fit.train_rank, tmp_path / "mixed", rank, 2, port) for rank in range(2)))
    assert_close(tmp_path / "one", tmp_path / "mixed")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_both_launchers(tmp_path: Path, launcher: str) -> None:
    script = tiny_fit.__file__
    torchrun = Path(sys.executable).with_name("torchrun")
    command = {
        "lightning": [sys.executable, script, tmp_path / "two", "2"],
        "torchrun": [torchrun, "--standalone", "--nproc-per-node", "2", script, tmp_path / "two"],
    }
    done = subprocess.run(
        [str(word) for word in command[launcher]],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    finish(start(tiny_fit.train_rank, tmp_path / "one", 0, 1, 0))
    assert_close(tmp_path / "one", tmp_path / "two")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

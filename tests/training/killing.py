"""Run a training in a process of its own, kill it at given moments, resume it, and compare.

Processes are forked from a server that has imported everything already, so that each starts in
milliseconds.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

_LIMIT_S = 240.0
_PRELOADED = ("tiny_fit", "ultrarefiner.training.run")

Training = Callable[..., None]
"""Called with a folder and ``resume``; a function of a module, so that a process can find it."""


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a function in a process of its own."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=target, args=args, daemon=False)
    process.start()
    return process


def finish(*processes: BaseProcess) -> None:
    """Wait until all have ended well."""
    for process in processes:
        process.join(_LIMIT_S)
    for process in processes:
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def train_with_kills(
    train: Training, folder: Path, *args: Any, moments: Iterable[float], seconds: float
) -> int:
    """Train until it is finished, killed with SIGKILL at moments until these are used up.

    Args:
        train: called as ``train(folder, resume, *args)``.
        folder: of the run, in which a ``plan.json`` tells that there is something to resume.
        args: more of its arguments.
        moments: when to kill, as shares of an uninterrupted run, counted from each start.
        seconds: how long that takes.

    Returns:
        How many kills met a run in progress.
    """
    num_met = 0
    for moment in moments:
        process = start(train, folder, has_begun(folder), *args)
        process.join(moment * seconds)
        was_alive = process.is_alive()
        process.kill()
        process.join()
        state_of(folder)  # whatever is there can be read
        if not was_alive:
            assert process.exitcode == 0
            return num_met
        num_met += has_begun(folder)
    finish(start(train, folder, has_begun(folder), *args))
    return num_met


def has_begun(folder: Path) -> bool:
    """Tell whether there is something to resume."""
    return any(folder.rglob("plan.json"))


def state_of(folder: Path) -> dict[str, Any]:
    """Return all that a run leaves and that must not depend on how often it was stopped."""
    state: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.startswith("."):  # a kill left it half written
            continue
        if path.suffix == ".ckpt":
            content = torch.load(path, map_location="cpu", weights_only=True)
            content.pop("seconds", None)
            state[name] = content
        elif path.suffix == ".safetensors":
            state[name] = load_file(path)
        elif path.name == "metrics.csv":
            state[name] = path.read_bytes()
        elif path.name == "plan.json":
            state[name] = json.loads(path.read_text())
    return state


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Compare nested states to the bit."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride()), place
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{place}/{i}")
    else:
        assert one == other, place

"""Several trainings at the same time, over Ray: on this machine, or on a cluster.

Each job has a process of its own with its share of the cores. One that dies (killed, out of memory,
its machine gone) is started again and goes on from its last checkpoint, with the same result.

Ray is the optional extra ``ray``; it is imported when it is first asked for.
"""

from __future__ import annotations

import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ultrarefiner.errors import ConfigError, InputError, UltraRefinerError
from ultrarefiner.training.fan_out import Job, Outcome, forget_begun, named, train_job
from ultrarefiner.training.options import RunOptions

_STARTS = 4
_POLL_S = 0.5
_OBJECTS_BYTES = 100 * 2**20  # jobs and their outcomes are small; Ray wants 75 MiB at least
_ADDRESS = "RAY_ADDRESS"


def train_over_ray(
    jobs: Sequence[Job], options: RunOptions, *, num_workers: int | None = None
) -> tuple[Outcome, ...]:
    """Train jobs at the same time; one that fails does not stop the others.

    If the variable ``RAY_ADDRESS`` is set, on that cluster, whose machines must share the file
    system; else on this machine, where Ray then listens to nothing from outside.

    Args:
        jobs: what to train.
        options: how to carry it out; if it resumes, jobs that were not begun are begun. Workers
            draw no bar; all else that they tell is told here.
        num_workers: jobs at the same time; ``None`` for as many as there are GPUs, or cores if
            there is none to compute on.

    Returns:
        What came of each job, in their order.

    Raises:
        ConfigError: Ray is not installed, or the options do not go with it.
        InputError: no cluster at that address.
    """
    _check(options, num_workers)
    forget_begun(jobs, options)
    with _cluster(num_workers) as ray:
        share = Share.of(_nodes(ray), len(jobs), device=options.hardware.device, wanted=num_workers)
        options.say(f"{len(jobs)} trainings, {share.describe()}")
        return _Crew(ray, share, options).train(jobs)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How the machines are shared out.

    Attributes:
        num_workers: jobs at the same time.
        num_cores: of each.
        num_gpus: of each; a fraction if several share one.
    """

    num_workers: int
    num_cores: int
    num_gpus: float = 0.0

    @classmethod
    def of(
        cls,
        nodes: Sequence[tuple[int, int]],
        num_jobs: int,
        *,
        device: str = "auto",
        wanted: int | None = None,
    ) -> Share:
        """Share out equally.

        Args:
            nodes: cores and GPUs of each machine.
            num_jobs: how many there are.
            device: ``cpu`` leaves the GPUs alone.
            wanted: jobs at the same time; ``None`` for one on each GPU, or core without GPUs.

        Example:
            >>> Share.of([(8, 0), (4, 0)], 5)
            Share(num_workers=5, num_cores=2, num_gpus=0.0)
            >>> Share.of([(16, 2)], 5)
            Share(num_workers=2, num_cores=8, num_gpus=1.0)
            >>> Share.of([(16, 2)], 5, wanted=3)
            Share(num_workers=3, num_cores=5, num_gpus=0.5)
        """
        cores = [cores for cores, _ in nodes]
        gpus = 0 if device == "cpu" else sum(gpus for _, gpus in nodes)
        num_workers = max(1, min(num_jobs, wanted or gpus or sum(cores)))
        fitting = (
            size
            for size in range(max(cores), 0, -1)
            if sum(num // size for num in cores) >= num_workers
        )
        # Ray counts GPUs in ten-thousandths.
        gpu = 10_000 // math.ceil(num_workers / gpus) / 10_000 if gpus else 0.0
        return cls(num_workers=num_workers, num_cores=next(fitting, 1), num_gpus=gpu)

    def describe(self) -> str:
        """Return it as part of a line."""
        gpus = f", GPUs each: {self.num_gpus:g}" if self.num_gpus else ""
        return f"{self.num_workers} at the same time; cores each: {self.num_cores}{gpus}"


class _Crew:
    """Hands out jobs to workers, and again those of workers that died."""

    def __init__(self, ray: ModuleType, share: Share, options: RunOptions) -> None:
        from ray.util.queue import Queue

        self._ray, self._share, self._options = ray, share, options
        self._lines = Queue(actor_options={"num_cpus": 0})
        self._work = ray.remote(num_cpus=share.num_cores, num_gpus=share.num_gpus, max_retries=0)(
            _work
        )
        self._running: dict[Any, Start] = {}

    def train(self, jobs: Sequence[Job]) -> tuple[Outcome, ...]:
        """Return what came of each job, in their order."""
        waiting = deque(Start(place=place, job=job) for place, job in enumerate(jobs))
        outcomes: dict[int, Outcome] = {}
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._share.num_workers:
                    start = waiting.popleft()
                    self._running[self._started(start)] = start
                done, _ = self._ray.wait(list(self._running), timeout=_POLL_S)
                for task in done:
                    start = self._running.pop(task)
                    outcome = self._outcome(task, start)
                    if outcome is None:
                        waiting.appendleft(replace(start, number=start.number + 1))
                    else:
                        outcomes[start.place] = outcome
                self._relay()
        finally:
            for task in self._running:
                self._ray.cancel(task, force=True)
        return tuple(outcomes[place] for place in range(len(jobs)))

    def _started(self, start: Start) -> Any:
        """Hand a job to a worker, and return Ray's reference to what will come of it."""
        own = RunOptions(
            hardware=self._options.hardware,
            resume=self._options.resume or start.number > 1,
            command=self._options.command,
        )
        desk = Desk(folder=Path.cwd(), num_threads=_num_threads(self._share.num_cores))
        return self._work.remote(start.job, own, desk, self._lines)

    def _outcome(self, task: Any, start: Start) -> Outcome | None:
        """Return what came of a job; nothing if its worker died and it is to be started again."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(task)
        except (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as death:
            warn = named(start.job, self._options).warn
            if start.number < _STARTS:
                warn("its worker died; another one goes on")
                return None
            error = UltraRefinerError(
                f"its worker died {start.number} times",
                found=str(death).partition("\n")[0],
                fix="Train fewer at the same time, and go on with --resume.",
            )
            warn(f"given up: {error}")
            return Outcome(job=start.job, error=error)
        return outcome

    def _relay(self) -> None:
        """Tell what the workers have told since."""
        tell: dict[str, Callable[[Any], None]] = {
            "say": self._options.say,
            "warn": self._options.warn,
            "finished": self._options.finished,
        }
        for kind, what in self._lines.get_nowait_batch(self._lines.size()):
            tell[kind](what)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job that a worker gets.

    Attributes:
        place: among all jobs, from 0.
        job: what to train.
        number: of the start, from 1.
    """

    place: int
    job: Job
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where a worker works.

    Attributes:
        folder: which paths are relative to.
        num_threads: that it computes with.
    """

    folder: Path
    num_threads: int


def _work(job: Job, options: RunOptions, desk: Desk, lines: Any) -> Outcome:
    """Train a job in a worker."""
    os.chdir(desk.folder)
    torch.set_num_threads(desk.num_threads)
    own = replace(
        options,
        say=lambda line: lines.put(("say", line)),
        warn=lambda line: lines.put(("warn", line)),
        finished=lambda folder: lines.put(("finished", folder)),
    )
    named(job, own).say(f"process {os.getpid()} on {socket.gethostname()}")
    return train_job(job, own)


def _num_threads(num_cores: int) -> int:
    """Return those of a worker: its cores, unless this process was told to use fewer."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(num_cores, int(told)) if told.isdecimal() and int(told) else num_cores


def _check(options: RunOptions, num_workers: int | None) -> None:
    """Refuse what cannot be combined."""
    if num_workers is not None and num_workers < 1:
        raise ConfigError("workers", expected=">= 1", found=str(num_workers))
    if options.hardware.num_processes > 1:
        raise ConfigError(
            "parallel ray",
            expected="one process for each training",
            found=f"{options.hardware.num_processes}",
            fix="Leave out --devices and --nodes, or --parallel.",
        )
    if ":" in options.hardware.device:
        raise ConfigError(
            "parallel ray",
            expected="device auto, cpu or cuda: Ray says which one",
            found=options.hardware.device,
        )


@contextmanager
def _cluster(num_workers: int | None) -> Iterator[ModuleType]:
    """Give Ray, connected to the cluster of ``RAY_ADDRESS`` or to one on this machine alone."""
    address = os.environ.get(_ADDRESS)
    ray = _import_ray(is_local=address is None)
    own: dict[str, Any] = {"address": address}
    if address is None:
        own = {
            "address": "local",  # a new one, not one that happens to run here
            "num_cpus": max(os.cpu_count() or 1, num_workers or 0),
            "object_store_memory": _OBJECTS_BYTES,
            "include_dashboard": False,
        }
    try:
        ray.init(**own, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as cause:
        raise InputError(
            f"cannot connect to the Ray cluster at {address}",
            found=str(cause).partition("\n")[0],
            fix=f"Start it with `ray start --head`, or unset {_ADDRESS} to train on this machine.",
        ) from cause
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray(*, is_local: bool) -> ModuleType:
    """Import Ray, and let it call nobody and listen, if it is local, only to this machine."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if is_local:
        # Whatever its name, without clusters all ports are those of the loopback interface.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.update(settings)
    try:
        import ray
    except ImportError as cause:
        raise ConfigError(
            "parallel ray",
            expected="the package ray",
            found="none",
            fix="Install it with `pip install ultrarefiner[ray]`.",
        ) from cause
    return ray


def _nodes(ray: ModuleType) -> list[tuple[int, int]]:
    """Return cores and GPUs of each machine."""
    return [
        (int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    ]

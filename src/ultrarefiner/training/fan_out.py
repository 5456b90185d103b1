"""The same training with several folds held out, or from several seeds: one job for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.errors import ConfigError, InputError, UltraRefinerError
from ultrarefiner.training.engine.hardware import is_first_process
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.run import PHASES, TrainedFold, fold_folder, plan_file, train_fold


@dataclass(frozen=True, kw_only=True)
class Job:
    """The training of one fold from one seed; a plain value, which can be sent to another process.

    Attributes:
        recipe: every setting.
        manifest: names images, masks, patients and folds.
        out: folder of the run.
        fold: fold to hold out; ``None`` for none.
        phases: those to run, in order.
        drop_leaks: leave out of the training who shares a scene with the held-out fold.
        dry_run: check the data and estimate the cost, but do not train.
        embeddings: folder of cached embeddings; ``None`` for ``out/embeddings``.
        name: what its lines begin with; nothing if it is the only one.
    """

    recipe: TrainingRecipe
    manifest: Path
    out: Path
    fold: str | None = None
    phases: tuple[int, ...] = PHASES
    drop_leaks: bool = False
    pseudo: Path | None = None
    dry_run: bool = False
    embeddings: Path | None = None
    name: str = ""

    @property
    def begun(self) -> Path:
        """The file that tells that the first of the phases was begun."""
        return plan_file(fold_folder(self.out, self.fold), min(self.phases))

    def train(self, options: RunOptions) -> TrainedFold:
        """Train; see :func:`~ultrarefiner.training.run.train_fold`."""
        return train_fold(
            self.recipe,
            self.manifest,
            self.out,
            fold=self.fold,
            phases=self.phases,
            drop_leaks=self.drop_leaks,
            pseudo=self.pseudo,
            dry_run=self.dry_run,
            embeddings=self.embeddings,
            options=options,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job: either of the two.

    Attributes:
        job: which.
        trained: what it left behind.
        error: why it was given up.
    """

    job: Job
    trained: TrainedFold | None = None
    error: UltraRefinerError | None = None


def plan_jobs(job: Job, *, folds: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[Job, ...]:
    """Return a job for each seed and fold. All share one cache of embeddings.

    With several seeds the runs go to ``out/seed-S``.

    Args:
        job: what they have in common.
        folds: to hold out, one after the other; that of the job if there are none.
        seeds: of the recipe; its own if there are none.

    Raises:
        ConfigError: a fold or seed is named twice.
    """
    for name, values in (("folds", folds), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise ConfigError(name, expected="each one once", found=", ".join(map(str, values)))
    jobs = []
    for seed in seeds or (job.recipe.seed,):
        for fold in folds or (job.fold,):
            names = [f"seed {seed}"] * (len(seeds) > 1) + [f"fold {fold}"] * (len(folds) > 1)
            jobs.append(
                replace(
                    job,
                    recipe=replace(job.recipe, seed=seed),
                    out=job.out / f"seed-{seed}" if len(seeds) > 1 else job.out,
                    fold=fold,
                    embeddings=job.embeddings or job.out / "embeddings",
                    name=", ".join(names),
                )
            )
    return tuple(jobs)


def folds_of(manifest: Path) -> tuple[str, ...]:
    """Return the names of the folds, in order.

    Raises:
        InputError: the manifest cannot be read, or has none.
    """
    names = {record.fold for record in read_manifest(manifest)} - {""}
    if not names:
        raise InputError(
            f"no image of {manifest} has a fold",
            fix="Write folds into it with `ultrarefiner data split`, or train without --fold.",
        )
    return tuple(sorted(names, key=lambda name: (len(name), name)))


def train_in_turn(jobs: Sequence[Job], options: RunOptions) -> tuple[Outcome, ...]:
    """Train one job after the other; one that fails does not stop those after it.

    That holds for a single process. Of several that train together all stop, since they would wait
    for each other.

    Args:
        jobs: what to train.
        options: how to carry it out; if it resumes, jobs that were not begun are begun.
    """
    forget_begun(jobs, options)
    go_on = options.hardware.num_processes == 1
    return tuple(train_job(job, options, go_on=go_on) for job in jobs)


def train_job(job: Job, options: RunOptions, *, go_on: bool = True) -> Outcome:
    """Train one job of several, whose lines begin with its name.

    Args:
        job: what to train.
        options: how to carry it out; if it resumes and nothing was begun, it begins.
        go_on: return an error instead of raising it.
    """
    own = replace(named(job, options), resume=options.resume and job.begun.is_file())
    try:
        return Outcome(job=job, trained=job.train(own))
    except UltraRefinerError as error:
        if not go_on:
            raise
        own.warn(f"given up: {error}")
        return Outcome(job=job, error=error)


def forget_begun(jobs: Sequence[Job], options: RunOptions) -> None:
    """Let nothing count as begun that an earlier run has left, unless it is resumed.

    Else a new run that is stopped before it came to a fold would be resumed with the old one's.

    Args:
        jobs: of the run that starts.
        options: how it is carried out.
    """
    if not options.resume and is_first_process():
        for job in jobs:
            if not job.dry_run:
                job.begun.unlink(missing_ok=True)


def named(job: Job, options: RunOptions) -> RunOptions:
    """Return options whose lines begin with the name of the job, if it has one.

    Args:
        job: of the lines.
        options: whom they tell.
    """
    if not job.name:
        return options
    return replace(
        options,
        say=lambda line: options.say(f"{job.name}: {line}"),
        warn=lambda line: options.warn(f"{job.name}: {line}"),
    )

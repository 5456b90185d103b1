"""A whole run: the coarse network, then the refiner, then both together, for one outer fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultrarefiner.coarse import COARSE_NETWORKS, load_checkpoint
from ultrarefiner.coarse.checkpoint import COARSE
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.precision import choose_device
from ultrarefiner.refine.checkpoint import JOINT, REFINER
from ultrarefiner.training.engine.checkpoints import RunFiles
from ultrarefiner.training.engine.hardware import is_first_process
from ultrarefiner.training.estimate_refinement import estimate_refinement
from ultrarefiner.training.lineage import content_fingerprint, refuse_contamination
from ultrarefiner.training.material import gather_material
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.out_of_fold import deal_inner_folds
from ultrarefiner.training.phase1 import STORY, prepare_coarse, train_coarse
from ultrarefiner.training.phase2 import train_refiner
from ultrarefiner.training.phase3 import train_jointly
from ultrarefiner.training.pseudo_labels import read_pseudo_labels
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import TrainingSplit, split_for_training
from ultrarefiner.training.story import write_story

PHASES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class TrainedFold:
    """What a run of one outer fold left behind.

    Attributes:
        checkpoints: of each phase that was run, in order; none after a dry run.
        notes: name and remark of what was understood with a caveat.
    """

    checkpoints: tuple[Path, ...]
    notes: tuple[tuple[str, str], ...]


def train_fold(
    recipe: TrainingRecipe,
    manifest: Path,
    out: Path,
    *,
    fold: str | None = None,
    phases: tuple[int, ...] = PHASES,
    drop_leaks: bool = False,
    pseudo: Path | None = None,
    dry_run: bool = False,
    embeddings: Path | None = None,
    options: RunOptions | None = None,
) -> TrainedFold:
    """Train phases 1, 2 and 3 with one fold held out, which no phase looks at.

    Args:
        recipe: every setting.
        manifest: names images, masks, patients and folds.
        out: folder of the run; results go to :func:`fold_folder`.
        fold: fold to hold out.
        phases: those to run, in order; earlier ones must have been run into the same folder.
        drop_leaks: leave out of the training who shares a scene with the held-out fold.
        pseudo: folder of ``predict`` with masks for training images that have no true one.
        dry_run: check the data and estimate the cost, but do not train.
        embeddings: folder of cached embeddings, which runs may share; ``None`` for
            ``out/embeddings``.
        options: how to carry it out.

    Raises:
        ConfigError: ``pseudo`` with a network of several classes.
        InputError: the manifest or a file in it cannot be used, or an earlier phase is missing or
            was another run's.
        LeakError: a scene or patient is learned from and held out, or was seen by a network whose
            predictions are learned from.
    """
    options = options or RunOptions()
    if pseudo and recipe.network.num_classes > 1:
        raise ConfigError(
            "--pseudo", expected="a network of one class", found=f"{recipe.network.num_classes}"
        )
    labels = read_pseudo_labels(pseudo) if pseudo else None
    split = split_for_training(
        manifest, recipe, fold=fold, drop_leaks=drop_leaks, pseudo=labels, track=options.track
    )
    options.say(split.describe())
    if split.teachers:
        _check_knowledge(split.barred, split.teachers, options)
    if phases != (1,):  # else hours of phase 1 may be for nothing
        _ = COARSE_NETWORKS[recipe.network.name], FOUNDATION_MODELS[recipe.foundation]
        deal_inner_folds((*split.train, *split.val), recipe)
    folder, cache = fold_folder(out, fold), embeddings or out / "embeddings"
    if dry_run:
        _estimate(recipe, split, phases, options)
        return TrainedFold(checkpoints=(), notes=split.notes)
    _forget(folder, phases, options)
    checkpoints = []
    for checkpoint in _train(recipe, split, folder, cache, phases=phases, options=options):
        if is_first_process():
            write_story(folder)
            options.finished(folder)
        checkpoints.append(checkpoint)
    return TrainedFold(checkpoints=tuple(checkpoints), notes=split.notes)


def _train(
    recipe: TrainingRecipe,
    split: TrainingSplit,
    folder: Path,
    embeddings: Path,
    *,
    phases: tuple[int, ...],
    options: RunOptions,
) -> Iterator[Path]:
    """Run the phases in order, and yield the checkpoint of each."""
    if 1 in phases:
        yield train_coarse(recipe, split, folder, options)
    if phases == (1,):
        return
    phase1 = _phase1_card(recipe, split, folder)
    # Inner networks that fit recipe and split are as good as new, unless all is to be new.
    inner = replace(options, resume=options.resume or 1 not in phases)
    material = gather_material(recipe, split, folder, inner, embeddings=embeddings)
    cards = {str(folder / COARSE): phase1, **material.out_of_fold.cards}
    _check_knowledge(split.held_out, cards, options)
    for phase, train in ((2, train_refiner), (3, train_jointly)):
        if phase in phases:
            begun = plan_file(folder, phase).is_file()
            yield train(material, folder, replace(options, resume=options.resume and begun))


def _check_knowledge(
    held_out: Sequence[Record], cards: Mapping[str, Mapping[str, Any]], options: RunOptions
) -> None:
    """Make sure that no network whose answers are learned from knows who is held out."""
    for name, remark in refuse_contamination(held_out, cards):
        options.warn(f"{name}: {remark}")


def _estimate(
    recipe: TrainingRecipe, split: TrainingSplit, phases: Sequence[int], options: RunOptions
) -> None:
    """Say what the phases will cost."""
    if 1 in phases:
        prepare_coarse(recipe, split, options)
    if 2 in phases or 3 in phases:
        device = choose_device(options.hardware.device)
        for line in estimate_refinement(recipe, len(split.learned), len(split.val), device):
            options.say(line)


def fold_folder(out: Path, fold: str | None) -> Path:
    """Return where a run with this fold held out is kept; ``out/all`` if none is."""
    return out / ("all" if fold is None else f"fold-{fold}")


def plan_file(folder: Path, phase: int) -> Path:
    """Return the file that tells that a phase was begun."""
    return _files(folder, phase).plan


def _files(folder: Path, phase: int) -> RunFiles:
    return RunFiles(folder if phase == 1 else folder / f"phase{phase}")


def _forget(folder: Path, phases: Sequence[int], options: RunOptions) -> None:
    """Remove what would be taken for this run's: of a phase that starts anew and of those after."""
    if not options.resume and is_first_process():
        for phase, name in ((3, JOINT), (2, REFINER), (1, COARSE)):
            if phase >= min(phases):
                files = _files(folder, phase)
                (folder / name).unlink(missing_ok=True)  # first: who resumes keeps what is there
                (files.folder / STORY).unlink(missing_ok=True)
                files.forget()


def _phase1_card(recipe: TrainingRecipe, split: TrainingSplit, folder: Path) -> Mapping[str, Any]:
    """Return the story of the coarse network that phase 1 left.

    Raises:
        InputError: it is not there, or of another network or split, or of other images or masks.
    """
    path = folder / COARSE
    if not path.is_file():
        raise InputError(
            f"no coarse network in {folder}",
            expected=path.name,
            fix="Run phase 1 first, or all phases.",
        )
    found = load_checkpoint(path)
    own = replace(recipe.network, encoder_weights=found.network.config.encoder_weights)
    data = content_fingerprint(split.used)
    expected, card = (own, split.fingerprint, data), found.card
    # Cards of earlier versions do not tell the data.
    there = (found.network.config, card.get("split_sha256"), card.get("data_sha256", data))
    if there != expected:
        words = "network {}, split {:.12}, data {:.12}"
        raise InputError(
            f"{path} is of another run",
            expected=words.format(*expected),
            found=words.format(*map(str, there)),
            fix="Run phase 1 again, or give the recipe and manifest it was run with.",
        )
    return found.card

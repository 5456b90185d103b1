"""Masks of the training images by networks that have not seen the patient.

What a network predicts for images that it was trained on is too good to learn corrections from. So
the patients of an outer training set are dealt to inner folds, and each fold is predicted by a
network of phase 1 that was trained on the others. Who is held out outside takes no part.

A folder holds ``manifest.csv`` with the inner folds and, for each, ``fold-J/coarse.safetensors``
with all that phase 1 leaves beside it, and ``fold-J/out_of_fold.safetensors``: probabilities in 8
bits under the sha256 of each image file, and in the header the sha256 of all of them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.coarse.checkpoint import COARSE
from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.folds import assign_folds, groups_of
from ultrarefiner.data.manifest import Record, write_manifest
from ultrarefiner.data.readers import read_image
from ultrarefiner.errors import InputError, WeightsError
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.training.engine.checkpoints import ResumeError
from ultrarefiner.training.engine.hardware import is_first_process
from ultrarefiner.training.lineage import card_digests, content_fingerprint, refuse_contamination
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase1 import SETTINGS, train_coarse
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import split_records
from ultrarefiner.weights import file_sha256

_KEY, _FORMAT = "ultrarefiner", "out-of-fold-1"
_POLL_S, _ANOTHER_PREDICTS_S = 0.5, 24 * 3600.0

Maps = dict[str, UInt8[np.ndarray, "side side"]]
"""Probabilities, of 255, by the key of the image."""


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Predictions for training images, read when they are asked for; copies go to other processes.

    Attributes:
        side: of the square frame [px].
        cards: of the networks that made them, by the path of the checkpoint.
        places: by image, the file of its prediction and the key in it.
    """

    side: int
    cards: Mapping[str, Mapping[str, Any]]
    places: Mapping[Path, tuple[Path, str]]

    @cached_property
    def sha256(self) -> str:
        """Of all predictions together."""
        files = sorted({file for file, _ in self.places.values()})
        return hashlib.sha256("\n".join(map(file_sha256, files)).encode()).hexdigest()

    def probs(self, record: Record) -> Float32[np.ndarray, "side side"]:
        """Return the probability of a lesion in the letterboxed image, 0 in the padding.

        Raises:
            InputError: there is no prediction of this image, or it is gone.
        """
        if record.image not in self.places:
            raise InputError(
                f"no out-of-fold prediction of {record.image}",
                expected=f"one of the {len(self.places)} images of the outer training set",
            )
        file, key = self.places[record.image]
        try:
            with safe_open(file, framework="np") as stream:
                levels: UInt8[np.ndarray, "side side"] = stream.get_tensor(key)
        except (OSError, SafetensorError) as cause:
            raise InputError(
                f"cannot read {file}", found=str(cause), fix="Resume the training: it is made anew."
            ) from cause
        return levels.astype(np.float32) / np.float32(255)


def make_out_of_fold(
    recipe: TrainingRecipe,
    records: Sequence[Record],
    folder: Path,
    *,
    side: int,
    options: RunOptions,
    others: Sequence[Record] = (),
) -> OutOfFold:
    """Deal the training images to inner folds, train a network for each and predict it.

    Args:
        recipe: of the outer run; its networks, phase 1 and inner folds count.
        records: all that is learned from or chosen on outside, as ``split_for_training`` gives it:
            images of one scene share a ``duplicate_group``.
        folder: of the inner folds; what other runs left there is replaced.
        side: of the square frame of the predictions [px].
        options: how to carry it out; resuming keeps what is finished and was made of the same
            images with the same settings, and goes on with what is not.
        others: images that no inner network learns from, each predicted by one that does not know
            its patient or scene either; those whom all know get no prediction.

    Raises:
        InputError: there are too few patients, or a file cannot be used.
        LeakError: a network has seen a patient whom it should predict.
    """
    records = deal_inner_folds(records, recipe)
    manifest = folder / "manifest.csv"
    if is_first_process():
        write_manifest(manifest, records)
        if not options.resume:
            _clear(folder)
    cards: dict[str, Mapping[str, Any]] = {}
    places: dict[Path, tuple[Path, str]] = {}
    inner_recipe, num_folds = _inner_recipe(recipe), recipe.inner.folds
    shared_out = _share_out(others, records, num_folds)
    for fold in map(str, range(1, num_folds + 1)):
        inner = _InnerFold(
            inner_recipe,
            records,
            fold,
            others=shared_out[fold],
            manifest=manifest,
            options=options,
        )
        checkpoint = inner.network()
        inner.predict(checkpoint, side)
        cards[str(inner.checkpoint)] = checkpoint.card
        places |= {image: (inner.file, key) for image, key in inner.keys.items()}
    return OutOfFold(side=side, cards=cards, places=places)


def _share_out(
    others: Sequence[Record], dealt: Sequence[Record], num_folds: int
) -> dict[str, list[Record]]:
    """Return which images each inner network predicts beside its fold: of nobody whom it knows."""
    together = (*dealt, *others)
    shared: dict[str, list[Record]] = {str(fold + 1): [] for fold in range(num_folds)}
    for number, group in enumerate(groups_of(together)):
        members = [together[index] for index in group if index >= len(dealt)]
        folds = {together[index].fold for index in group if index < len(dealt)}
        if len(folds) <= 1:
            shared[min(folds, default=str(number % num_folds + 1))] += members
    return shared


def _clear(folder: Path) -> None:
    """Remove what would otherwise be taken up if this run is stopped and resumed."""
    for pattern in ("fold-*/*.safetensors", "fold-*/checkpoints/*"):
        for stale in folder.glob(pattern):
            stale.unlink(missing_ok=True)


def deal_inner_folds(records: Sequence[Record], recipe: TrainingRecipe) -> tuple[Record, ...]:
    """Return the images, sorted, each with its inner fold.

    Args:
        records: all that is learned from or chosen on outside.
        recipe: number of folds and seed.

    Raises:
        InputError: there are too few patients.
    """
    num_folds = recipe.inner.folds
    loose = [replace(record, fold="") for record in sorted(records, key=lambda r: r.image)]
    dealt: tuple[Record, ...] = ()
    if len(groups_of(loose)) >= num_folds:
        dealt = assign_folds(loose, num_folds=num_folds, seed=recipe.seed).records
    others = [
        [record for record in dealt if record.fold != str(fold + 1)] for fold in range(num_folds)
    ]
    if min(len(groups_of(rest)) for rest in others) < 2:  # one to learn from, one to choose on
        raise InputError(
            f"cannot make {num_folds} inner folds of {len(loose)} images",
            expected="two patients or more beside each fold (those of a common scene count as one)",
            found=f"{len(groups_of(loose))} in all",
            fix="Lower inner.folds, or train on more patients.",
        )
    return dealt


def _inner_recipe(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return the recipe of the inner networks; later phases leave no trace in it."""
    epochs = recipe.inner.epochs or recipe.phase1.epochs
    return TrainingRecipe(
        network=recipe.network,
        augmentation=recipe.augmentation,
        phase1=replace(recipe.phase1, epochs=epochs),
        inner_share=recipe.inner_share,
        num_workers=recipe.num_workers,
        seed=recipe.seed,
    )


class _InnerFold:
    """One inner fold: its network, and the predictions of its images and of some others."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        records: tuple[Record, ...],
        fold: str,
        *,
        others: Sequence[Record],
        manifest: Path,
        options: RunOptions,
    ) -> None:
        self.recipe, self.manifest, self.folder = recipe, manifest, manifest.parent / f"fold-{fold}"
        self.split = split_records(records, recipe, fold=fold, drop_leaks=False)
        self.predicted = (*self.split.held_out, *others)
        self.options = replace(options, say=lambda line: options.say(f"inner fold {fold}: {line}"))
        self.checkpoint = self.folder / COARSE
        self.file = self.folder / "out_of_fold.safetensors"

    @cached_property
    def keys(self) -> dict[Path, str]:
        """The sha256 of the file of each image to predict; equal files have one prediction."""
        return {record.image: file_sha256(record.image) for record in self.predicted}

    def network(self) -> CoarseCheckpoint:
        """Return the network that has not seen the fold, trained now unless it is there."""
        checkpoint = self._finished() if self.options.resume else None
        if checkpoint is None:
            self._train()
            checkpoint = load_checkpoint(self.checkpoint)
        else:
            self.options.say("its network is kept")
        # A card that lists no patients is one that is kept: they are in the split's fingerprint.
        refuse_contamination(self.predicted, {str(self.checkpoint): checkpoint.card})
        return checkpoint

    def predict(self, checkpoint: CoarseCheckpoint, side: int) -> None:
        """Predict the images of the fold, unless that was done by this network.

        Of several processes the first predicts. The others wait for its file, since they cannot be
        told: where every network was kept, nothing has connected them yet.
        """
        story = {
            "format": _FORMAT,
            "side": side,
            "checkpoint_sha256": file_sha256(self.checkpoint),
        }
        if not is_first_process():
            self._await(story)
        elif not (self.options.resume and self._is_kept(story)):
            self._write(self._maps(checkpoint, side), story)
            self.options.say(f"{len(self.keys)} images predicted")

    def _await(self, story: Mapping[str, Any]) -> None:
        """Return when the first process has predicted the fold."""
        limit = time.monotonic() + _ANOTHER_PREDICTS_S
        while not self._is_predicted(_read(self.file), story):
            if time.monotonic() > limit:
                raise InputError(f"{self.file} was not made by the first process")
            time.sleep(_POLL_S)

    def _is_kept(self, story: Mapping[str, Any]) -> bool:
        """Tell whether the predictions are there; if they are damaged, say so."""
        content = _read(self.file)
        if content is None and self.file.is_file():
            self.options.say(f"{self.file.name} is damaged and made again")
        return self._is_predicted(content, story)

    def _is_predicted(
        self, content: tuple[Mapping[str, Any], Maps] | None, story: Mapping[str, Any]
    ) -> bool:
        """Tell whether a file's content is of this story and of these images."""
        if content is None:
            return False
        stored, maps = content
        return maps.keys() == set(self.keys.values()) and story.items() <= stored.items()

    def _write(self, maps: Maps, story: Mapping[str, Any]) -> None:
        """Write the predictions with their story and checksum."""
        story = {
            **story,
            "maps_sha256": _sha256(maps),
            "manifest_sha256": file_sha256(self.manifest),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
        }
        # One key: safetensors writes several in random order.
        content = save(maps, metadata={_KEY: json.dumps(story, sort_keys=True)})
        with atomic_path(self.file) as temporary:
            temporary.write_bytes(content)

    def _maps(self, checkpoint: CoarseCheckpoint, side: int) -> Maps:
        """Return the predictions by their keys; each image is predicted alone."""
        predictor = CoarsePredictor([checkpoint.network], device=self.options.hardware.device)
        maps = {}
        for path, key in self.options.track(self.keys.items(), len(self.keys)):
            image = read_image(path)
            probs = Letterbox(image.shape, side).shrink(predictor(image))
            maps[key] = np.rint(probs * 255).astype(np.uint8)
        return maps

    def _finished(self) -> CoarseCheckpoint | None:
        """Return the network that is there, if it is what would be trained now."""
        try:
            found = load_checkpoint(self.checkpoint)
        except WeightsError:
            return None
        stored, wanted = found.card.get("recipe", {}), asdict(self.recipe)
        if not _is_same(_deciding(wanted), _deciding(stored), _deciding(asdict(TrainingRecipe()))):
            return None
        used = [*self.split.train, *self.split.val]
        is_of_these = (
            found.card.get("split_sha256") == self.split.fingerprint
            and found.card.get("image_digests") == card_digests(used)["image_digests"]
            # Cards of earlier versions do not tell the masks.
            and found.card.get("data_sha256") in (None, content_fingerprint(used))
        )
        return found if is_of_these else None

    def _train(self) -> None:
        """Go on with a training that was stopped, if it was this one; else start anew.

        Beside a finished network that does not fit lies what led to it: that does not either.
        """
        was_begun = (self.folder / "checkpoints" / "plan.json").is_file()
        if self.options.resume and was_begun and not self.checkpoint.exists():
            try:
                train_coarse(self.recipe, self.split, self.folder, self.options)
                return
            except ResumeError as error:
                self.options.say(f"starts anew: {error.what}")
        train_coarse(self.recipe, self.split, self.folder, replace(self.options, resume=False))


def _read(file: Path) -> tuple[Mapping[str, Any], Maps] | None:
    """Return story and maps of a file of predictions; nothing if it is not there or damaged."""
    try:
        with safe_open(file, framework="np") as stream:
            story = json.loads((stream.metadata() or {}).get(_KEY, "{}"))
            maps = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return None
    # Files of earlier versions have no checksum.
    return (story, maps) if story.get("maps_sha256") in (None, _sha256(maps)) else None


def _sha256(maps: Maps) -> str:
    """Return the sha256 of maps and of their keys."""
    digest = hashlib.sha256()
    for key, levels in sorted(maps.items()):
        digest.update(f"{key} {levels.shape}".encode())
        digest.update(np.ascontiguousarray(levels).data)
    return digest.hexdigest()


def _deciding(recipe: Mapping[str, Any]) -> Any:
    """Return the settings that decide what network comes of it, as plain JSON."""
    return json.loads(json.dumps({name: recipe.get(name) for name in SETTINGS}))


def _is_same(wanted: Any, stored: Any, default: Any) -> bool:
    """Compare settings; one that an earlier version did not have was what is the default now."""
    if not (isinstance(wanted, dict) and isinstance(stored, dict)):
        return bool(wanted == stored)
    return stored.keys() <= wanted.keys() and all(
        _is_same(value, stored.get(name, default[name]), default[name])
        for name, value in wanted.items()
    )

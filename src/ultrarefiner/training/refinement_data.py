"""What phases 2 and 3 learn from: images, truths, and the masks that are to be corrected.

An item's mask is an out-of-fold prediction, a corrupted truth, none at all, or in phase 3 what the
coarse network says at that moment. Which one, how it is corrupted, and how the item is mirrored and
varied is a pure function of seed, epoch and index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ultrarefiner.data.augmentation import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    vary_grey,
    vary_shape,
)
from ultrarefiner.data.corruption import CorruptionConfig, corrupt
from ultrarefiner.data.dataset import Frame, SegmentationDataset
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_image
from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.gates import NoGate
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.roi import WholeFrame
from ultrarefiner.refine.scene import Scene
from ultrarefiner.training.embedding_cache import FLIP, IDENTITY, EmbeddingCache, ImageView
from ultrarefiner.training.out_of_fold import OutOfFold

_GREY_LEVELS, _SHAPES = 1, 2
"""What is varied: each has random numbers of its own."""


class RefinementBatch(TypedDict):
    """``B`` images with one lesion map each; ``S`` is the side of the pipeline's coarse grid.

    ``names``: files, for messages. ``images``: grey levels in [0, 1]. ``native_hw``: rows and
    columns of the files. ``content_hw``: those of the grid that hold image. ``truth``: share of
    each px that is lesion. ``prompt``: the map to be corrected, where ``is_given``; else zeros.
    ``is_real``: whether that is an out-of-fold prediction. ``embeddings``: of the images, if they
    are cached. ``natives``: the images on their own grids, padded below and right to a common size,
    if the model looks closer than the coarse grid. ``network_images`` and ``classes``: the same
    images and their classes on the coarse network's grid, if it takes part.
    """

    names: list[str]
    images: Float[Tensor, "B 1 S S"]
    native_hw: Int[Tensor, "B 2"]
    content_hw: Int[Tensor, "B 2"]
    truth: Float[Tensor, "B 1 S S"]
    prompt: Float[Tensor, "B 1 S S"]
    is_given: Bool[Tensor, "B"]
    is_real: Bool[Tensor, "B"]
    embeddings: NotRequired[Float[Tensor, "B D h w"]]
    natives: NotRequired[Float[Tensor, "B 1 H W"]]
    network_images: NotRequired[Float[Tensor, "B 1 n n"]]
    classes: NotRequired[Float[Tensor, "B C n n"]]


def scene_of(batch: RefinementBatch, coarse: Float[Tensor, "B 1 S S"]) -> Scene:
    """Return the batch as what the pipeline starts from.

    Without native images the letterboxed ones stand for them: with cached embeddings only the
    stages that compare outlines with grey levels still look at them.
    """
    natives = batch.get("natives")
    native_hw = batch["content_hw" if natives is None else "native_hw"]
    embeddings = batch.get("embeddings")
    if embeddings is not None and not torch.is_autocast_enabled(coarse.device.type):
        embeddings = embeddings.float()
    return Scene(
        images=batch["images"] if natives is None else natives,
        native_hw=native_hw,
        coarse=coarse,
        frames=Frames.letterboxed(native_hw, coarse.shape[-1]),
        image_index=torch.arange(len(coarse), device=coarse.device),
        embeddings=embeddings,
    )


def refine_dominant(
    pipeline: RefinementPipeline, batch: RefinementBatch, coarse: Float[Tensor, "B 1 S S"]
) -> Refinement:
    """Refine the lesion that each map is localised as.

    In prediction each lesion has a map of its own. So where the coarse map shows through in the
    outcome, its other lesions are taken out of it: held to the truth of one, they would be errors.
    """
    scene = scene_of(batch, coarse)
    if not is_outcome(pipeline):
        scene = replace(scene, coarse=pipeline.localizer(scene).probs)
    refinement: Refinement = pipeline(scene)
    return refinement


def is_outcome(pipeline: RefinementPipeline) -> bool:
    """Tell whether the decoder's answer is the outcome: neither gated nor pasted."""
    return isinstance(pipeline.gate, NoGate) and isinstance(pipeline.roi, WholeFrame)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How the masks of the items are made.

    Attributes:
        given_share: probability that an item has a given mask; else the coarse network makes one.
        real_share: probability that a given mask is an out-of-fold prediction, not a corrupted
            truth.
        unasked_share: probability that a given mask is replaced by an empty one, about which the
            foundation model is asked with a box of the whole image.
        flip_share: probability that an item is mirrored left to right.
        shape_share: probability that an item is moved and deformed, with all of its maps.
        grey_share: probability that grey levels of native images are varied.
        augmentation: how they are varied, but for mirroring; shapes and grey levels are drawn
            apart.
        corruption: the errors of corrupted truths.
    """

    given_share: float = 1.0
    real_share: float = 1.0
    unasked_share: float = 0.0
    flip_share: float = 0.0
    shape_share: float = 0.0
    grey_share: float = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)


class RefinementDataset(Dataset[dict[str, Any]]):
    """Items of phases 2 and 3, asked for by ``(epoch, index)``.

    Args:
        records: each with image and mask.
        mixture: how the masks are made.
        side: of the pipeline's coarse grid [px].
        out_of_fold: predictions for all records; not needed if no given mask is real.
        digests: sha256 of each image's pixels, to find its embedding; ``None`` without a cache.
        network_frame: side [px] and number of classes of the coarse network's own frame; ``None``
            if no coarse network takes part.
        num_classes: of the masks: 1 for any lesion against the rest, else the number of label
            values, of which all but the background are lesion.
        natives: give the images on their own grids, too.
        seed: of everything random.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mixture: Mixture,
        side: int,
        *,
        out_of_fold: OutOfFold | None,
        digests: Sequence[str] | None,
        network_frame: tuple[int, int] | None = None,
        num_classes: int = 1,
        natives: bool = False,
        seed: int = 0,
    ) -> None:
        self.records, self.mixture, self.side = tuple(records), mixture, side
        self.out_of_fold, self.digests, self.seed = out_of_fold, digests, seed
        self.natives = natives
        self._cases = SegmentationDataset(records, side, num_classes=num_classes)
        self._network_cases = None
        if network_frame == (side, num_classes):
            self._network_cases = self._cases
        elif network_frame is not None:
            network_side, network_classes = network_frame
            self._network_cases = SegmentationDataset(
                records, network_side, num_classes=network_classes
            )

    def __len__(self) -> int:
        return len(self.records)

    def preload(
        self, track: Callable[[Iterable[int], int], Iterable[int]] = lambda items, _: items
    ) -> None:
        """Read every case now, so that a bad one is met before anything else is done."""
        self._cases.preload(track)
        if self._network_cases not in (None, self._cases):
            assert self._network_cases is not None
            self._network_cases.preload(track)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = (0, item) if isinstance(item, int) else item
        mixture, case = self.mixture, self._cases.frame(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        flipped, given, real = rng.random(3) < (
            mixture.flip_share,
            mixture.given_share,
            mixture.real_share,
        )
        unasked = rng.random() < mixture.unasked_share
        prompt = np.zeros((self.side, self.side), np.float32)
        if given and not unasked:
            prompt = self._prompt(index, case, epoch, is_real=bool(real))
        shape = self._draw(index, epoch, _SHAPES, mixture.shape_share)
        place = partial(_place, mirrored=bool(flipped), shape=shape)
        content = case.content_hw
        values = {
            "name": self.records[index].image.name,
            "images": place(case.image[..., None] / np.float32(255), content),
            "native_hw": torch.tensor(case.native_hw),
            "content_hw": torch.tensor(content),
            "truth": place(_lesion(case) / np.float32(255), content),
            "prompt": place(prompt[..., None], content),
            "is_given": bool(given),
            "is_real": bool(given and real and not unasked),
        }
        if self.digests is not None:
            values["view"] = ImageView(self.digests[index], FLIP if flipped else IDENTITY)
        if self.natives:
            grey = self._draw(index, epoch, _GREY_LEVELS, mixture.grey_share)
            native = read_image(self.records[index].image)
            native = native if grey is None else vary_grey(native, grey)
            values["natives"] = place(native[..., None], case.native_hw)
        if self._network_cases is not None:
            own = self._network_cases.frame(index)
            image = own.image[..., None] / np.float32(255)
            values["network_images"] = place(image, own.content_hw)
            classes = place(own.target / np.float32(255), own.content_hw)
            if shape is not None and len(classes) > 1:  # beyond the image is background
                classes[0] += 1 - classes.sum(dim=0)
            values["classes"] = classes
        return values

    def _draw(self, index: int, epoch: int, kind: int, share: float) -> Augmentation | None:
        """Return how the item is varied, or ``None`` where it is drawn that it is not."""
        rng = np.random.default_rng([self.seed, epoch, index, kind])
        if rng.random() >= share:
            return None
        return draw_augmentation(rng, replace(self.mixture.augmentation, flip_probability=0.0))

    def _prompt(
        self, index: int, case: Frame, epoch: int, *, is_real: bool
    ) -> Float[np.ndarray, "S S"]:
        if is_real:
            assert self.out_of_fold is not None, "real masks need out-of-fold predictions"
            return self.out_of_fold.probs(self.records[index])
        rows, cols = case.content_hw
        truth = _lesion(case)[:rows, :cols, 0] > 127
        number = epoch * len(self) + index
        prompt = np.zeros((self.side, self.side), np.float32)
        prompt[:rows, :cols] = corrupt(
            truth, seed=self.seed, index=number, config=self.mixture.corruption
        ).probs
        return prompt


class Collate:
    """Bring items together to a :class:`RefinementBatch`, with their embeddings.

    Args:
        cache: where the embeddings are; ``None`` to leave them to the model.
    """

    def __init__(self, cache: EmbeddingCache | None) -> None:
        self.cache = cache

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        names = [item.pop("name") for item in items]
        views = [item.pop("view", None) for item in items]
        natives = [item.pop("natives") for item in items if "natives" in item]
        batch: dict[str, Any] = default_collate(items)
        batch["names"] = names
        if natives:
            height, width = (max(image.shape[axis] for image in natives) for axis in (1, 2))
            batch["natives"] = torch.zeros(len(natives), 1, height, width)
            for padded, image in zip(batch["natives"], natives, strict=True):
                padded[:, : image.shape[1], : image.shape[2]] = image
        if self.cache is not None:
            batch["embeddings"] = self.cache.get(views)
        return batch


def _lesion(case: Frame) -> UInt8[np.ndarray, "S S 1"]:
    """Return the share of any lesion, of 255; of several classes, the first is background."""
    first: UInt8[np.ndarray, "S S 1"] = case.target[..., :1]
    return first if case.target.shape[-1] == 1 else 255 - first


def _place(
    values: Float[np.ndarray, "H W C"],
    content_hw: tuple[int, int],
    *,
    mirrored: bool,
    shape: Augmentation | None,
) -> Float[Tensor, "C H W"]:
    """Return a map channels first, moved within its content: the same way on every grid.

    Args:
        values: on a letterboxed frame, or on a grid that is all content.
        content_hw: rows and columns that hold image.
        mirrored: whether it is mirrored left to right.
        shape: how it is moved and deformed, before that.
    """
    values = values.astype(np.float32)
    if shape is not None:
        values = _vary_shape(values, shape, content_hw)
    if mirrored:
        cols = content_hw[1]
        values[:, :cols] = values[:, :cols][:, ::-1].copy()
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _vary_shape(
    values: Float32[np.ndarray, "H W C"], shape: Augmentation, content_hw: tuple[int, int]
) -> Float32[np.ndarray, "H W C"]:
    """Return the moved content; what the frame holds beside it stays empty."""
    rows, cols = content_hw
    side = max(content_hw)
    frame = np.zeros((side, side, values.shape[2]), np.float32)
    frame[:rows, :cols] = values[:rows, :cols]
    moved = np.zeros_like(values)
    moved[:rows, :cols] = vary_shape(frame, shape, content_hw).reshape(frame.shape)[:rows, :cols]
    return moved

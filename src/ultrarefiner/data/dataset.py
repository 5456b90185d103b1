"""Images and truths of a manifest as tensors on one square frame, varied or as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.augmentation import (
    AugmentationConfig,
    draw_augmentation,
    vary_grey,
    vary_shape,
)
from ultrarefiner.data.formats import decode
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import InputError
from ultrarefiner.ops.intensity import stretch
from ultrarefiner.ops.letterbox import Letterbox

_MAX_CACHED_BYTES = 2**31


class Sample(TypedDict):
    """``image``: grey levels in [0, 1]; ``target``: the share of each px that a class covers."""

    image: Float[Tensor, "1 side side"]
    target: Float[Tensor, "C side side"]


@dataclass(frozen=True)
class Frame:
    """A letterboxed case in 8 bits: 0.002 of grey level or share is less than noise.

    Attributes:
        image: grey levels stretched to [0, 255]; the padding is 0.
        target: share of each px that a class covers, of 255; the padding is background.
        content_hw: rows and columns that hold image, from the first on; the rest is padding [px].
        native_hw: rows and columns of the file [px].
    """

    image: UInt8[np.ndarray, "side side"]
    target: UInt8[np.ndarray, "side side C"]
    content_hw: tuple[int, int]
    native_hw: tuple[int, int]


class SegmentationDataset(Dataset[Sample]):
    """Cases of a manifest, read once and kept in memory (up to 2 GiB, then read again).

    Args:
        records: each with image and mask.
        side: of the square frame [px].
        num_classes: 1 for any lesion against the rest; else the number of label values, 0 being
            the background.
        augmentation: how to vary; as they are if ``None``.
        seed: of the variations.

    An item is asked for by ``(epoch, index)``: the same pair gives the same sample, in any process
    and order. A plain index is of epoch 0.

    Raises:
        InputError: a record without mask; when it is read, also a file that cannot be used, sizes
            that differ, or a label beyond ``num_classes``.
    """

    def __init__(
        self,
        records: Sequence[Record],
        side: int,
        *,
        num_classes: int = 1,
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ) -> None:
        for record in records:
            if record.mask is None:
                raise InputError(
                    f"{record.image} has no mask in the manifest",
                    fix="Training needs one for every image: remove the row, add an empty mask, or "
                    "have one drawn (predict, then train --pseudo).",
                )
        self.records = tuple(records)
        self.side, self.num_classes = side, num_classes
        self.augmentation, self.seed = augmentation, seed
        self._frames: dict[int, Frame] = {}
        self._num_kept = _MAX_CACHED_BYTES // (side * side * (1 + num_classes))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        epoch, index = (0, item) if isinstance(item, int) else item
        frame = self.frame(index)
        image = frame.image.astype(np.float32) / 255
        target = frame.target.astype(np.float32) / 255
        if self.augmentation is not None:
            rng = np.random.default_rng([self.seed, epoch, index])
            augmentation = draw_augmentation(rng, self.augmentation)
            image = vary_grey(vary_shape(image, augmentation, frame.content_hw), augmentation)
            target = vary_shape(target, augmentation, frame.content_hw).reshape(target.shape)
        return {
            "image": torch.from_numpy(image)[None],
            "target": torch.from_numpy(np.ascontiguousarray(target.transpose(2, 0, 1))),
        }

    def preload(
        self, track: Callable[[Iterable[int], int], Iterable[int]] = lambda items, _: items
    ) -> None:
        """Read every case now, so that a bad one is met before anything else is done.

        Args:
            track: wraps the iteration, for a progress bar.

        Raises:
            InputError: a file cannot be used, sizes differ, or a label is beyond ``num_classes``.
        """
        for index in track(range(len(self)), len(self)):
            self.frame(index)

    def frame(self, index: int) -> Frame:
        """Return a case as it is.

        Raises:
            InputError: a file cannot be used, sizes differ, or a label is beyond ``num_classes``.
        """
        if index in self._frames:
            return self._frames[index]
        frame = _read_frame(self.records[index], self.side, self.num_classes)
        if len(self._frames) < self._num_kept:
            self._frames[index] = frame
        return frame


def read_classes(record: Record, num_classes: int) -> Float[np.ndarray, "H W C"]:
    """Return the truth of a record: one channel of 0 and 1 per class, or one for any lesion.

    Args:
        record: with a mask: binary in any coding for one class, else a map of labels 0, 1, ...
        num_classes: 1, or the number of label values with the background.

    Raises:
        InputError: the mask cannot be used, or has a label beyond ``num_classes``.
    """
    assert record.mask is not None, "the dataset checks that"
    if num_classes == 1:
        return np.asarray(read_coarse(record.mask).values > 0.5, np.float32)[..., None]
    labels = decode(record.mask).values
    known = np.arange(num_classes)
    if labels.ndim != 2 or not np.isin(labels, known).all():
        raise InputError(
            f"cannot use {record.mask}",
            expected=f"one channel of labels 0 to {num_classes - 1}",
            found=f"{labels.ndim} axes, labels up to {labels.max()}",
            fix="Set network.num_classes to the number of labels with the background.",
        )
    return np.asarray(labels[..., None] == known, np.float32)


def _read_frame(record: Record, side: int, num_classes: int) -> Frame:
    image = read_image(record.image)
    truth = read_classes(record, num_classes)
    if truth.shape[:2] != image.shape:
        raise InputError(
            f"mask {record.mask} does not fit its image {record.image}",
            expected=f"{image.shape[1]}x{image.shape[0]} px",
            found=f"{truth.shape[1]}x{truth.shape[0]} px",
        )
    frame = Letterbox(image.shape, side)
    shares = np.stack([frame.shrink(truth[..., k]) for k in range(truth.shape[2])], axis=-1)
    if num_classes > 1:  # the padding is background
        shares[..., 0] += 1 - shares.sum(axis=-1)
    return Frame(
        _eight_bits(frame.shrink(stretch(image))),
        _eight_bits(shares),
        frame.content_hw,
        frame.native_hw,
    )


def _eight_bits(values: Float[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any"]:
    rounded: UInt8[np.ndarray, "*any"] = cv2.convertScaleAbs(values.astype(np.float32), alpha=255)
    return rounded.reshape(values.shape)

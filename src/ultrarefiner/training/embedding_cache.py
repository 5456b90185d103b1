"""Embeddings of a frozen image encoder, computed once and kept on the disk.

Phases 2 and 3 see every image many times, and its encoder does not change: it would take most of
their time. What is kept is what the pipeline computes for a whole image (``scene.embeddings``),
rounded to bfloat16 and not compressed further: for LiteMedSAM 64 x 64 x 256 values, 2 MiB a view,
so that 1127 images in two views take 4.4 GiB.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn

from ultrarefiner.data.readers import read_image
from ultrarefiner.data.record_store import RecordStore
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.foundation import FoundationModel
from ultrarefiner.ops.frames import Frames
from ultrarefiner.precision import autocast
from ultrarefiner.refine.scene import Scene
from ultrarefiner.shapes import GreyImage

IDENTITY, FLIP = "identity", "flip"
VIEWS = (IDENTITY, FLIP)

_ENCODING = 1
"""To be raised when letterboxing, resampling or normalisation change: it is part of every key."""

_LOG = logging.getLogger(__name__)


class ImageView(NamedTuple):
    """What an embedding is of.

    Attributes:
        image: :func:`pixels_sha256` of the image.
        view: ``identity``, or ``flip`` for the image mirrored left to right.
    """

    image: str
    view: str = IDENTITY


@dataclass(frozen=True, kw_only=True)
class Built:
    """What :meth:`EmbeddingCache.build` found and did.

    Attributes:
        images: sha256 of the pixels of each image, in the order in which they were given.
        num_kept: embeddings that were there and intact.
        num_encoded: embeddings computed now.
        num_damaged: how many of those had been there, but were not what was once written.
        num_others: embeddings in the cache of images, or versions of them, that were not given.
    """

    images: tuple[str, ...]
    num_kept: int
    num_encoded: int
    num_damaged: int
    num_others: int

    def describe(self) -> str:
        """Return a line for the log."""
        return (
            f"embeddings: {self.num_encoded} encoded ({self.num_damaged} of them were damaged), "
            f"{self.num_kept} kept, {self.num_others} of other images"
        )


class EmbeddingCache:
    """Embeddings of one encoder; it holds no model, so that copies go to worker processes.

    Each encoder has its own folder in ``folder``, told from others by the sha256 of its weights, by
    :data:`_ENCODING` and by the precision; those of others are left alone.

    Example:
        >>> cache = EmbeddingCache.open(folder, model)                 # doctest: +SKIP
        >>> built = cache.build(model, image_paths)                    # doctest: +SKIP
        >>> cache.get([ImageView(built.images[0], "flip")]).shape      # doctest: +SKIP
        torch.Size([1, 256, 64, 64])
    """

    def __init__(self, folder: Path, encoder: dict[str, Any], views: tuple[str, ...]) -> None:
        self.encoder, self.views = encoder, views
        self._fingerprint = _sha256(json.dumps(encoder, sort_keys=True))
        self.folder = folder / self._fingerprint[:16]
        self._shape_hwd: tuple[int, int, int] | None = None
        self._store: RecordStore | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        model: FoundationModel,
        *,
        views: Sequence[str] = VIEWS,
        bf16: bool = False,
    ) -> EmbeddingCache:
        """Open the cache of a model's encoder, which may be empty; nothing is written yet.

        Args:
            folder: may be shared by any data sets and encoders.
            model: its encoder counts, not its decoder.
            views: which views :meth:`build` encodes.
            bf16: compute in bfloat16 under autocast: faster where the processor is made for it, but
                its errors are some 40 times (LiteMedSAM) those of the rounding that is always done.

        Raises:
            ConfigError: no or an unknown view.
        """
        if not views or set(views) - set(VIEWS):
            raise ConfigError("views", expected="some of " + ", ".join(VIEWS), found=str(views))
        encoder = {
            "model": type(model).__name__,
            "weights_sha256": encoder_sha256(model),
            "input_size": model.input_size,
            "encoding": _ENCODING,
            "bf16": bf16,
        }
        return cls(folder, encoder, tuple(dict.fromkeys(views)))

    def build(
        self,
        model: FoundationModel,
        images: Sequence[Path],
        *,
        wait_s: float = 0,
        track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    ) -> Built:
        """Encode what is missing or damaged. If killed, the next call goes on where it was.

        Each view is encoded alone, so that its embedding does not depend on what was there before.

        Args:
            model: the one that the cache was opened for, on the device to compute on.
            images: files of any format that :func:`~ultrarefiner.data.readers.read_image` knows.
            wait_s: how long to wait for another process that builds.
            track: wraps the loops over images and over missing views, for a progress bar.

        Raises:
            InputError: an image cannot be read, or its embedding is not finite.
            OutputError: another process is building, or the disk is too small: found out first.
        """
        assert encoder_sha256(model) == self.encoder["weights_sha256"], "another encoder"
        digests = [pixels_sha256(read_image(path)) for path in track(images, len(images))]
        wanted = {
            ImageView(digest, view): path
            for digest, path in zip(digests, images, strict=True)
            for view in self.views
        }
        store = self._prepare(model)
        with store.writing(wait_s=wait_s) as writer:
            missing = [key for key in wanted if not store.is_intact(self._key(key))]
            num_damaged = sum(self._key(key) in store for key in missing)
            if num_damaged:
                _LOG.warning("%s: %d damaged, encoded again", self.folder, num_damaged)
            store.check_space(len(missing))
            for key in track(missing, len(missing)):
                content = self._encode(model, key, wanted[key])
                writer.append(self._key(key), content.view(torch.uint8).numpy().data)
        return Built(
            images=tuple(digests),
            num_kept=len(wanted) - len(missing),
            num_encoded=len(missing),
            num_damaged=num_damaged,
            num_others=len(store) - len(wanted),
        )

    def missing(self, keys: Iterable[ImageView]) -> list[ImageView]:
        """Return the views of which there is no intact embedding; all of them are read for that."""
        store = self._open_store()
        if store is None:
            return list(keys)
        store.refresh()
        return [key for key in keys if not store.is_intact(self._key(key))]

    def get(self, keys: Sequence[ImageView]) -> BFloat16[Tensor, "B D h w"]:
        """Return embeddings on the CPU, channels last as the encoder gives them.

        A single one is the mapped file itself, several are copied once. A decoder in float32 needs
        them as such: ``.float()``.

        Raises:
            InputError: one is missing or damaged.
        """
        store = self._open_store()
        if store is None or self._shape_hwd is None:
            raise InputError(
                f"no embeddings in {self.folder}", fix="Build the cache before training."
            )
        records = [torch.from_numpy(store.read(self._key(key))) for key in keys]
        rows = records[0] if len(records) == 1 else torch.stack(records)
        return rows.view(torch.bfloat16).view(len(keys), *self._shape_hwd).permute(0, 3, 1, 2)

    def _key(self, key: ImageView) -> str:
        return _sha256(f"{self._fingerprint} {key.image} {key.view}")

    def _prepare(self, model: FoundationModel) -> RecordStore:
        """Write down the shape of an embedding if no one has, and return the store."""
        store = self._open_store()
        if store is None:
            side = model.input_size
            blank = torch.zeros(side, side).numpy()
            shape_hwd = list(self._embed(model, blank).shape)
            write_json(self.folder / "about.json", self.encoder | {"shape_hwd": shape_hwd})
            store = self._open_store()
        assert store is not None, "it was just written"
        return store

    def _open_store(self) -> RecordStore | None:
        """Return the store, or None as long as nobody has begun to build."""
        if self._store is None:
            try:
                about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
                height, width, channels = map(int, about["shape_hwd"])
            except (OSError, ValueError, KeyError, TypeError):
                return None
            self._shape_hwd = height, width, channels
            self._store = RecordStore(self.folder, num_bytes=2 * height * width * channels)
        return self._store

    def _encode(self, model: FoundationModel, key: ImageView, path: Path) -> Tensor:
        image = read_image(path)
        if pixels_sha256(image) != key.image:
            raise InputError(f"{path} has changed while it was being encoded")
        embedding = self._embed(model, image if key.view == IDENTITY else image[:, ::-1].copy())
        if not embedding.isfinite().all():
            raise InputError(
                f"{path} has no usable embedding", expected="finite values", found="NaN or infinity"
            )
        return embedding

    def _embed(self, model: FoundationModel, image: GreyImage) -> BFloat16[Tensor, "h w D"]:
        device = next(model.parameters(), torch.empty(0)).device
        with torch.inference_mode(), autocast(device, enabled=self.encoder["bf16"]):
            embedding = encode_whole(model, torch.from_numpy(image).to(device))
        return embedding.permute(1, 2, 0).to("cpu", torch.bfloat16).contiguous()


def encode_whole(model: FoundationModel, image: Float[Tensor, "H W"]) -> Float[Tensor, "D h w"]:
    """Encode a native image as the pipeline does where it looks at the whole of it."""
    native_hw = torch.tensor([image.shape], device=image.device)
    scene = Scene(
        images=image[None, None],
        native_hw=native_hw,
        coarse=image.new_zeros(1, 1, model.input_size, model.input_size),
        frames=Frames.letterboxed(native_hw, model.input_size),
        image_index=torch.zeros(1, dtype=torch.long, device=image.device),
    )
    pixels, valid = scene.images_on(scene.frames, scene.image_index)
    return model.encode(model.normalise(pixels, valid))[0]


def encoder_sha256(model: FoundationModel) -> str:
    """Return the sha256 of what the embeddings depend on: names, types and values of the weights.

    They are those of the submodule ``image_encoder``, or of the whole model if it has none.
    """
    encoder = getattr(model, "image_encoder", model)
    assert isinstance(encoder, nn.Module), "image_encoder is a module"
    assert not encoder.training, "an encoder in training mode may answer at random"
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pixels_sha256(image: GreyImage) -> str:
    """Return the sha256 of an image's size and pixels, whatever file they came from."""
    rows, cols = image.shape
    digest = hashlib.sha256(f"{rows} {cols} {image.dtype}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

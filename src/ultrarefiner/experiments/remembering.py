"""A foundation model that answers a repeated question from memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from ultrarefiner.foundation import Decoded, FoundationModel, Prompts
from ultrarefiner.shapes import Embeddings, Images

T = TypeVar("T")


class RememberingModel(FoundationModel):
    """Wrap a model so that variants of a pipeline share what they ask of one image.

    Exact: a question is the same if all of its tensors are, to the bit; what one call asks of
    several images or items is one question. For inference with a model and a precision that do not
    change meanwhile; callers do not write into what they are given.

    Args:
        model: the model that answers a question the first time.

    Attributes:
        seconds_saved: what the answers given from memory had taken the first time.
    """

    def __init__(self, model: FoundationModel):
        super().__init__()
        self.model = model
        self.input_size = model.input_size
        self.mask_size = model.mask_size
        self.multimask_trained = model.multimask_trained
        self.seconds_saved = 0.0
        self._embeddings: dict[bytes, tuple[Embeddings, float]] = {}
        self._answers: dict[bytes, tuple[Decoded, float]] = {}

    def forget(self) -> None:
        """Drop everything; call it between images."""
        self._embeddings.clear()
        self._answers.clear()

    def normalise(self, images: Images, valid: Bool[Tensor, "B 1 H W"]) -> Images:
        """Delegate."""
        return self.model.normalise(images, valid)

    def encode(self, images: Images) -> Embeddings:
        """Encode, once per set of images."""
        return self._recall(self._embeddings, _digest(images), lambda: self.model.encode(images))

    def decode(
        self, embeddings: Embeddings, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        """Decode, once per set of prompts of any kind for the same embeddings."""
        values = [getattr(prompts, field.name) for field in fields(prompts)]
        key = hashlib.sha256(self._origin(embeddings) + bytes([multimask_output]))
        for value in values:
            key.update(b"none" if value is None else _digest(value))
        return self._recall(
            self._answers,
            key.digest(),
            lambda: self.model.decode(embeddings, prompts, multimask_output=multimask_output),
        )

    def _recall(self, memory: dict[bytes, tuple[T, float]], key: bytes, ask: Callable[[], T]) -> T:
        if key in memory:
            answer, seconds = memory[key]
            self.seconds_saved += seconds
            return answer
        start = time.perf_counter()
        answer = ask()
        memory[key] = answer, time.perf_counter() - start
        return answer

    def _origin(self, embeddings: Embeddings) -> bytes:
        """Return what tells embeddings apart: the digest of their images or, if unknown, of them.

        Those of the memory are alive, so that no other tensor can be mistaken for them.
        """
        for key, (known, _) in self._embeddings.items():
            if known is embeddings:
                return b"images" + key
        return b"embeddings" + _digest(embeddings)


def _digest(value: Tensor) -> bytes:
    """Return a digest of shape, type and content."""
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    header = f"{tuple(value.shape)} {value.dtype}".encode()
    return hashlib.sha256(header + content.numpy().tobytes()).digest()

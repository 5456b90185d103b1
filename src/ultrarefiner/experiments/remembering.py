"""A foundation model that answers a repeated question from memory."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from ultrarefiner.foundation import Decoded, FoundationModel, Prompts
from ultrarefiner.shapes import Embeddings, Images


class RememberingModel(FoundationModel):
    """Wrap a model so that variants of a pipeline share what they ask of one image.

    Args:
        model: the model that answers a question the first time.
    """

    def __init__(self, model: FoundationModel):
        super().__init__()
        self.model = model
        self.input_size = model.input_size
        self.mask_size = model.mask_size
        self.multimask_trained = model.multimask_trained
        self._embeddings: dict[bytes, Embeddings] = {}
        self._answers: dict[tuple[bytes, bool], Decoded] = {}

    def forget(self) -> None:
        """Drop everything; call it between images."""
        self._embeddings.clear()
        self._answers.clear()

    def normalise(self, images: Images, content_hw: Int[Tensor, "B 2"]) -> Images:
        """Delegate."""
        return self.model.normalise(images, content_hw)

    def encode(self, images: Images) -> Embeddings:
        """Encode, once per image."""
        key = images.cpu().numpy().tobytes()
        if key not in self._embeddings:
            self._embeddings[key] = self.model.encode(images)
        return self._embeddings[key]

    def decode(
        self, embeddings: Embeddings, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        """Decode boxes, once per set of boxes of one image."""
        assert prompts.boxes is not None, "only box prompts are remembered"
        assert prompts.point_coords is None, "only box prompts are remembered"
        assert prompts.masks is None, "only box prompts are remembered"
        assert len(embeddings) == 1, "one image at a time"
        key = prompts.boxes.cpu().numpy().tobytes(), multimask_output
        if key not in self._answers:
            self._answers[key] = self.model.decode(
                embeddings, prompts, multimask_output=multimask_output
            )
        return self._answers[key]

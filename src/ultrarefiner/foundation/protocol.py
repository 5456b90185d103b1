"""What every promptable foundation model offers: encode an image, decode prompts.

All coordinates are px of the model's own square input frame, with the centre of pixel i at i + 0.5
(each adapter hides its upstream's shifts, scaling and padding). Nothing here detaches or switches
gradients off: callers decide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ultrarefiner.registry import Registry
from ultrarefiner.shapes import Boxes, Candidates, Embeddings, Images, PointLabels, Points, Scores


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts for B items; a kind that is ``None`` is not given to the model at all.

    Items may differ: what an item lacks (a label of -1, a false flag) is hidden from the model as
    if it had never been there. Padding tokens, which are seen, would change the result.

    Attributes:
        boxes: ``B 4`` xyxy [px of the input frame].
        point_coords: ``B N 2`` xy [px of the input frame].
        point_labels: ``B N``, 1 lesion, 0 background, -1 no point.
        masks: ``B 1 h w`` mask prompt as logits on the model's low-resolution grid.
        has_box: ``B`` which items have their box; ``None``: all.
        has_mask: ``B`` which items have their mask; ``None``: all.
        image_index: ``B`` row of the embeddings that each item belongs to; ``None`` means that
            item i belongs to image i.
    """

    boxes: Boxes | None = None
    point_coords: Points | None = None
    point_labels: PointLabels | None = None
    masks: Float[Tensor, "B 1 h w"] | None = None
    has_box: Bool[Tensor, "B"] | None = None
    has_mask: Bool[Tensor, "B"] | None = None
    image_index: Int[Tensor, "B"] | None = None

    def __post_init__(self) -> None:
        assert (self.point_coords is None) == (self.point_labels is None), "points need labels"
        assert self.has_box is None or self.boxes is not None, "which boxes?"
        assert self.has_mask is None or self.masks is not None, "which masks?"
        lengths = {len(value) for value in self._tensors().values()}
        assert len(lengths) == 1, f"prompts of different batch sizes: {sorted(lengths)}"

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def select(self, index: Int[Tensor, "b"]) -> Prompts:
        """Return the prompts of some items."""
        return replace(self, **{name: value[index] for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a model answers to prompts.

    Attributes:
        logits: ``B K h w`` mask logits of K candidates over the whole input frame.
        iou_predictions: ``B K`` the model's own guess of each candidate's IoU.
    """

    logits: Candidates
    iou_predictions: Scores


class FoundationModel(nn.Module, ABC):
    """A promptable segmentation model.

    Its three parts may be trained apart; a model that has none of them cannot be trained.

    Attributes:
        image_encoder: all that :meth:`encode` uses.
        prompt_encoder: what prompts become before they meet the image.
        mask_decoder: the rest of :meth:`decode`.
        weights_sha256: of the file that pretrained weights came from; empty for other weights.
        input_size: side of the square input frame [px].
        mask_size: side of the low-resolution mask grid, which covers the same frame [px].
        multimask_trained: whether the three-candidate and IoU heads were trained; if not,
            callers should ask for the single mask.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    weights_sha256: str = ""
    input_size: int
    mask_size: int
    multimask_trained: bool

    def encoder_tail(self) -> tuple[nn.Module, ...]:
        """Return the last part of the image encoder, where gradients cost a fraction of all."""
        return (self.image_encoder,)

    @abstractmethod
    def normalise(self, images: Images, valid: Bool[Tensor, "B 1 H W"]) -> Images:
        """Scale intensities as the model expects.

        Args:
            images: ``B C H W`` in [0, 1] in the input frame, zero in the padding.
            valid: which pixels are image; the rest is padding.

        Returns:
            ``B 3 H W``, with the model's padding value where there is no image.
        """

    @abstractmethod
    def encode(self, images: Images) -> Embeddings:
        """Encode normalised images. The expensive half; depends on no prompt."""

    @abstractmethod
    def decode(
        self, embeddings: Embeddings, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        """Decode the prompts of B items: K = 3 candidates if ``multimask_output``, else 1."""


FOUNDATION_MODELS = Registry[Callable[[], FoundationModel]]("foundation model")

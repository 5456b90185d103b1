"""What every promptable foundation model offers: encode an image, decode prompts.

All coordinates are px of the model's own square input frame, with the centre of pixel i at i + 0.5
(each adapter hides its upstream's shifts, scaling and padding). Nothing here detaches or switches
gradients off: callers decide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.registry import Registry
from ultrarefiner.shapes import Boxes, Candidates, Embeddings, Images, PointLabels, Points, Scores


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts for B items; a kind that is ``None`` is not given to the model at all.

    Within one value every item has the same number of points: padding tokens would change the
    result. Items with different counts go through :func:`decode_ragged`.

    Attributes:
        boxes: ``B 4`` xyxy [px of the input frame].
        point_coords: ``B N 2`` xy [px of the input frame].
        point_labels: ``B N``, 1 lesion, 0 background.
        masks: ``B 1 h w`` mask prompt as logits on the model's low-resolution grid.
        image_index: ``B`` row of the embeddings that each item belongs to; ``None`` means that
            item i belongs to image i.
    """

    boxes: Boxes | None = None
    point_coords: Points | None = None
    point_labels: PointLabels | None = None
    masks: Float[Tensor, "B 1 h w"] | None = None
    image_index: Int[Tensor, "B"] | None = None

    def __post_init__(self) -> None:
        assert (self.point_coords is None) == (self.point_labels is None), "points need labels"
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

    Attributes:
        input_size: side of the square input frame [px].
        mask_size: side of the low-resolution mask grid, which covers the same frame [px].
        multimask_trained: whether the three-candidate and IoU heads were trained; if not,
            callers should ask for the single mask.
    """

    input_size: int
    mask_size: int
    multimask_trained: bool

    @abstractmethod
    def normalise(self, images: Images, content_hw: Int[Tensor, "B 2"]) -> Images:
        """Scale intensities as the model expects.

        Args:
            images: ``B C H W`` in [0, 1] in the input frame, zero outside the content.
            content_hw: rows and columns that hold image; the rest is padding.

        Returns:
            ``B 3 H W``, with the model's padding value outside the content.
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


def decode_ragged(
    model: FoundationModel,
    embeddings: Embeddings,
    items: list[Prompts],
    *,
    multimask_output: bool = False,
) -> Decoded:
    """Decode items whose prompts differ in kind or number, equal to one by one.

    Items are grouped by what they hold and each group is one batch; nothing is padded.

    Args:
        model: any foundation model.
        embeddings: ``B D h w``, one per item.
        items: B prompts of length 1 each.
        multimask_output: as in :meth:`FoundationModel.decode`.

    Returns:
        Candidates in the order of ``items``.
    """
    assert len(items) == len(embeddings), "one item per embedding"
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, item in enumerate(items):
        assert item.image_index is None, "ragged items are matched to embeddings by position"
        groups.setdefault(_layout(item), []).append(i)
    order: list[int] = []
    parts: list[Decoded] = []
    for members in groups.values():
        together = _concatenate([items[i] for i in members])
        parts.append(model.decode(embeddings[members], together, multimask_output=multimask_output))
        order += members
    inverse = torch.tensor(order, device=embeddings.device).argsort()
    return Decoded(
        logits=torch.cat([part.logits for part in parts])[inverse],
        iou_predictions=torch.cat([part.iou_predictions for part in parts])[inverse],
    )


def _layout(item: Prompts) -> tuple[object, ...]:
    """Return what makes two items batchable: kinds present and number of points."""
    num_points = None if item.point_coords is None else item.point_coords.shape[1]
    return item.boxes is None, num_points, item.masks is None


def _concatenate(items: list[Prompts]) -> Prompts:
    columns = {name: [item._tensors()[name] for item in items] for name in items[0]._tensors()}
    return Prompts(**{name: torch.cat(values) for name, values in columns.items()})

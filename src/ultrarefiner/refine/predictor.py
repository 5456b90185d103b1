"""Refine images one by one or in batches: native pixels in, native pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ultrarefiner.errors import InputError
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.precision import autocast, bf16_is_fast, choose_device
from ultrarefiner.refine.acceptance import AcceptanceRule, Signs
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline, grid_side, unasked
from ultrarefiner.refine.candidates import embed_whole
from ultrarefiner.refine.prompts import ABSENT
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.softening import CoarseLesions, split_lesions
from ultrarefiner.refine.stabilization import ACCEPTED
from ultrarefiner.refine.verdict import Acceptance
from ultrarefiner.shapes import Embeddings, GreyImage, Mask, ProbMap

DEFAULT_FOUNDATION = "lite-medsam"


@dataclass(frozen=True, kw_only=True)
class LesionOutcome:
    """What happened to one lesion.

    Attributes:
        reason: ``accepted``, or why the refinement was refused.
        boxes_xyxy: ``M 4`` prompted boxes [native px]; M may be 0.
        points_xy: ``N 2`` prompted points [native px]; N may be 0.
        point_labels: ``N``, 1 on the lesion, 0 beside it.
        predicted_iou: the foundation model's own opinion of its mask.
        signs: what speaks against its refinement; ``None`` where the stabiliser refused it.
    """

    reason: str
    boxes_xyxy: np.ndarray
    points_xy: np.ndarray
    point_labels: np.ndarray
    predicted_iou: float
    signs: Signs | None = None

    @property
    def accepted(self) -> bool:
        """Whether the refined mask was taken."""
        return self.reason == ACCEPTED


@dataclass(frozen=True, kw_only=True)
class RefinedImage:
    """The result for one image, on its native grid.

    Attributes:
        mask: final mask.
        probs: final probability; where a lesion was refused, its coarse values.
        coarse_mask: the coarse map above 0.5.
        gate: ``h w`` in [0, 1], how far each pixel moved from the coarse to the refined map, on the
            grid on which it did, which holds the whole image; :attr:`native_gate` is finer. Of
            several lesions, that of the one with the greatest final probability; a refused lesion
            has gate 0.
        lesions: what happened to each lesion.
        score: of the acceptance rule, at most 0, the best; ``None`` where there is no rule.
    """

    mask: Mask
    probs: ProbMap
    coarse_mask: Mask
    gate: ProbMap
    lesions: tuple[LesionOutcome, ...]
    score: float | None = None

    @property
    def signs(self) -> tuple[Signs, ...]:
        """What speaks against each lesion that the stabiliser let pass."""
        return tuple(lesion.signs for lesion in self.lesions if lesion.signs is not None)

    @property
    def native_gate(self) -> ProbMap:
        """The gate on the native grid, ``H W``."""
        rows, cols = self.mask.shape
        return cv2.resize(self.gate, (cols, rows), interpolation=cv2.INTER_LINEAR)

    @property
    def accepted(self) -> bool:
        """Whether any lesion was refined."""
        return any(lesion.accepted for lesion in self.lesions)

    @property
    def reason(self) -> str:
        """The reasons of all lesions, each once, in order."""
        return "; ".join(dict.fromkeys(lesion.reason for lesion in self.lesions))

    @property
    def predicted_iou(self) -> float:
        """Least predicted IoU of any lesion."""
        return min(lesion.predicted_iou for lesion in self.lesions)

    @property
    def iou_with_coarse(self) -> float:
        """IoU of the final with the coarse mask; 1 if both are empty."""
        union = np.count_nonzero(self.mask | self.coarse_mask)
        return np.count_nonzero(self.mask & self.coarse_mask) / union if union else 1.0


class Refiner:
    """Refine coarse masks of native images.

    Args:
        foundation: a model or its name in the registry.
        config: settings of every stage.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        bf16: compute in bfloat16; by default where the device is made for it.
        rule: tells which refinements to deliver; by default all that the stabiliser lets pass.

    Example:
        >>> refiner = Refiner()                                        # doctest: +SKIP
        >>> result = refiner(image, coarse)                            # doctest: +SKIP
        >>> result.mask, result.reason                                 # doctest: +SKIP
    """

    def __init__(
        self,
        foundation: str | FoundationModel = DEFAULT_FOUNDATION,
        config: RefinerConfig | None = None,
        *,
        device: str = "auto",
        bf16: bool | None = None,
        rule: AcceptanceRule | None = None,
    ):
        self.config = config or RefinerConfig()
        self.device = choose_device(device)
        self.bf16 = bf16_is_fast(self.device) if bf16 is None else bf16
        self.rule = rule
        if isinstance(foundation, str):
            foundation = FOUNDATION_MODELS[foundation]()
        pipeline = build_pipeline(foundation, self.config, Acceptance(rule))
        self.pipeline = pipeline.to(self.device).eval()
        self._side = grid_side(foundation, self.config)
        self._unasked = build_pipeline(foundation, unasked(self.config)).to(self.device).eval()
        self._known: tuple[list[GreyImage], Embeddings] | None = None

    def __call__(
        self, image: GreyImage, coarse: ProbMap, *, is_hard: bool | None = None
    ) -> RefinedImage:
        """Refine one image; see :meth:`refine_batch`."""
        hard = None if is_hard is None else [is_hard]
        return self.refine_batch([image], [coarse], are_hard=hard)[0]

    @torch.inference_mode()
    def refine_batch(
        self,
        images: Sequence[GreyImage],
        coarse: Sequence[ProbMap],
        *,
        are_hard: Sequence[bool] | None = None,
    ) -> list[RefinedImage]:
        """Refine several images in one pass.

        Args:
            images: native grey images in [0, 1], of any sizes.
            coarse: native coarse maps in [0, 1], each of its image's size.
            are_hard: whether each map is a mask rather than a probability; found out if not given.

        Raises:
            InputError: a coarse map has another size than its image, or values are out of range.
        """
        images = [np.asarray(image, dtype=np.float32) for image in images]
        coarse = [np.asarray(values, dtype=np.float32) for values in coarse]
        if are_hard is None:
            are_hard = [bool(np.isin(values, (0, 1)).all()) for values in coarse]
        frames, lesions = [], []
        for image, values, is_hard in zip(images, coarse, are_hard, strict=True):
            _check(image, values)
            frame = Letterbox(image.shape, self._side)
            frames.append(frame)
            lesions.append(
                split_lesions(values, is_hard=is_hard, frame=frame, config=self.config.softening)
            )
        coarse_maps = [part.probs for part in lesions]
        scene = self._scene(images, coarse_maps)
        scene = replace(scene, embeddings=self._embeddings_of(images))
        with autocast(self.device, enabled=self.bf16):
            refinement = self.pipeline(scene)
        parts = _split_by_image(refinement, [len(part.probs) for part in lesions])
        return [
            _to_native(values, frame, part, answer)
            for values, frame, part, answer in zip(coarse, frames, lesions, parts, strict=True)
        ]

    @torch.inference_mode()
    def segment_batch(self, images: Sequence[GreyImage]) -> list[ProbMap]:
        """Return what the foundation model sees without a prompt: a box of the whole image.

        If the same images are refined next, they are not encoded again, unless the model then looks
        closer.

        Args:
            images: native grey images in [0, 1], of any sizes.

        Returns:
            ``H W`` probabilities of a lesion, on the native grids.

        Raises:
            InputError: an image has another shape, or values are out of range.
        """
        images = [np.array(image, dtype=np.float32) for image in images]
        for image in images:
            _check_values("image", image)
        frames = [Letterbox(image.shape, self._side) for image in images]
        nothing = np.zeros((1, self._side, self._side), dtype=np.float32)
        scene = self._scene(images, [nothing] * len(images))
        with autocast(self.device, enabled=self.bf16):
            embeddings = embed_whole(self.pipeline.foundation, scene)
            refinement = self._unasked(replace(scene, embeddings=embeddings))
        self._known = None if self.config.roi.crop else (images, embeddings)
        return [
            frame.enlarge(probs).clamp(0, 1).numpy()
            for frame, probs in zip(frames, refinement.probs[:, 0].float().cpu(), strict=True)
        ]

    def _embeddings_of(self, images: Sequence[GreyImage]) -> Embeddings | None:
        """Return the embeddings of images that were just segmented, and forget them."""
        known, self._known = self._known, None
        if known is None or len(images) != len(known[0]):
            return None
        are_same = all(map(np.array_equal, images, known[0]))
        return known[1] if are_same else None

    def _scene(
        self, images: Sequence[GreyImage], coarse_maps: Sequence[Float32[np.ndarray, "n h w"]]
    ) -> Scene:
        native_hw = torch.tensor([image.shape for image in images])
        height, width = native_hw.amax(dim=0).tolist()
        padded = np.zeros((len(images), 1, height, width), dtype=np.float32)
        for frame, image in zip(padded, images, strict=True):
            frame[0, : image.shape[0], : image.shape[1]] = image
        coarse = np.concatenate(coarse_maps)[:, None]
        counts = torch.tensor([len(maps) for maps in coarse_maps])
        return Scene(
            images=torch.from_numpy(padded).to(self.device),
            native_hw=native_hw.to(self.device),
            coarse=torch.from_numpy(coarse).to(self.device),
            frames=Frames.letterboxed(native_hw, self._side).to(self.device),
            image_index=torch.arange(len(images)).repeat_interleave(counts).to(self.device),
        )


def _check(image: GreyImage, coarse: ProbMap) -> None:
    """Refuse what would be misunderstood further down."""
    _check_values("image", image)
    _check_values("coarse map", coarse)
    if image.shape != coarse.shape:
        raise InputError(
            "coarse map and image differ in size",
            expected=f"{image.shape[0]}x{image.shape[1]} px (rows x columns)",
            found=f"{coarse.shape[0]}x{coarse.shape[1]} px",
            fix="Resample the coarse map to the image first.",
        )


def _check_values(name: str, values: GreyImage | ProbMap) -> None:
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(
            f"{name} has the wrong shape", expected="rows x columns", found=str(values.shape)
        )
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"{name} has the wrong range",
            expected="finite values in [0, 1]",
            found=f"{values.min()} to {values.max()}",
            fix="Divide 8-bit values by 255; apply a sigmoid to logits.",
        )


@dataclass(frozen=True, kw_only=True)
class _GivenPrompts:
    """What the model was asked about one lesion [native px]."""

    boxes_xyxy: np.ndarray
    points_xy: np.ndarray
    point_labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The part of a refinement that belongs to one image."""

    probs: Tensor
    gate: Tensor
    prompts: list[_GivenPrompts]
    predicted_iou: list[float]
    reasons: tuple[str, ...]
    signs: tuple[Signs | None, ...]
    score: float | None


def _split_by_image(refinement: Refinement, counts: list[int]) -> list[_Answer]:
    """Cut a batch of lesions into those of each image."""
    answers, start = [], 0
    prompts = _given_prompts(refinement)
    gate = refinement.applied_gate
    for count in counts:
        part = slice(start, start + count)
        answers.append(
            _Answer(
                probs=refinement.probs[part, 0].float().cpu(),
                gate=gate[part, 0].cpu(),
                prompts=prompts[part],
                predicted_iou=refinement.selected.predicted_iou[part].tolist(),
                reasons=refinement.final.reasons[part],
                signs=refinement.signs[part],
                score=refinement.scores[start] if refinement.scores else None,
            )
        )
        start += count
    return answers


def _given_prompts(refinement: Refinement) -> list[_GivenPrompts]:
    """Return the prompts of each lesion; what was not given is left out."""
    prompts, frames = refinement.prompts, refinement.scene.lesion_frames()
    boxes = frames.boxes_to_native(prompts.boxes).float().cpu().numpy()
    num = len(boxes)
    has_box = np.ones(num, dtype=bool) if prompts.has_box is None else prompts.has_box.cpu().numpy()
    points = np.zeros((num, 0, 2), dtype=np.float32)
    labels = np.zeros((num, 0), dtype=np.int64)
    if prompts.point_coords is not None and prompts.point_labels is not None:
        points = frames.to_native(prompts.point_coords).float().cpu().numpy()
        labels = prompts.point_labels.long().cpu().numpy()
    return [
        _GivenPrompts(
            boxes_xyxy=boxes[k] if has_box[k] else boxes[k, :0],
            points_xy=points[k, labels[k] != ABSENT],
            point_labels=labels[k, labels[k] != ABSENT],
        )
        for k in range(num)
    ]


def _to_native(
    values: ProbMap, frame: Letterbox, lesions: CoarseLesions, answer: _Answer
) -> RefinedImage:
    """Put the lesions of one image together on its native grid.

    A refused lesion keeps its own native pixels; an accepted one is what the pipeline says.
    """
    outcomes = tuple(
        LesionOutcome(
            reason=reason,
            boxes_xyxy=prompts.boxes_xyxy,
            points_xy=prompts.points_xy,
            point_labels=prompts.point_labels,
            predicted_iou=predicted_iou,
            signs=signs,
        )
        for reason, prompts, predicted_iou, signs in zip(
            answer.reasons, answer.prompts, answer.predicted_iou, answer.signs, strict=True
        )
    )
    accepted = np.array([outcome.accepted for outcome in outcomes])
    kept = lesions.rest | lesions.masks[~accepted].any(axis=0)
    probs = np.where(kept, values, np.float32(0))
    if accepted.any():
        enlarged = frame.enlarge(answer.probs[torch.from_numpy(accepted)]).numpy()
        probs = np.maximum(probs, enlarged.max(axis=0))
    else:
        probs = values
    return RefinedImage(
        mask=probs > 0.5,
        probs=probs.astype(np.float32),
        coarse_mask=values > 0.5,
        gate=_gate_of_image(answer, frame),
        lesions=outcomes,
        score=answer.score,
    )


def _gate_of_image(answer: _Answer, frame: Letterbox) -> ProbMap:
    """Return at each pixel of the content the gate of the lesion that decides it."""
    rows, cols = frame.content_hw
    decisive = answer.probs.argmax(dim=0, keepdim=True)
    gate: ProbMap = answer.gate.gather(0, decisive)[0, :rows, :cols].numpy()
    return gate

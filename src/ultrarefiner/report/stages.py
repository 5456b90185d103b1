"""Every stage of one refinement as pictures: what went in, what was asked, answered and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.metrics import evaluate_mask
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.refine.candidates import model_prompts
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.refine.prompts import ABSENT, BACKGROUND, LESION
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.report.overlay import outline_path
from ultrarefiner.report.panels import (
    Box,
    Mark,
    Panel,
    Raster,
    box_path,
    grey_raster,
    map_raster,
    point_path,
    tint_raster,
)
from ultrarefiner.report.wording import counted, fixed
from ultrarefiner.shapes import GreyImage, Mask, ProbMap, ProbMaps

_MASK_OPACITY = 0.55

_Part = tuple[str, tuple[Raster, ...], tuple[Mark, ...], tuple[int, int] | None]
"""Caption, rasters, marks, and extent if it is not the image's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedCase:
    """One case to look at.

    Attributes:
        name: title.
        about: what to look for.
        image: ``H W`` native grey levels in [0, 1].
        truth: ``H W``.
        coarse: ``H W`` coarse map in [0, 1].
        is_hard: whether the coarse map is a mask rather than a probability.
        is_synthetic: whether the image shows no patient.
    """

    name: str
    about: str
    image: GreyImage
    truth: Mask
    coarse: ProbMap
    is_hard: bool
    is_synthetic: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedVariant:
    """What one variant of the refiner did to a case.

    Attributes:
        name: of the variant.
        reason: of the stabiliser, once for all lesions that share it.
        dsc: Dice of the final mask with the truth, in [0, 1].
        gain: that minus the Dice of the coarse mask.
        panels: one for each of :data:`STAGES`.
    """

    name: str
    reason: str
    dsc: float
    gain: float
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownCase:
    """A case with all its pictures.

    Attributes:
        case: what was refined.
        panel: the image with the truth; it alone holds the pixels that others share.
        dsc: Dice of the coarse mask with the truth, in [0, 1].
        variants: what each variant did.
    """

    case: StagedCase
    panel: Panel
    dsc: float
    variants: tuple[StagedVariant, ...]


STAGES = ("Coarse map", "Prompts", "View", "Refined", "Gate", "Final")
"""Titles of the pictures of a variant, in order."""


def show_case(case: StagedCase, refiners: Mapping[str, Refiner], *, key: str) -> ShownCase:
    """Refine a case with every variant and draw what happened.

    Args:
        case: what to refine.
        refiners: name of a variant to the refiner.
        key: names the case among those of one page: letters, digits and dashes.

    Raises:
        InputError: the coarse map has another size than its image, or values are out of range.
    """
    height, width = case.image.shape
    image = grey_raster(case.image, (0, 0, width, height), key=key)
    dsc = _dsc(case.coarse > 0.5, case.truth)
    variants = []
    for name, refiner in refiners.items():
        refinement, refined = refine_in_stages(refiner, case)
        final = _dsc(refined.mask, case.truth)
        panels = _Painter(case, image, refinement, refined).panels(name, (dsc, final))
        variants.append(
            StagedVariant(
                name=name, reason=refined.reason, dsc=final, gain=final - dsc, panels=panels
            )
        )
    panel = Panel(
        title="Image and truth",
        caption=f"{width} × {height} px",
        shown=f"{case.name}: image with the outline of the truth",
        extent_wh=(width, height),
        rasters=(image,),
        marks=(Mark(style="truth", path=outline_path(case.truth)),),
    )
    return ShownCase(case=case, panel=panel, dsc=dsc, variants=tuple(variants))


def refine_in_stages(refiner: Refiner, case: StagedCase) -> tuple[Refinement, RefinedImage]:
    """Refine a case as always, and keep what the pipeline made on the way."""
    kept: list[Refinement] = []
    hook = refiner.pipeline.register_forward_hook(lambda *call: kept.append(call[-1]))
    try:
        refined = refiner(case.image, case.coarse, is_hard=case.is_hard)
    finally:
        hook.remove()
    return kept[0], refined


class _Painter:
    """The panels of one refinement; all but the view are in native px."""

    def __init__(
        self, case: StagedCase, image: Raster, refinement: Refinement, refined: RefinedImage
    ):
        self.case, self.image = case, image
        self.refinement, self.refined = refinement, refined
        self.frames = refinement.scene.lesion_frames()
        self.letterbox = Letterbox(case.image.shape, refinement.scene.frames.grid_hw[0])
        self.grid_box = grid_boxes(refinement.scene.frames)[0]
        self.truth = Mark(style="truth", path=outline_path(case.truth))
        self.coarse = Mark(style="coarse", path=outline_path(case.coarse > 0.5))

    def panels(self, variant: str, dsc: tuple[float, float]) -> tuple[Panel, ...]:
        """Return a panel for each of :data:`STAGES`."""
        parts = (
            self._coarse_map(),
            self._prompts(),
            self._view(),
            self._refined(),
            self._gate(),
            self._final(dsc),
        )
        height, width = self.case.image.shape
        panels = []
        for title, (caption, rasters, marks, extent_wh) in zip(STAGES, parts, strict=True):
            panels.append(
                Panel(
                    title=title,
                    caption=caption,
                    shown=f"{self.case.name}, {variant}: {title.lower()}. {caption}".strip(),
                    extent_wh=extent_wh or (width, height),
                    rasters=rasters,
                    marks=marks,
                )
            )
        return tuple(panels)

    def _coarse_map(self) -> _Part:
        coarse = self.refinement.coarse
        values = _array(coarse.amax(dim=0)[0])
        num = int((~self.refinement.lesions.no_lesion).sum())
        found = counted(num, "lesion") if num else "no lesion"
        caption = f"{found}, up to {fixed(float(values.max()), 2)}"
        marks = (self.coarse, self.truth)
        return caption, (map_raster(values, self.grid_box),), marks, None

    def _prompts(self) -> _Part:
        prompts, view = self.refinement.prompts, self.refinement.view
        boxes = _array(self.frames.boxes_to_native(prompts.boxes.float()))
        given = [True] * len(boxes) if prompts.has_box is None else prompts.has_box.tolist()
        marks = _box_marks([boxes[i] for i in range(len(boxes)) if given[i]])
        if not view.frames.letterbox:
            paths = "".join(box_path(_box(window)) for window in _array(view.frames.windows))
            marks = (Mark(style="window", path=paths), *marks)
        num_boxes = sum(given) * boxes.shape[1]
        parts = ["1 box" if num_boxes == 1 else f"{num_boxes} boxes"] if num_boxes else []
        if prompts.point_coords is not None and prompts.point_labels is not None:
            points, labels = (
                self.frames.to_native(prompts.point_coords.float()),
                prompts.point_labels,
            )
            marks += _point_marks(_array(points), _array(labels), self.case.image.shape[::-1])
            num = int((labels != ABSENT).sum())
            parts += [counted(num, "point")] if num else []
        overlays = self._mask_prompts()
        parts += ["mask"] if overlays else []
        return ", ".join(parts), (self.image, *overlays), marks, None

    def _mask_prompts(self) -> tuple[Raster, ...]:
        prompts = self.refinement.prompts
        if prompts.masks is None or prompts.has_mask is None:
            return ()
        boxes = grid_boxes(self.refinement.view.lesion_mask_frames())
        shares = _array(prompts.masks.float().sigmoid()[:, 0])
        given = prompts.has_mask.tolist()
        return tuple(
            tint_raster(_MASK_OPACITY * share, "coarse", box)
            for share, box, is_given in zip(shares, boxes, given, strict=True)
            if is_given
        )

    def _view(self) -> _Part:
        """Draw what the model saw, view beside view, with the prompts in its own frame."""
        view = self.refinement.view
        images = _array(view.images()[0].float().mean(dim=1))
        num, height, width = images.shape
        num_across = math.ceil(math.sqrt(num))
        corners = np.array([divmod(i, num_across)[::-1] for i in range(num)]) * (width, height)
        rasters = tuple(
            grey_raster(image, (x, y, x + width, y + height))
            for image, (x, y) in zip(images, corners.tolist(), strict=True)
        )
        extent_wh = (num_across * width, math.ceil(num / num_across) * height)
        marks = self._view_marks(corners, extent_wh)
        caption = f"whole image in {width} × {height} px"
        if not view.frames.letterbox:
            sides = (f"{x1 - x0:.0f}" for x0, _, x1, _ in view.frames.windows.tolist())
            caption = f"{', '.join(sides)} native px in {width} × {height} px"
        return caption, rasters, marks, extent_wh

    def _view_marks(
        self, corners: Float[np.ndarray, "V 2"], extent_wh: tuple[int, int]
    ) -> tuple[Mark, ...]:
        refinement = self.refinement
        asked = model_prompts(refinement.view, refinement.prompts)
        assert asked.image_index is not None, "every item has its view"
        assert asked.boxes is not None, "boxes are given, if only hidden"
        offset = corners[_array(asked.image_index)]
        boxes = _array(asked.boxes.float()) + np.tile(offset, 2)
        if asked.has_box is not None:
            boxes = boxes[_array(asked.has_box)]
        num = refinement.prompts.boxes.shape[1]
        marks = _box_marks(list(boxes.reshape(-1, num, 4)))
        if asked.point_coords is not None and asked.point_labels is not None:
            points = _array(asked.point_coords.float()) + offset[:, None]
            labels = _array(asked.point_labels)
            marks += _point_marks(points[::num], labels[::num], extent_wh)
        return marks

    def _refined(self) -> _Part:
        refinement = self.refinement
        values = _array(refinement.refined.float().amax(dim=0)[0])
        scores = ", ".join(fixed(v, 2) for v in refinement.selected.predicted_iou.tolist())
        num = refinement.proposals.logits.shape[1]
        outline = Mark(style="refined", path=outline_path(self._to_native(values) > 0.5))
        tint = tint_raster(_MASK_OPACITY * values, "refined", self.grid_box)
        caption = f"{counted(num, 'candidate')}, predicted IoU {scores}"
        return caption, (self.image, tint), (outline, self.truth), None

    def _gate(self) -> _Part:
        gate = _array(self._of_owner(self.refinement.gate.float()))
        inside = _array(self.refinement.scene.frames.content()[0, 0])
        low, high = fixed(float(gate[inside].min()), 2), fixed(float(gate[inside].max()), 2)
        caption = f"{low} everywhere" if low == high else f"{low} to {high}"
        return caption, (map_raster(gate, self.grid_box),), (self.coarse, self.truth), None

    def _final(self, dsc: tuple[float, float]) -> _Part:
        outline = Mark(style="refined", path=outline_path(self.refined.mask))
        caption = f"DSC {fixed(dsc[0], 2)} → {fixed(dsc[1], 2)}: {self.refined.reason}"
        return caption, (self.image,), (self.coarse, outline, self.truth), None

    def _of_owner(self, maps: ProbMaps) -> Float[Tensor, "h w"]:
        """Return, of the maps of several lesions, at each pixel that of the likeliest lesion."""
        likely = torch.maximum(self.refinement.coarse, self.refinement.refined)
        return maps.gather(0, likely.argmax(dim=0, keepdim=True))[0, 0]

    def _to_native(self, values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "H W"]:
        """Return a map of the coarse grid on the native grid, as the predictor does."""
        return _array(self.letterbox.enlarge(torch.from_numpy(values)))


def grid_boxes(frames: Frames) -> list[Box]:
    """Return the outer edges of each whole grid, padding included, xyxy [native px]."""
    rows, cols = frames.grid_hw
    edges = frames.windows.new_tensor([0, 0, cols, rows]).expand(len(frames), 1, 4)
    return [_box(edge) for edge in _array(frames.boxes_to_native(edges))[:, 0]]


def _box_marks(groups: Sequence[Float[np.ndarray, "M 4"]]) -> tuple[Mark, ...]:
    """Return the boxes of each lesion, the first of each on top and bold."""
    others = "".join(box_path(_box(box)) for group in groups for box in group[1:])
    first = "".join(box_path(_box(group[0])) for group in groups)
    return Mark(style="box", path=others), Mark(style="first-box", path=first)


def _point_marks(
    points: Float[np.ndarray, "B N 2"], labels: np.ndarray, extent_wh: tuple[int, ...]
) -> tuple[Mark, ...]:
    """Return the points on lesions, and those beside them."""
    marks = []
    for style, label in (("negative", BACKGROUND), ("positive", LESION)):
        paths = (
            point_path(x, y, max(extent_wh), positive=label == LESION)
            for x, y in points[labels == label].tolist()
        )
        marks.append(Mark(style=style, path="".join(paths)))
    return tuple(marks)


def _dsc(mask: Mask, truth: Mask) -> float:
    return evaluate_mask(mask, truth).dsc


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = values.tolist()
    return x0, y0, x1, y1

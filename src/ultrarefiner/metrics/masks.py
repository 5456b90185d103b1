"""Overlap, boundary, lesion and size metrics of one pair of binary 2D masks, in one pass.

Every metric is first what its formula says, and NaN where the formula has no answer, mostly because
a mask is empty; then a policy says what an unanswered one counts. All metrics share one crop, one
boundary and one nearest-neighbour search. Definitions and policies as tables: ``docs/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics.boundaries import (
    BOUNDARIES,
    Boundary,
    Gap,
    gap_between,
    inner_band,
    pixel_elements,
    surfel_elements,
)
from ultrarefiner.metrics.lesions import count_found, lesion_outlines, longest_diameter
from ultrarefiner.metrics.policy import Outcome, Policy, settle

DistanceUnit = Literal["mm", "px"]

METRICS = (
    "dsc",
    "iou",
    "precision",
    "recall",
    "specificity",
    "boundary_iou",
    "lesion_f1",
    "hd",
    "hd95",
    "assd",
    "nsd",
    "area_error",
    "diameter_error",
)
DISTANCES = ("hd", "hd95", "assd", "diameter_error")

_OUTCOMES: dict[tuple[bool, bool], Outcome] = {
    (True, True): "ok",
    (False, True): "missed",
    (True, False): "false_positive",
    (False, False): "both_empty",
}
_BAND = 0.02  # of the image diagonal: the width that Cheng et al. calibrated on human annotators


@dataclass(frozen=True, kw_only=True)
class MaskMetrics:
    """How well one predicted mask agrees with its target.

    A value is NaN only where the policy leaves it undefined.

    Args:
        dsc: Dice similarity coefficient, in [0, 1].
        iou: intersection over union, in [0, 1].
        precision: share of the predicted pixels that are right, in [0, 1].
        recall: share of the target pixels that are found, in [0, 1].
        specificity: share of the background pixels of the frame that are left alone, in [0, 1].
        boundary_iou: IoU of the masks' inner bands, 2 % of the image diagonal wide, in [0, 1].
        lesion_f1: F1 score of the lesions, found where an IoU is above one half, in [0, 1].
        hd: Hausdorff distance, in ``distance_unit``.
        hd95: 95 % Hausdorff distance, in ``distance_unit``.
        assd: average symmetric surface distance, in ``distance_unit``.
        nsd: normalised surface Dice at ``tolerance``, in [0, 1].
        area_pred: area of the predicted mask, in ``distance_unit`` squared.
        area_target: area of the target.
        diameter_pred: longest diameter of a predicted lesion, in ``distance_unit``.
        diameter_target: longest diameter of a lesion of the target.
        tolerance: boundary deviation that the NSD forgives, in ``distance_unit``.
        distance_unit: ``"mm"`` when the pixel spacing was given, else ``"px"``.
        outcome: ``"ok"`` when both masks have pixels, else which of them is empty.
        nsd_at: further tolerances, each with the NSD at it.
        boundary: what the distances and the NSD measure, ``"pixel"`` or ``"surfel"``.
        policy: what an undefined metric counts.
    """

    dsc: float
    iou: float
    precision: float
    recall: float
    specificity: float
    boundary_iou: float
    lesion_f1: float
    hd: float
    hd95: float
    assd: float
    nsd: float
    area_pred: float
    area_target: float
    diameter_pred: float
    diameter_target: float
    tolerance: float
    distance_unit: DistanceUnit
    outcome: Outcome
    nsd_at: tuple[tuple[float, float], ...] = ()
    boundary: Boundary = "pixel"
    policy: Policy = "declared"

    @property
    def area_error(self) -> float:
        """Area of the prediction minus that of the target, in ``distance_unit`` squared."""
        return self.area_pred - self.area_target

    @property
    def diameter_error(self) -> float:
        """Longest diameter of the prediction minus that of the target, in ``distance_unit``."""
        return self.diameter_pred - self.diameter_target


def evaluate_mask(
    pred: NDArray[Any],
    target: NDArray[Any],
    spacing_mm: Sequence[float] | None = None,
    *,
    tolerance: float = 1.0,
    tolerances: Sequence[float] = (),
    boundary: Boundary = "pixel",
    policy: Policy = "declared",
) -> MaskMetrics:
    r"""Return how well a predicted mask agrees with its target.

    Of the pixels :math:`P` and :math:`T` of the masks, in a frame :math:`F`,

    .. math::
        \mathrm{DSC} &= \frac{2 |P \cap T|}{|P| + |T|} \qquad
        \mathrm{IoU} = \frac{|P \cap T|}{|P \cup T|} \qquad
        \mathrm{specificity} = \frac{|F \setminus (P \cup T)|}{|F \setminus T|} \\
        \mathrm{precision} &= \frac{|P \cap T|}{|P|} \qquad
        \mathrm{recall} = \frac{|P \cap T|}{|T|}

    With the boundaries :math:`\partial P, \partial T` (mask pixels with one of their 4 neighbours
    in the background, outside the image counting as background) and the distances
    :math:`D_{PT} = \{\min_{t \in \partial T} \lVert p - t \rVert : p \in \partial P\}` between
    pixel centres,

    .. math::
        \mathrm{HD} &= \max(\max D_{PT},\; \max D_{TP}) \qquad
        \mathrm{HD95} = \max(Q_{95}\,D_{PT},\; Q_{95}\,D_{TP}) \\
        \mathrm{ASSD} &= \frac{\sum D_{PT} + \sum D_{TP}}{|\partial P| + |\partial T|} \qquad
        \mathrm{NSD} = \frac{|\{d \le \tau\}|}{|\partial P| + |\partial T|}

    where :math:`Q_{95}` interpolates linearly. With ``boundary="surfel"`` the outline runs between
    the pixel centres and its pieces count with their lengths, as surface-distance has it.

    Boundary IoU (Cheng et al., https://arxiv.org/abs/2103.16562) is the IoU of the pixels of each
    mask within 2 % of the image diagonal of its background. The lesion F1 is
    :math:`2 n / (n_P + n_T)` for :math:`n_P` predicted and :math:`n_T` true lesions (8-connected
    components), of which :math:`n` pair up with an IoU above one half. The longest diameter is the
    greatest distance between two pixel centres of one lesion.

    Args:
        pred: predicted mask ``(H, W)``, bool or 0/1.
        target: reference mask of the same shape, bool or 0/1.
        spacing_mm: pixel spacing ``(dy, dx)`` in mm; None measures in px.
        tolerance: boundary deviation :math:`\tau \ge 0` that the NSD forgives, in mm when
            ``spacing_mm`` is given, else in px. A distance equal to it is within it.
        tolerances: further tolerances, for ``nsd_at``.
        boundary: what HD, HD95, ASSD and NSD measure, ``"pixel"`` or ``"surfel"``.
        policy: what an undefined metric counts: ``"declared"``, ``"metrics-reloaded"``,
            ``"strict"`` or ``"ignore"``, see :func:`~ultrarefiner.metrics.policy.settle`.

    Returns:
        The metrics; its ``distance_unit`` says which unit.

    Raises:
        InputError: the masks are not 2D, not binary or not of one shape, or the policy is strict
            and a metric is undefined.
        ConfigError: a setting is out of range or unknown.

    Example:
        >>> target = np.zeros((5, 5), dtype=bool)
        >>> target[1:4, 1:4] = True
        >>> metrics = evaluate_mask(np.roll(target, 1, axis=1), target, spacing_mm=(0.5, 0.2))
        >>> round(metrics.dsc, 4), round(metrics.hd95, 4), metrics.distance_unit
        (0.6667, 0.2, 'mm')
    """
    p, t = _binary(pred, "pred"), _binary(target, "target")
    if p.shape != t.shape:
        raise InputError(
            "pred and target differ in shape",
            expected=f"pred of shape {t.shape}",
            found=f"{p.shape}",
            fix="Resample the prediction to the native grid of its target.",
        )
    _check_settings(spacing_mm, (tolerance, *tolerances), boundary)
    height, width = p.shape
    dy, dx = (1.0, 1.0) if spacing_mm is None else spacing_mm

    x, y, w, h = cv2.boundingRect(p | t)
    box = np.s_[y : y + max(h, 1), x : x + max(w, 1)]  # one pixel of nothing when both are empty
    p, t = p[box], t[box]
    num_p, num_t = cv2.countNonZero(p), cv2.countNonZero(t)
    outcome = _OUTCOMES[num_p > 0, num_t > 0]

    overlaps = _overlaps(p, t, num_pixels=height * width)
    band_px = max(1, round(_BAND * math.hypot(height, width)))
    lesions_p, lesions_t = lesion_outlines(p), lesion_outlines(t)
    one_each = len(lesions_p) == len(lesions_t) == 1
    num_found = int(overlaps["iou"] > 0.5) if one_each else count_found(p, t)
    gap = _gap(p, t, (dy, dx), boundary) if outcome == "ok" else None
    values = settle(
        {
            **overlaps,
            "boundary_iou": _boundary_iou(p, t, band_px),
            "lesion_f1": _ratio(2 * num_found, len(lesions_p) + len(lesions_t)),
            **_distances(gap, outcome, tolerance),
        },
        outcome=outcome,
        policy=policy,
        diagonal=math.hypot(height * dy, width * dx),
    )
    return MaskMetrics(
        **values,
        area_pred=num_p * dy * dx,
        area_target=num_t * dy * dx,
        diameter_pred=longest_diameter(lesions_p, (dy, dx)),
        diameter_target=longest_diameter(lesions_t, (dy, dx)),
        tolerance=tolerance,
        distance_unit="px" if spacing_mm is None else "mm",
        outcome=outcome,
        nsd_at=tuple((tau, gap.within(tau) if gap else values["nsd"]) for tau in tolerances),
        boundary=boundary,
        policy=policy,
    )


def _overlaps(
    p: UInt8[np.ndarray, "h w"], t: UInt8[np.ndarray, "h w"], *, num_pixels: int
) -> dict[str, float]:
    """Return the metrics that count pixels, in a frame of so many."""
    num_p, num_t, num_both = cv2.countNonZero(p), cv2.countNonZero(t), cv2.countNonZero(p & t)
    num_either = num_p + num_t - num_both
    return {
        "dsc": _ratio(2 * num_both, num_p + num_t),
        "iou": _ratio(num_both, num_either),
        "precision": _ratio(num_both, num_p),
        "recall": _ratio(num_both, num_t),
        "specificity": _ratio(num_pixels - num_either, num_pixels - num_t),
    }


def _boundary_iou(p: UInt8[np.ndarray, "h w"], t: UInt8[np.ndarray, "h w"], band_px: int) -> float:
    """Return the IoU of the inner bands of two masks."""
    band_p, band_t = inner_band(p, band_px), inner_band(t, band_px)
    return _ratio(cv2.countNonZero(band_p & band_t), cv2.countNonZero(band_p | band_t))


def _gap(
    p: UInt8[np.ndarray, "h w"],
    t: UInt8[np.ndarray, "h w"],
    spacing: tuple[float, float],
    boundary: Boundary,
) -> Gap:
    """Return how far the boundaries of two masks are apart, neither of them empty."""
    if boundary == "surfel":
        return gap_between(surfel_elements(p, spacing), surfel_elements(t, spacing), spacing)
    return gap_between(pixel_elements(p), pixel_elements(t), spacing)


def _distances(gap: Gap | None, outcome: Outcome, tolerance: float) -> dict[str, float]:
    """Return the metrics of the boundaries; a missing one is within no tolerance of the other."""
    if gap is None:
        undefined = dict.fromkeys(("hd", "hd95", "assd"), math.nan)
        return undefined | {"nsd": math.nan if outcome == "both_empty" else 0.0}
    return {
        "hd": gap.hausdorff(),
        "hd95": gap.hausdorff_95(),
        "assd": gap.mean(),
        "nsd": gap.within(tolerance),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _binary(mask: NDArray[Any], name: str) -> UInt8[np.ndarray, "H W"]:
    """Return the mask as 0/1 bytes, or say why it is none."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"{name} is not one 2D mask",
            expected="shape (H, W) with at least one pixel",
            found=f"shape {array.shape}",
            fix="Pass one image and one class at a time.",
        )
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    binary: Bool[np.ndarray, "H W"] = array == 1
    if np.count_nonzero(array) != np.count_nonzero(binary):
        raise InputError(
            f"{name} is not binary",
            expected="bool, or only 0 and 1",
            found=f"{array.dtype} from {array.min()} to {array.max()}",
            fix="Threshold it first: mask > 127 for 0/255 images, probs > 0.5 for probabilities.",
        )
    return binary.view(np.uint8)


def _check_settings(
    spacing_mm: Sequence[float] | None, tolerances: Sequence[float], boundary: str
) -> None:
    """Refuse a spacing, tolerance or boundary that makes no distance."""
    if spacing_mm is not None and not (
        len(spacing_mm) == 2 and all(math.isfinite(step) and step > 0 for step in spacing_mm)
    ):
        raise ConfigError(
            "spacing_mm is out of range",
            expected="two positive numbers (dy, dx) in mm, or None",
            found=f"{spacing_mm}",
            fix="Leave it None when the spacing is unknown: distances are then in px.",
        )
    for tolerance in tolerances:
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigError(
                "tolerance is out of range", expected="a number >= 0", found=f"{tolerance}"
            )
    if boundary not in BOUNDARIES:
        raise ConfigError(
            f"unknown boundary {boundary!r}", expected="one of " + ", ".join(BOUNDARIES)
        )

"""What the report knows of one image: its line of results, its metrics, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ultrarefiner.errors import InputError
from ultrarefiner.refine.verdict import REFUSED
from ultrarefiner.shapes import GreyImage, Mask, ProbMap

Change = Literal["improved", "unchanged", "harmed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseImages:
    """Pixels and prompts of one case, in its native frame; loaded only when they are drawn.

    Args:
        image: ``H W`` in [0, 1].
        coarse: coarse mask.
        refined: final mask; equal to ``coarse`` where the refinement was rejected.
        truth: reference mask, if there is one.
        boxes_xyxy: prompted boxes [native px].
        points_xy: prompted points [native px].
        point_labels: of each point, 1 on the lesion, 0 beside it.
        gate: ``h w`` in [0, 1] how far each pixel moved, on any grid that holds the whole image;
            None if the run did not keep it.

    Raises:
        InputError: a mask has another size than the image, or points and labels differ in number.
    """

    image: GreyImage
    coarse: Mask
    refined: Mask
    truth: Mask | None
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]
    points_xy: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    gate: ProbMap | None = None

    def __post_init__(self) -> None:
        for name in ("coarse", "refined", "truth"):
            mask: Mask | None = getattr(self, name)
            if mask is not None and mask.shape != self.image.shape:
                raise InputError(
                    f"the {name} mask and its image differ in size",
                    expected=_size(self.image.shape),
                    found=_size(mask.shape),
                    fix="Report the masks that the refinement of this very image wrote.",
                )
        if len(self.points_xy) != len(self.point_labels):
            raise InputError(
                "points and their labels differ in number",
                expected=str(len(self.points_xy)),
                found=str(len(self.point_labels)),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportCase:
    """One image of the run.

    Args:
        stem: name shown to the reader.
        row: its line of ``results.csv``; an empty cell means that the value is unknown.
        metrics: its entry of ``eval.json["cases"]``; None without truth.
        baseline: the same for the coarse mask.
        load: gives the pixels, when the gallery wants them.
    """

    stem: str
    row: Mapping[str, str]
    metrics: Mapping[str, float] | None
    baseline: Mapping[str, float] | None
    load: Callable[[], CaseImages]

    @property
    def error(self) -> str:
        """Why the image could not be processed; empty if it was."""
        return self.row.get("error", "").strip()

    @property
    def accepted(self) -> bool:
        """Whether the refined mask was taken."""
        return self.row.get("accepted", "").strip().lower() in {"true", "1", "yes"}

    @property
    def reason(self) -> str:
        """The stabiliser's reason, or plainly the decision where it gave none."""
        return self.row.get("reason", "") or ("accepted" if self.accepted else "rejected")

    @property
    def score(self) -> float | None:
        """Of the acceptance rule, at most 0, the best; None where there was no rule."""
        return self.number("score")

    @property
    def is_refused_by_rule(self) -> bool:
        """Whether the acceptance rule put the coarse mask back."""
        return any(part.startswith(REFUSED) for part in self.reason.split("; "))

    @property
    def patient(self) -> str:
        """Whose image it is; when unknown, the image stands for the patient."""
        return str((self.metrics or {}).get("patient") or self.stem)

    @property
    def area_ratio(self) -> float | None:
        """Refined area relative to coarse area; None where the coarse mask is empty."""
        coarse, refined = self.number("area_coarse_px"), self.number("area_refined_px")
        return refined / coarse if coarse and refined is not None else None

    @property
    def dsc(self) -> float | None:
        """Dice of the refined mask, in [0, 1]."""
        return None if self.metrics is None else self.metrics["dsc"]

    @property
    def dsc_coarse(self) -> float | None:
        """Dice of the coarse mask, in [0, 1]."""
        return None if self.baseline is None else self.baseline["dsc"]

    @property
    def gain(self) -> float | None:
        """Dice of the refined minus that of the coarse mask, in [-1, 1]."""
        if self.dsc is None or self.dsc_coarse is None:
            return None
        return self.dsc - self.dsc_coarse

    def number(self, column: str) -> float | None:
        """Return a numeric cell of the row; None if it is empty or no finite number."""
        try:
            value = float(self.row.get(column, ""))
        except ValueError:
            return None
        return value if math.isfinite(value) else None


def judge_change(gain: float, delta: float) -> Change:
    """Return what a Dice change amounts to, as :func:`ultrarefiner.metrics.compare_paired` does."""
    if abs(gain) <= delta:
        return "unchanged"
    return "improved" if gain > 0 else "harmed"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} px (rows x columns)"

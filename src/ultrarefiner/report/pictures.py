"""Pictures of as many cases as fit into one file: first smaller ones, then fewer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import InputError, UltraRefinerError
from ultrarefiner.refine.folder import resample_coarse
from ultrarefiner.report.cases import CaseImages, ReportCase
from ultrarefiner.report.overlay import FINE, Detail, Overlay, draw_overlay, jpeg_data_uri
from ultrarefiner.report.wording import counted

BUDGET_BYTES = 12_000_000
"""What pictures may take of a page; with 400 cases all else takes less than 3 MB."""

_DETAILS = (
    FINE,
    Detail(max_side_px=512, quality=60),
    Detail(max_side_px=384, quality=60),
    Detail(max_side_px=320, quality=50),
    Detail(max_side_px=256, quality=45),
)
_MAX_LOST_NOTES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What could be embedded.

    Attributes:
        overlays: index of the case to its picture.
        notes: what the reader has to know of those that are missing.
    """

    overlays: Mapping[int, Overlay]
    notes: tuple[str, ...]


def load_pictures(
    cases: Mapping[int, ReportCase],
    *,
    first: Collection[int],
    budget_bytes: int = BUDGET_BYTES,
) -> Pictures:
    """Draw the cases, all of them if they fit.

    Args:
        cases: index to case.
        first: indices of those that are drawn finely and in any case; the others are drawn in the
            most detail in which all of them fit, or not at all.
        budget_bytes: how much all pictures together may take.
    """
    album = _Album(budget_bytes)
    for index in (*first, *(index for index in cases if index not in first)):
        try:
            images = cases[index].load()
        except UltraRefinerError as error:
            album.lose(cases[index].stem, error)
            continue
        album.add(index, images, fine=index in first)
        if album.is_full:
            break
    return album.close(num_others=len(cases.keys() - set(first)))


class _Album:
    """Pictures at every detail that may still fit."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self.overlays: dict[int, Overlay] = {}
        self.jpegs: dict[int, tuple[str, ...]] = {}  # of the cases that need not be fine
        self.num_bytes = [0] * len(_DETAILS)
        self.lost: list[tuple[str, str]] = []

    @property
    def is_full(self) -> bool:
        """Whether even the smallest pictures do not fit."""
        return bool(self.jpegs) and self.num_bytes[-1] > self.budget_bytes

    def lose(self, stem: str, error: UltraRefinerError) -> None:
        self.lost.append((stem, str(error)))

    def add(self, index: int, images: CaseImages, *, fine: bool) -> None:
        overlay = self.overlays[index] = draw_overlay(images)
        jpegs = (overlay.jpeg,) * len(_DETAILS)
        if not fine:
            smaller = (jpeg_data_uri(images.image, detail) for detail in _DETAILS[1:])
            jpegs = self.jpegs[index] = (overlay.jpeg, *smaller)
        for level, jpeg in enumerate(jpegs):
            self.num_bytes[level] += len(jpeg) + _num_bytes_without_jpeg(overlay)

    def close(self, *, num_others: int) -> Pictures:
        """Settle on a detail.

        Args:
            num_others: how many cases there are beside those that are shown in any case.
        """
        notes = _name_lost(self.lost)
        if self.is_full:
            kept = {k: overlay for k, overlay in self.overlays.items() if k not in self.jpegs}
            notes.append(
                f"The pictures of {counted(num_others, 'case')} are left out, since they would "
                "make this file too large; those chosen below are shown."
            )
            return Pictures(overlays=kept, notes=tuple(notes))
        fitting = (i for i, num in enumerate(self.num_bytes) if num <= self.budget_bytes)
        level = next(fitting, len(_DETAILS) - 1)
        kept = {
            k: replace(overlay, jpeg=self.jpegs[k][level]) if k in self.jpegs else overlay
            for k, overlay in self.overlays.items()
        }
        return Pictures(overlays=kept, notes=tuple(notes))


def _num_bytes_without_jpeg(overlay: Overlay) -> int:
    """Return what a picture takes beside its image, all of it ASCII."""
    values = (getattr(overlay, field.name) for field in fields(overlay) if field.name != "jpeg")
    return sum(len(value) for value in values if isinstance(value, str))


def _name_lost(lost: list[tuple[str, str]]) -> list[str]:
    """Return a note on each case without pixels; of many, the reasons of the first."""
    notes = [f"{stem} cannot be shown: {error}" for stem, error in lost[:_MAX_LOST_NOTES]]
    others = [stem for stem, _ in lost[_MAX_LOST_NOTES:]]
    if others:
        notes.append(f"Nor can {counted(len(others), 'other case')}: {', '.join(others)}")
    return notes


def load_images(
    run: Path,
    stem: str,
    made: Mapping[str, Any] | None,
    *,
    truth: str | None = None,
    label: int | None = None,
) -> CaseImages:
    """Read the pixels and prompts of one case of a run.

    Args:
        run: folder that ``refine`` or ``predict`` wrote.
        stem: name of the case.
        made: its entry of ``run.json["cases"]``; points and gate map are optional, since runs of
            older versions did not keep them.
        truth: file of its reference mask, if there is one.
        label: value of the lesion in coarse masks that are label maps.

    Raises:
        InputError: the run does not know the case, or a file cannot be read any more.
    """
    if made is None:
        raise InputError(f"run.json in {run} does not know {stem}")
    image = read_image(Path(made["image"]))
    coarse = read_coarse(Path(made["coarse"]), label=label)
    if coarse.values.shape != image.shape:
        coarse = resample_coarse(coarse, image.shape)
    gate = run / "gates" / f"{made['stem']}.png"
    return CaseImages(
        image=image,
        coarse=coarse.values > 0.5,
        refined=read_coarse(run / "masks" / f"{made['stem']}.png").values > 0.5,
        truth=read_coarse(Path(truth)).values > 0.5 if truth else None,
        boxes_xyxy=tuple(tuple(box) for box in made["boxes_xyxy"]),
        points_xy=tuple(tuple(point) for point in made.get("points_xy", ())),
        point_labels=tuple(made.get("point_labels", ())),
        gate=read_image(gate) if gate.is_file() else None,
    )

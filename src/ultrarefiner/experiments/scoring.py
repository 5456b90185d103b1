"""Masks of a folder measured against the truth of a manifest, and what was used to do so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.pairing import find_images, pair_files
from ultrarefiner.data.readers import CoarseMask, read_coarse
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import Case, evaluate_mask
from ultrarefiner.metrics.boundaries import BOUNDARIES, Boundary
from ultrarefiner.metrics.cases import shown
from ultrarefiner.metrics.policy import POLICIES, Policy
from ultrarefiner.refine.folder import resample_coarse
from ultrarefiner.refine.results import as_cell, read_results
from ultrarefiner.shapes import Mask, ProbMap


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How masks are measured.

    Attributes:
        policy: what an undefined metric counts, see :mod:`ultrarefiner.metrics.policy`.
        boundary: what distances measure, ``"pixel"`` or ``"surfel"``.
        tolerance: boundary deviation that the NSD forgives, at least 0, in mm where the spacing is
            known, else in px.
        tolerances: further ones.
        label: value of the lesion in truth masks that are label maps.
    """

    policy: Policy = "declared"
    boundary: Boundary = "pixel"
    tolerance: float = 1.0
    tolerances: tuple[float, ...] = ()
    label: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("policy", POLICIES), ("boundary", BOUNDARIES)):
            if getattr(self, name) not in known:
                found = repr(getattr(self, name))
                raise ConfigError(name, expected="one of " + ", ".join(known), found=found)
        for tolerance in (self.tolerance, *self.tolerances):
            if not 0 <= tolerance < float("inf"):
                raise ConfigError("tolerance", expected="a number >= 0", found=f"{tolerance}")
        if self.label is not None and self.label < 1:
            raise ConfigError("label", expected="1 or more: 0 is background", found=f"{self.label}")

    def score(self, mask: OpenedMask, truth: Mask, record: Record) -> Case:
        """Return the metrics of one mask.

        Raises:
            InputError: the policy is strict and a metric is undefined.
        """
        try:
            metrics = evaluate_mask(
                mask.values > 0.5,
                truth,
                record.spacing_mm,
                tolerance=self.tolerance,
                tolerances=self.tolerances,
                boundary=self.boundary,
                policy=self.policy,
            )
        except InputError as error:
            raise InputError(
                f"{mask.path} against {record.mask}: {error.what}",
                expected=error.expected,
                found=error.found,
                fix=error.fix,
            ) from error
        return Case(
            image=split_name(record.image)[0],
            metrics=metrics,
            patient=record.patient,
            strata=strata_of(record),
        )


@dataclass(frozen=True, kw_only=True)
class OpenedMask:
    """A predicted mask on the grid of its truth.

    Attributes:
        path: its file.
        coarse: what was in it.
    """

    path: Path
    coarse: CoarseMask

    @property
    def values(self) -> ProbMap:
        """Probability of the lesion, only 0 and 1 in a hard mask."""
        return self.coarse.values


class MaskFolder:
    """The masks of one folder, by the stem of their image.

    Args:
        folder: of masks named as the images, or of a run with ``masks/`` in it; of that only the
            masks that its ``results.csv`` names.
        images: whose masks are looked for.
        resamples: bring masks of another size to that of the truth, as the refinement does.

    Raises:
        InputError: the folder is missing or holds no image.
    """

    def __init__(self, folder: Path, images: Sequence[Path], *, resamples: bool = False):
        self.folder = folder
        self.resamples = resamples
        self.notes: list[tuple[str, str]] = []
        pairing = pair_files(images, _finished_masks(folder))
        self._paths = {pair.stem: pair.coarse for pair in pairing.pairs}
        self._ambiguous = {
            split_name(image)[0]: group for group in pairing.ambiguous for image in group.images
        }

    def open(self, stem: str, shape: tuple[int, ...]) -> OpenedMask:
        """Return the mask of an image.

        Raises:
            InputError: there is none, or more than one that it could be; it cannot be read, or has
                another size than the truth.
        """
        group = self._ambiguous.get(stem)
        if group and group.coarse:
            raise InputError(
                f"names do not tell which mask in {self.folder} is that of {stem}",
                expected="one image and one mask of that name",
                found=shown([str(path) for path in (*group.images, *group.coarse)]),
                fix="Rename the images and their masks, or remove what is there twice.",
            )
        if stem not in self._paths:
            raise InputError(f"no mask named {stem} in {self.folder}")
        path = self._paths[stem]
        coarse = read_coarse(path)
        if coarse.values.shape != shape:
            if not self.resamples:
                raise InputError(
                    f"cannot score {path}",
                    expected=f"the truth's size {_size(shape)}",
                    found=_size(coarse.values.shape),
                    fix="Give masks at the native size of their images.",
                )
            remark = f"resampled from {_size(coarse.values.shape)} to the truth's {_size(shape)}"
            self.notes.append((str(path), remark))
            coarse = resample_coarse(coarse, shape)
        return OpenedMask(path=path, coarse=coarse)


def read_records(manifest: Path, fold: str | None) -> tuple[Record, ...]:
    """Return the records of a manifest, or those of one of its folds.

    Raises:
        InputError: the manifest cannot be used, or has no such fold.
    """
    records = read_manifest(manifest)
    return records if fold is None else outer_split(records, fold)[1]


def read_truth(
    record: Record, label: int | None = None
) -> tuple[Mask, tuple[tuple[str, str], ...]]:
    """Return the true mask of a record, and its file with a remark if it is not plainly a mask.

    Raises:
        InputError: it has none, or it cannot be read.
    """
    if record.mask is None:
        raise InputError(f"{record.image.name} has no mask in the manifest")
    found = read_coarse(record.mask, label=label)
    remarks = found.notes if found.is_hard else (*found.notes, "lesion is what is above one half")
    notes = ((str(record.mask), "; ".join(remarks)),) if remarks else ()
    return found.values > 0.5, notes


def note_unknown_patients(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return a remark on images of which no patient is known, if there are any."""
    unknown = sum(not record.patient for record in records)
    remark = f"{unknown} of {len(records)} images name none: each counts as a patient"
    return [("patient", remark)] if unknown else []


def strata_of(record: Record) -> dict[str, str]:
    """Return what kind of image a record is of, as far as the manifest says."""
    kinds = {
        "label": record.label,
        "birads": record.birads,
        "device": record.device,
        "dataset": record.dataset,
    }
    return {kind: level for kind, level in kinds.items() if level}


def provenance(command: str, manifest: Path | None) -> dict[str, Any]:
    """Return how a result was made: command, versions, digest of the manifest's file."""
    return {
        "command": command,
        "versions": {name: version(name) for name in ("ultrarefiner", "numpy", "scipy")},
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest else None,
    }


def _finished_masks(folder: Path) -> list[Path]:
    """Return the masks of a folder, or those that the run in it has finished."""
    inside = folder / "masks"
    paths = list(find_images(inside if inside.is_dir() else folder))
    if not (inside.is_dir() and (folder / "results.csv").is_file()):
        return paths
    done = {row["image"] for row in read_results(folder / "results.csv") if not row.get("error")}
    return [path for path in paths if as_cell(split_name(path)[0]) in done]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} px"

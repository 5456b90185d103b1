"""Scores of several variants on the same coarse masks, and the result that is stored of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.experiments.scoring import strata_of
from ultrarefiner.metrics import Case, MaskMetrics, compare_paired, evaluate_mask, summarise
from ultrarefiner.metrics.cases import metrics_from_json
from ultrarefiner.metrics.strata import group_levels, size_thirds
from ultrarefiner.shapes import GreyImage, Mask

METRICS = ("dsc", "iou", "precision", "recall", "boundary_iou", "hd95", "assd", "nsd")


class Draw(Protocol):
    """The part of an experiment that says which images it uses."""

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds whose images are used."""

    @property
    def num_images(self) -> int | None:
        """How many of them; all if ``None``."""

    @property
    def seed(self) -> int:
        """Of the draw."""


def choose_records(records: tuple[Record, ...], draw: Draw) -> tuple[Record, ...]:
    """Return the records of the folds, or patients of them in random order up to a number."""
    chosen = [record for record in records if record.fold in draw.folds]
    if draw.num_images is None:
        return tuple(chosen)
    patients = sorted({record.patient for record in chosen})
    order = np.random.default_rng(draw.seed).permutation(len(patients))
    rank = {patients[i]: position for position, i in enumerate(order)}
    chosen.sort(key=lambda record: rank[record.patient])
    return tuple(chosen[: draw.num_images])


@dataclass(frozen=True, kw_only=True)
class OpenedCase:
    """A record with its pixels.

    Attributes:
        index: position among the images of the study.
        record: where it comes from.
        image: ``H W`` in [0, 1].
        truth: ``H W``, the true mask.
    """

    index: int
    record: Record
    image: GreyImage
    truth: Mask

    @property
    def fingerprint(self) -> bytes:
        """Name and all pixels."""
        return self.record.image.name.encode() + self.image.tobytes() + self.truth.tobytes()

    def score(self, mask: Mask) -> MaskMetrics:
        """Return the metrics of a mask against the truth."""
        return evaluate_mask(mask, self.truth, self.record.spacing_mm)


def open_case(record: Record, index: int = 0) -> OpenedCase:
    """Return image and truth of a record that has a mask."""
    assert record.mask is not None, "BUS-BRA has a mask for every image"
    return OpenedCase(
        index=index,
        record=record,
        image=read_image(record.image),
        truth=read_coarse(record.mask).values > 0.5,
    )


@dataclass(frozen=True, kw_only=True)
class ScoredVariant:
    """What a variant made of one coarse map.

    Attributes:
        metrics: of its mask.
        reason: why it is what it is.
        seconds: time that it took.
    """

    metrics: MaskMetrics
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """The scores of one coarse map and of what each variant made of it.

    Attributes:
        coarse: metrics of the coarse mask.
        variants: name to what was made of it.
    """

    coarse: MaskMetrics
    variants: dict[str, ScoredVariant]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ScoredImage:
        """Return what :func:`dataclasses.asdict` was taken of."""
        return cls(
            coarse=metrics_from_json(row["coarse"]),
            variants={
                name: ScoredVariant(**values | {"metrics": metrics_from_json(values["metrics"])})
                for name, values in row["variants"].items()
            },
        )


class Scores:
    """What is known so far of every variant, on the same coarse masks.

    Args:
        variants: their names; the cases of the first are part of the result.
    """

    def __init__(self, variants: Iterable[str]):
        self.cases: dict[str, list[Case]] = {name: [] for name in variants}
        self.reasons: dict[str, Counter[str]] = {name: Counter() for name in self.cases}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.cases}
        self.coarse: list[Case] = []
        self.lesion_shares: list[float] = []
        self._fingerprint = hashlib.sha256()

    def add(self, case: OpenedCase, scored: ScoredImage) -> None:
        """Take in the next image, scored for every variant."""
        self._fingerprint.update(case.fingerprint)
        self.coarse.append(_case(case.record, scored.coarse))
        self.lesion_shares.append(float(case.truth.mean()))
        for name, variant in scored.variants.items():
            self.cases[name].append(_case(case.record, variant.metrics))
            self.reasons[name][variant.reason] += 1
            self.seconds[name].append(variant.seconds)

    def result(self, experiment: Any, command: str) -> dict[str, Any]:
        """Return what is stored: provenance, a summary of each variant, cases of the first.

        Args:
            experiment: the dataclass that was run.
            command: how.
        """
        first = next(iter(self.cases.values()))
        return (
            self.provenance(experiment, command)
            | self.summaries()
            | {"cases": [_row(*pair) for pair in zip(self.coarse, first, strict=True)]}
        )

    def provenance(self, experiment: Any, command: str) -> dict[str, Any]:
        """Return how the result was made, and of which images."""
        return {
            "command": command,
            "experiment": asdict(experiment),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
            "data_sha256": self._fingerprint.hexdigest(),
            "num_images": len(self.coarse),
            "num_patients": len({case.patient for case in self.coarse}),
        }

    def summaries(self) -> dict[str, Any]:
        """Return a summary of the coarse masks and of each variant."""
        return {
            "coarse": _summary(self.coarse),
            "variants": {name: self._variant(name) for name in self.cases},
        }

    def strata(self) -> dict[str, Any]:
        """Return coarse and first variant by pathology and by tertile of the lesion's area share.

        A stratum of fewer than two patients has no interval and is left out.
        """
        first = next(iter(self.cases.values()))
        patients = [case.patient for case in self.coarse]
        sizes, _ = size_thirds(np.array(self.lesion_shares))
        labels = [case.strata.get("label", "") for case in self.coarse]
        strata: dict[str, Any] = {}
        for kind, levels in (("size", sizes), ("label", labels)):
            strata[kind] = {}
            for level, chosen in group_levels(levels, patients)[0].items():
                coarse, refined = ([cases[i] for i in chosen] for cases in (self.coarse, first))
                strata[kind][level] = {
                    "num_images": len(chosen),
                    "coarse": _summary(coarse),
                    "refined": _summary(refined),
                    "paired": asdict(compare_paired(refined, coarse, METRICS)),
                }
        return strata

    def _variant(self, name: str) -> dict[str, Any]:
        cases = self.cases[name]
        paired = asdict(compare_paired(cases, self.coarse, METRICS))
        return _summary(cases) | {"paired": paired, "reasons": dict(self.reasons[name])}


def _case(record: Record, metrics: MaskMetrics) -> Case:
    return Case(
        image=record.image.stem,
        metrics=metrics,
        patient=record.patient,
        strata=strata_of(record),
    )


def _summary(cases: list[Case]) -> dict[str, Any]:
    summary = summarise(cases, METRICS)
    values = np.array([case.metrics.dsc for case in cases])
    return {name: asdict(estimate) for name, estimate in summary.metrics.items()} | {
        "counts": asdict(summary.counts),
        "dsc_sd": float(values.std()),
        "dsc_p5": float(np.percentile(values, 5)),
    }


def _row(coarse: Case, refined: Case) -> dict[str, Any]:
    row: dict[str, Any] = {"image": coarse.image, "patient": coarse.patient}
    for prefix, case in (("coarse", coarse), ("refined", refined)):
        for name in METRICS:
            row[f"{prefix}_{name}"] = round(getattr(case.metrics, name), 4)
    return row

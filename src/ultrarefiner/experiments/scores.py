"""Scores of several variants on the same coarse masks, and the result that is stored of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.metrics import Case, compare_paired, evaluate_mask, summarise
from ultrarefiner.shapes import GreyImage, Mask

METRICS = ("dsc", "iou", "hd95", "nsd")
_SIZES = ("small", "medium", "large")


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


def open_case(record: Record) -> tuple[GreyImage, Mask]:
    """Return image and truth of a record that has a mask."""
    assert record.mask is not None, "BUS-BRA has a mask for every image"
    return read_image(record.image), read_coarse(record.mask).values > 0.5


class Scores:
    """What is known so far of every variant, on the same coarse masks.

    Args:
        variants: their names; the cases of the first are part of the result.
    """

    def __init__(self, variants: Iterable[str]):
        self.cases: dict[str, list[Case]] = {name: [] for name in variants}
        self.reasons: dict[str, Counter[str]] = {name: Counter() for name in self.cases}
        self.coarse: list[Case] = []
        self.labels: list[str] = []
        self.lesion_shares: list[float] = []
        self._fingerprint = hashlib.sha256()

    def begin(self, record: Record, image: GreyImage, truth: Mask, coarse: Mask) -> None:
        """Score the coarse mask of the next image."""
        self._fingerprint.update(record.image.name.encode() + image.tobytes() + truth.tobytes())
        self.coarse.append(_case(record, coarse, truth))
        self.labels.append(record.label)
        self.lesion_shares.append(float(truth.mean()))

    def add(self, name: str, record: Record, mask: Mask, truth: Mask, reason: str) -> None:
        """Score what a variant made of the coarse mask."""
        self.cases[name].append(_case(record, mask, truth))
        self.reasons[name][reason] += 1

    def result(self, experiment: Any, command: str) -> dict[str, Any]:
        """Return what is stored: provenance, a summary of each variant, cases of the first.

        Args:
            experiment: the dataclass that was run.
            command: how.
        """
        first = next(iter(self.cases.values()))
        return {
            "command": command,
            "experiment": asdict(experiment),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
            "data_sha256": self._fingerprint.hexdigest(),
            "num_images": len(self.coarse),
            "num_patients": len({case.patient for case in self.coarse}),
            "coarse": _summary(self.coarse),
            "variants": {name: self._variant(name) for name in self.cases},
            "cases": [_row(*pair) for pair in zip(self.coarse, first, strict=True)],
        }

    def strata(self) -> dict[str, Any]:
        """Return coarse and first variant by pathology and by tertile of the lesion's area share.

        A stratum of fewer than two patients has no interval and is left out.
        """
        first = next(iter(self.cases.values()))
        thirds = np.quantile(self.lesion_shares, [1 / 3, 2 / 3])
        sizes = [_SIZES[np.searchsorted(thirds, share)] for share in self.lesion_shares]
        strata: dict[str, Any] = {}
        for kind, names in (("size", sizes), ("label", self.labels)):
            strata[kind] = {}
            for name in sorted(set(names)):
                chosen = [i for i, other in enumerate(names) if other == name]
                coarse, refined = ([cases[i] for i in chosen] for cases in (self.coarse, first))
                if len({case.patient for case in coarse}) > 1:
                    strata[kind][name] = {
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


def _case(record: Record, mask: Mask, truth: Mask) -> Case:
    metrics = evaluate_mask(mask, truth, record.spacing_mm)
    return Case(image=record.image.stem, metrics=metrics, patient=record.patient)


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

"""Which settings of the refinement help? One changed at a time, on several kinds of coarse masks.

Every variant refines the same masks of every source: rough versions of the truth, and what networks
say of images they have not seen. The foundation model is frozen. Beside the tables the result holds
what it is worth to choose among the variants, on patients that had no say in the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.choice import (
    DECIMALS,
    CaseTable,
    CriterionConfig,
    cross_validate,
    deal_patients,
)
from ultrarefiner.experiments.scores import Scores, choose_records
from ultrarefiner.experiments.sources import (
    CoarseSource,
    NetworkMasksConfig,
    RoughMasks,
    open_networks,
)
from ultrarefiner.experiments.variants import Track, check_variants, score_variants, untracked
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.statistics import estimate_columns

BASE = "default"
"""Name of the variant that changes nothing."""


@dataclass(frozen=True, kw_only=True)
class AblationExperiment:
    """One run, as written in a recipe.

    In a recipe a variant says only what it changes in ``base``.

    Attributes:
        folds: official folds of BUS-BRA whose images are used.
        sources: name to where coarse masks come from.
        groups: name of a group to the variants in it, name to settings of the refiner.
        base: settings of the variant called ``default``, which belongs to every group.
        num_images: how many images, patient after patient in random order; all if ``None``.
        seed: of the draw and of the inner folds.
        num_inner_folds: parts of the patients for the choice among variants.
        criterion: what is best.
        foundation: name in the registry.
    """

    folds: tuple[str, ...]
    sources: dict[str, RoughMasks | NetworkMasksConfig]
    groups: dict[str, dict[str, RefinerConfig]]
    base: RefinerConfig = field(default_factory=RefinerConfig)
    num_images: int | None = None
    seed: int = 0
    num_inner_folds: int = 5
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    foundation: str = "lite-medsam"

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("experiment sources", expected="at least one", found="none")
        if self.num_inner_folds < 2:
            raise ConfigError(
                "num_inner_folds", expected="2 or more", found=str(self.num_inner_folds)
            )
        names = [BASE, *(name for group in self.groups.values() for name in group)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                "experiment groups",
                expected=f"each variant once, and none called {BASE!r}",
                found=f"{twice[0]!r} again",
            )
        check_variants(self.variants)

    @property
    def variants(self) -> dict[str, RefinerConfig]:
        """The base and every variant of every group."""
        return {BASE: self.base} | {
            name: config for group in self.groups.values() for name, config in group.items()
        }


def run_ablation(
    experiment: AblationExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Track = untracked,
    partial: Path | None = None,
) -> dict[str, Any]:
    """Score every variant on every source, and the choice among them.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.
        partial: keeps the finished images of an interrupted run, see :func:`score_variants`.

    Returns:
        The result as it is stored. ``coarse`` and ``variants`` are averages over the sources,
        ``sources`` has the summaries of each and the DSC of every case, in the order of ``cases``.

    Raises:
        ConfigError: a fold has images and no network.
        LeakError: a network was trained, or its checkpoint chosen, on one of the images.
        InputError: there are fewer patients than inner folds.
        OutputError: ``partial`` belongs to something else or cannot be written.
    """
    records = choose_records(read_busbra(root), experiment)
    fold = deal_patients(
        [record.patient for record in records], experiment.num_inner_folds, seed=experiment.seed
    )
    scores = score_variants(
        records,
        _open_sources(experiment, records, device),
        experiment.variants,
        foundation=experiment.foundation,
        device=device,
        track=track,
        partial=partial,
    )
    table = case_table(scores)
    some = next(iter(scores.values()))
    return (
        some.provenance(experiment, command)
        | averages(table, experiment.criterion.delta)
        | {
            "sources": {name: _source(table, i, scores[name]) for i, name in enumerate(scores)},
            "choice": _choices(experiment, table, fold),
            "cases": [
                {"image": r.image.stem, "patient": r.patient, "fold": r.fold, "inner_fold": int(f)}
                for r, f in zip(records, fold, strict=True)
            ],
        }
    )


def _open_sources(
    experiment: AblationExperiment, records: Sequence[Record], device: str
) -> dict[str, CoarseSource]:
    return {
        name: source
        if isinstance(source, RoughMasks)
        else open_networks(source, records, device=device)
        for name, source in experiment.sources.items()
    }


def case_table(scores: Mapping[str, Scores]) -> CaseTable:
    """Return the DSC of every case; the scores are of the same images and variants."""
    some = next(iter(scores.values()))
    return CaseTable(
        [case.patient for case in some.coarse],
        np.array([[case.metrics.dsc for case in s.coarse] for s in scores.values()]),
        {
            name: np.array([[case.metrics.dsc for case in s.cases[name]] for s in scores.values()])
            for name in some.cases
        },
    )


def averages(table: CaseTable, delta: float) -> dict[str, Any]:
    """Return ``coarse`` and ``variants`` over all sources, each of equal weight.

    An image counts as harmed in the share of sources where its DSC falls by more than ``delta``.
    Each variant is also compared with the first. All intervals are over patients.

    Args:
        table: DSC of every case.
        delta: change in DSC up to which an image counts as unchanged, in [0, 1).
    """
    names = list(table.refined)
    gains = table.gains(names)
    parts = {
        "dsc": np.stack(list(table.refined.values())).mean(axis=1),
        "gain": gains.mean(axis=1),
        "harmed": (gains < -delta).mean(axis=1),
        "improved": (gains > delta).mean(axis=1),
        "against_default": (gains - gains[0]).mean(axis=1),
    }
    estimates = {
        part: [asdict(e) for e in estimate_columns(values.T, table.patients, names).values()]
        for part, values in parts.items()
    }
    coarse = estimate_columns(table.coarse.mean(axis=0)[:, None], table.patients, ("dsc",))
    return {
        "coarse": {"dsc": asdict(coarse["dsc"])},
        "variants": {
            name: {
                "dsc": estimates["dsc"][i],
                "against_default": estimates["against_default"][i],
                "paired": {
                    "delta": delta,
                    "differences": {"dsc": estimates["gain"][i]},
                    "harmed": _share(estimates["harmed"][i]),
                    "improved": _share(estimates["improved"][i]),
                },
            }
            for i, name in enumerate(names)
        },
    }


def _share(estimate: Mapping[str, float]) -> dict[str, float]:
    return {"share": estimate["mean"], "low": estimate["low"], "high": estimate["high"]}


def _source(table: CaseTable, index: int, scores: Scores) -> dict[str, Any]:
    """Return the summaries of one source, the time of each variant, and the DSC of every case."""
    content = scores.summaries()
    for name, seconds in scores.seconds.items():
        content["variants"][name]["seconds_per_image"] = round(float(np.median(seconds)), DECIMALS)
    rows = {"coarse": table.coarse[index]} | {
        name: values[index] for name, values in table.refined.items()
    }
    return content | {"case_dsc": {name: values.tolist() for name, values in rows.items()}}


def _choices(experiment: AblationExperiment, table: CaseTable, fold: np.ndarray) -> dict[str, Any]:
    """Return the choice among all variants, and that within each group."""

    def choice(names: Sequence[str]) -> dict[str, Any]:
        found = cross_validate(table, fold, names=names, criterion=experiment.criterion)
        return asdict(found)

    groups = {name: choice([BASE, *group]) for name, group in experiment.groups.items() if group}
    return {"all": choice(list(experiment.variants)), "groups": groups}

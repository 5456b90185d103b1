"""Fit the errors of corrupted masks to those of real predictions.

Every type of error, in narrow bands of its size, is laid on the true masks. A mixture of these is
then sought that has the statistics of the predictions: the histograms of all of
:data:`~ultrarefiner.data.corruption.description.STATISTICS` at once. A type's probability is the
weight of its bands; an even draw from its range has their mean and spread. Softness is measured
directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from ultrarefiner.data.corruption.config import (
    DEFAULT_PROBABILITIES,
    CorruptionConfig,
    Range,
)
from ultrarefiner.data.corruption.description import STATISTICS, Truth, find_temperature, to_grid
from ultrarefiner.data.corruption.engine import corrupt
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.shapes import Mask, ProbMap

Table: TypeAlias = Float[np.ndarray, "N S"]
Track = Callable[[Iterable["_Band"], int], Iterable["_Band"]]
_Function = Callable[[np.ndarray], np.ndarray]

# Edges of the bands of each type, by the setting that says how large it is.
_EDGES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "identity": ("identity_px", (0, 1, 2, 3)),
    "over": ("over_ratio", (1.01, 1.03, 1.06, 1.1, 1.2, 1.4, 1.8, 3.0)),
    "giant": ("giant_ratio", (3, 6, 20)),
    "under": ("under_ratio", (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.99)),
    "missing": ("missing_share", (0.02, 0.05, 0.1, 0.2, 0.3, 0.6)),
    "holes": ("hole_share", (0.005, 0.02, 0.06, 0.2)),
    "islands": ("island_share", (0.01, 0.03, 0.1, 0.3, 1.0)),
    "shift": ("shift", (0.01, 0.05, 0.15, 0.3)),
}
_ROUGHNESS = (0.0, 0.04, 0.08, 0.12, 0.18)
_ROUGH = ("over", "under")
# On which scale a size is drawn evenly, and the way back; the others as they are.
_SCALES: Mapping[str, tuple[_Function, _Function]] = {
    "over": (lambda ratio: np.log(np.log(ratio)), lambda size: np.exp(np.exp(size))),
    "giant": (lambda ratio: np.log(np.log(ratio)), lambda size: np.exp(np.exp(size))),
    "under": (lambda ratio: np.log(-np.log(ratio)), lambda size: np.exp(-np.exp(size))),
    "islands": (np.log, np.exp),
}
_LEAST_PAIRS = 20
_NUM_DRAWN = 400  # masks that the fit is judged by
_NUM_BINS, _NUM_ROUNDS, _FLOOR = 16, 1500, 0.5


@dataclass(frozen=True, kw_only=True)
class CorruptionFit:
    """What was fitted, and how well.

    Attributes:
        config: settings whose corrupted masks resemble the predictions.
        num_pairs: how many predictions.
        gaps: of each statistic, the largest difference between the distribution functions of the
            predictions and of masks corrupted with the fitted and with the default settings.
        dsc: quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of ``real``, ``fitted`` and ``default``; a
            missed lesion counts as 0.
    """

    config: CorruptionConfig
    num_pairs: int
    gaps: dict[str, tuple[float, float]]
    dsc: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class _Band:
    """One type of error in a narrow range of sizes."""

    kind: str
    limits: Range | None = None
    roughness: Range | None = None

    def config(self) -> CorruptionConfig:
        """Return the settings that make nothing else."""
        ranges = {} if self.limits is None else {_EDGES[self.kind][0]: self.limits}
        if self.roughness is not None:
            ranges["roughness"] = self.roughness
        return CorruptionConfig(
            probabilities={self.kind: 1.0},
            secondary_probability=0.0,
            soft_probability=0.0,
            **ranges,  # type: ignore[arg-type]
        )


def fit_corruption(
    pairs: Iterable[tuple[Mask, ProbMap]],
    *,
    seed: int = 0,
    masks_per_band: int = 150,
    track: Track = lambda bands, _: bands,
) -> CorruptionFit:
    """Fit probabilities of the types, ranges of their sizes and softness to predictions.

    One error for each mask is fitted: ``secondary_probability`` is 0. Number, length and width of
    holes, bridges, islands and cuts stay at their defaults. All is fitted on a grid of 224 px and
    holds for masks of any size.

    Args:
        pairs: true mask and prediction of its image, a probability or a mask (0 and 1), of the
            same size. The network must not have seen the image. Empty truths are passed over.
        seed: of the simulated errors, >= 0.
        masks_per_band: how many of them for each type and size.
        track: wraps the iteration over bands, for a progress bar.

    Raises:
        ConfigError: ``masks_per_band`` is below 10.
        InputError: fewer than 20 pairs, or a prediction of another size.
    """
    if masks_per_band < 10:
        raise ConfigError("masks_per_band", expected="at least 10", found=f"{masks_per_band}")
    truths, real, temperatures_px, are_soft = _measure(pairs)
    if len(truths) < _LEAST_PAIRS:
        raise InputError(
            "predictions to fit corruptions to",
            expected=f"at least {_LEAST_PAIRS} with a lesion in the truth",
            found=f"{len(truths)}",
            fix="Predict more images that the network has not seen.",
        )
    bands = _bands()
    simulated = [
        _simulate(truths, band.config(), (seed, number), masks_per_band)
        for number, band in enumerate(track(bands, len(bands)))
    ]
    weights = _mix(real, simulated)
    config = _config(bands, weights, temperatures_px, float(np.mean(are_soft or [False])))
    drawn = {
        name: _simulate(truths, settings, (seed, len(bands)), max(len(truths), _NUM_DRAWN))
        for name, settings in (("fitted", config), ("default", CorruptionConfig()))
    }
    return CorruptionFit(
        config=config,
        num_pairs=len(truths),
        gaps={
            name: (
                _gap(real[:, s], drawn["fitted"][:, s]),
                _gap(real[:, s], drawn["default"][:, s]),
            )
            for s, name in enumerate(STATISTICS)
        },
        dsc={name: _dsc_quantiles(table) for name, table in [("real", real), *drawn.items()]},
    )


def _measure(
    pairs: Iterable[tuple[Mask, ProbMap]],
) -> tuple[list[Truth], Table, list[float], list[bool]]:
    """Return truths and statistics of the predictions, their temperatures, which are soft.

    Those without an outline are not counted: a corruption softens none of them either.
    """
    truths: list[Truth] = []
    rows: list[list[float]] = []
    temperatures_px: list[float] = []
    are_soft: list[bool] = []
    for mask, probs in pairs:
        if mask.shape != probs.shape:
            raise InputError(
                "a prediction", expected=f"{mask.shape} px, as the truth", found=f"{probs.shape}"
            )
        small = to_grid(mask) > 0.5
        if not small.any():
            continue
        truths.append(Truth(small))
        coarse = to_grid(probs)
        pred = coarse > 0.5
        rows.append(list(truths[-1].describe(pred).values()))
        if not pred.any() or pred.all():
            continue
        are_soft.append(bool(((probs > 0) & (probs < 1)).any()))
        temperature_px = find_temperature(coarse) if are_soft[-1] else None
        if temperature_px is not None:
            temperatures_px.append(temperature_px)
    return truths, np.array(rows, dtype=float), temperatures_px, are_soft


def _bands() -> list[_Band]:
    bands = []
    for kind in DEFAULT_PROBABILITIES:
        edges = _EDGES[kind][1] if kind in _EDGES else ()
        sizes: list[Range | None] = [*pairwise(edges)] or [None]
        levels: list[Range | None] = [*pairwise(_ROUGHNESS)] if kind in _ROUGH else [None]
        for band in sizes:
            bands += [_Band(kind=kind, limits=band, roughness=level) for level in levels]
    return bands


def _simulate(
    truths: Sequence[Truth], config: CorruptionConfig, seed: tuple[int, int], num: int
) -> Table:
    """Return the statistics of corrupted truths, each of them as often as any other."""
    rng = np.random.default_rng(seed)
    series = int(rng.integers(2**32))
    chosen = np.resize(rng.permutation(len(truths)), num).tolist()
    return np.array(
        [
            list(
                truths[k]
                .describe(corrupt(truths[k].mask, seed=series, index=i, config=config).probs > 0.5)
                .values()
            )
            for i, k in enumerate(chosen)
        ],
        dtype=float,
    )


def _mix(real: Table, simulated: Sequence[Table]) -> Float[np.ndarray, "K"]:
    r"""Return the weights of a mixture whose histograms are nearest to the real ones.

    Expectation maximisation of :math:`\sum_s \sum_b h_{sb} \log \sum_k w_k H_{ksb}` with the
    histograms :math:`h` of the predictions and :math:`H_k` of each band: the sum over all
    statistics of the likelihood of each alone, so that how they depend on each other plays no role.
    """
    real_bins, bands_bins = [], []
    for s in range(real.shape[1]):
        columns = [table[:, s] for table in simulated]
        edges = _edges(real[:, s], np.concatenate(columns))
        real_bins.append(_histogram(real[:, s], edges, smooth=False))
        bands_bins.append(np.stack([_histogram(column, edges, smooth=True) for column in columns]))
    h, bands = np.concatenate(real_bins), np.concatenate(bands_bins, axis=1)
    weights = np.full(len(bands), 1 / len(bands))
    for _ in range(_NUM_ROUNDS):
        weights *= bands @ (h / (weights @ bands)) / real.shape[1]
    result: Float[np.ndarray, "K"] = weights / weights.sum()
    return result


def _edges(real: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """Return inner edges of bins that hold like numbers of both."""
    levels = np.linspace(0, 1, _NUM_BINS + 1)[1:-1]
    found = [values[np.isfinite(values)] for values in (real, simulated)]
    return np.unique(np.concatenate([np.quantile(v, levels) for v in found if len(v)]))


def _histogram(values: np.ndarray, edges: np.ndarray, *, smooth: bool) -> np.ndarray:
    """Return the share of values in each bin, of what is not there in the last one."""
    # Just above an edge and on it are different bins: many values are exactly 0.
    bins = np.where(np.isfinite(values), np.searchsorted(edges, values), len(edges) + 1)
    counts = np.bincount(bins, minlength=len(edges) + 2).astype(float)
    if smooth:
        counts += _FLOOR / len(counts)
    shares: np.ndarray = counts / counts.sum()
    return shares


def _config(
    bands: Sequence[_Band],
    weights: Float[np.ndarray, "K"],
    temperatures_px: Sequence[float],
    soft_probability: float,
) -> CorruptionConfig:
    shares = {
        kind: round(float(sum(w for b, w in zip(bands, weights, strict=True) if b.kind == kind)), 4)
        for kind in DEFAULT_PROBABILITIES
    }
    largest = max(shares, key=lambda kind: shares[kind])
    shares[largest] = round(shares[largest] + 1 - sum(shares.values()), 6)
    fitted: dict[str, Range] = {}
    for kind, (name, _) in _EDGES.items():
        of_kind = [(b.limits, w) for b, w in zip(bands, weights, strict=True) if b.kind == kind]
        if shares[kind] >= 0.01:
            fitted[name] = _range(of_kind, kind)
    rough = [(b.roughness, w) for b, w in zip(bands, weights, strict=True) if b.kind in _ROUGH]
    if shares["over"] + shares["under"] >= 0.01:
        fitted["roughness"] = _range(rough)
    config = replace(
        CorruptionConfig(secondary_probability=0.0),
        probabilities=shares,
        soft_probability=round(soft_probability, 4),
        **fitted,  # type: ignore[arg-type]
    )
    if len(temperatures_px) == 0:
        return config
    # An even draw has its quarter points where the predictions have theirs; few are very soft.
    lower_px, upper_px = np.quantile(temperatures_px, [0.25, 0.75])
    reach_px = (upper_px - lower_px) / 2
    limits = np.maximum([lower_px - reach_px, upper_px + reach_px], min(temperatures_px))
    limits = np.round(np.clip(limits, 0.05, 64.0), 3)
    return replace(config, temperature_px=(float(limits[0]), float(limits[1])))


def _range(bands: Sequence[tuple[Range | None, float]], kind: str = "") -> Range:
    """Return the range in which a draw has the mean and spread that the weights say.

    Args:
        bands: limits and weight of each.
        kind: type whose sizes they are; it says on which scale they are drawn evenly.
    """
    scale, back = _SCALES.get(kind, (np.asarray, np.asarray))
    edges = scale(np.array([band for band, _ in bands], dtype=float))
    weights = np.array([weight for _, weight in bands])
    weights = weights / weights.sum()
    mean = float(weights @ edges.mean(axis=1))
    within = np.diff(edges, axis=1)[:, 0] ** 2 / 12
    variance = float(weights @ ((edges.mean(axis=1) - mean) ** 2 + within))
    reach = np.sqrt(3 * variance) * np.array([-1.0, 1.0])
    low, high = sorted(back(np.clip(mean + reach, edges.min(), edges.max())))
    return round(float(low), 4), round(float(high), 4)


def _gap(real: np.ndarray, drawn: np.ndarray) -> float:
    """Return the largest difference of two distribution functions, 0 to 1 (Kolmogorov-Smirnov)."""
    samples = [np.sort(np.nan_to_num(values, nan=-np.inf)) for values in (real, drawn)]
    places = np.concatenate(samples)
    below = [np.searchsorted(sample, places, side="right") / len(sample) for sample in samples]
    return float(np.abs(below[0] - below[1]).max())


def _dsc_quantiles(table: Table) -> tuple[float, ...]:
    dsc = np.nan_to_num(table[:, list(STATISTICS).index("dsc")], nan=0.0)
    return tuple(round(float(q), 4) for q in np.quantile(dsc, [0.05, 0.25, 0.5, 0.75, 0.95]))

"""The twelve types: how the numbers of each are drawn, and what makes a mask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ultrarefiner.data.corruption.additions import add_islands, build_bridge, scatter
from ultrarefiner.data.corruption.config import CorruptionConfig, Range
from ultrarefiner.data.corruption.lesion import Lesion
from ultrarefiner.data.corruption.outlines import perturb, resize, shift
from ultrarefiner.data.corruption.removals import cut_chunk, cut_through, dig_holes, miss
from ultrarefiner.shapes import Mask

Settings = dict[str, float]
Draw = Callable[[np.random.Generator, CorruptionConfig], Settings]
Apply = Callable[[Lesion, Mapping[str, float], np.random.Generator], Mask]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One type of error.

    Attributes:
        draw: samples its numbers; those named ``area_ratio`` say how large the mask becomes.
        apply: makes the mask; the generator serves the shape of what is drawn alone.
        is_structural: whether it may follow another type.
    """

    draw: Draw
    apply: Apply
    is_structural: bool = False


def _identity(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return {"distance_px": rng.uniform(*config.identity_px)}


def _over(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return _resized(rng, config.over_ratio, config.roughness)


def _giant(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return _resized(rng, config.giant_ratio, config.roughness)


def _under(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return _resized(rng, config.under_ratio, config.roughness)


def _resized(rng: np.random.Generator, ratios: Range, roughness: Range) -> Settings:
    """Draw an area ratio and, the larger the error is, a rougher outline.

    Small errors are more frequent than large ones: the logarithm of ``|log ratio|`` is uniform.
    """
    strength = rng.random()
    mild, strong = sorted(ratios, key=lambda ratio: abs(np.log(ratio)))
    sizes = np.log(np.abs(np.log([mild, strong])))
    size = float(np.exp(np.interp(strength, [0, 1], sizes)))
    return {
        "area_ratio": float(np.exp(np.copysign(size, np.log(strong)))),
        "roughness": float(np.interp(strength, [0, 1], roughness)),
    }


def _missing(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return {
        "area_ratio": 1 - rng.uniform(*config.missing_share),
        "is_wedge": int(rng.integers(2)),
        "angle": rng.uniform(0, 2 * np.pi),
    }


def _holes(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    num = _integer(rng, config.num_holes)
    shares = rng.uniform(*config.hole_share, size=num)
    return {"area_ratio": 1 - min(float(shares.sum()), 0.95), "num": num}


def _bridge(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return {
        "length": rng.uniform(*config.bridge_length),
        "width": rng.uniform(*config.bridge_width),
        "blob": rng.uniform(0.2, 0.55),
    }


def _islands(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    # Few are more frequent than many: uniform in the logarithm.
    low, high = config.num_islands
    num = int(np.clip(_log_uniform(rng, (low, high + 1)), low, high))
    return {"area_ratio": 1 + _log_uniform(rng, config.island_share), "num": num}


def _fragments(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return {
        "num": _integer(rng, config.num_cuts),
        "width": rng.uniform(*config.cut_width),
        "angle": rng.uniform(0, np.pi),
    }


def _shift(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    return {"distance": rng.uniform(*config.shift), "angle": rng.uniform(0, 2 * np.pi)}


def _empty(_: np.random.Generator, __: CorruptionConfig) -> Settings:
    return {}


def _scatter(rng: np.random.Generator, config: CorruptionConfig) -> Settings:
    area_ratio = _log_uniform(rng, config.scatter_share)
    return {"area_ratio": area_ratio, "grain": rng.uniform(0.06, 0.25)}


def _log_uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _integer(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(*limits, endpoint=True))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "identity": Kind(draw=_identity, apply=perturb),
        "over": Kind(draw=_over, apply=resize),
        "giant": Kind(draw=_giant, apply=resize),
        "under": Kind(draw=_under, apply=resize),
        "missing": Kind(draw=_missing, apply=cut_chunk, is_structural=True),
        "holes": Kind(draw=_holes, apply=dig_holes, is_structural=True),
        "bridge": Kind(draw=_bridge, apply=build_bridge, is_structural=True),
        "islands": Kind(draw=_islands, apply=add_islands, is_structural=True),
        "fragments": Kind(draw=_fragments, apply=cut_through, is_structural=True),
        "shift": Kind(draw=_shift, apply=shift, is_structural=True),
        "empty": Kind(draw=_empty, apply=miss),
        "scatter": Kind(draw=_scatter, apply=scatter),
    }
)
"""The types by name, in the order of the source's table."""

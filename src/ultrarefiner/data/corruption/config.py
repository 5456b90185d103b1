"""Which errors a corrupted mask has, how large and how often; presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ultrarefiner.errors import ConfigError

Range = tuple[float, float]

DEFAULT_PROBABILITIES: Mapping[str, float] = MappingProxyType(
    {
        "identity": 0.11,
        "over": 0.13,
        "giant": 0.07,
        "under": 0.13,
        "missing": 0.09,
        "holes": 0.07,
        "bridge": 0.07,
        "islands": 0.13,
        "fragments": 0.07,
        "shift": 0.07,
        "empty": 0.03,
        "scatter": 0.03,
    }
)
"""The twelve types and the share of masks that each gets."""

# Smallest and largest value that a range may hold.
_LIMITS: Mapping[str, Range] = {
    "identity_px": (0.0, 3.0),
    "over_ratio": (1.001, 100.0),
    "giant_ratio": (1.001, 1000.0),
    "under_ratio": (0.01, 0.999),
    "missing_share": (0.0, 0.95),
    "hole_share": (0.001, 0.5),
    "num_holes": (1, 16),
    "bridge_length": (0.05, 5.0),
    "bridge_width": (0.01, 1.0),
    "num_islands": (1, 100),
    "island_share": (0.001, 10.0),
    "num_cuts": (1, 16),
    "cut_width": (0.01, 1.0),
    "shift": (0.0, 2.0),
    "scatter_share": (0.001, 100.0),
    "roughness": (0.0, 0.5),
    "temperature_px": (0.05, 64.0),
}


@dataclass(frozen=True, kw_only=True)
class CorruptionConfig:
    """Which errors masks get. A range ``(low, high)`` is sampled; A is the area, r = sqrt(A / pi).

    Attributes:
        probabilities: share of masks of each type, summing to 1; a type left out gets none.
        identity_px: largest displacement of the boundary [px of a grid whose longer side is 224];
            at most 3.
        over_ratio: area of an over-segmentation [A]; of this and the next two, small errors are
            more frequent than large ones.
        giant_ratio: area of a giant one [A].
        under_ratio: area of an under-segmentation [A].
        missing_share: area of a missing chunk [A].
        hole_share: area of each hole [A]; together they keep it, each alone is larger or smaller.
        num_holes: how many.
        bridge_length: length of an adhesion's band [r].
        bridge_width: its width [r], but at least 2 px.
        num_islands: how many false positives.
        island_share: their area, all together [A].
        num_cuts: cuts through the mask.
        cut_width: width of each [r], but at least 2 px.
        shift: translation [diameters, 2 r], but at least 1 px.
        scatter_share: area of a noise pattern that stands instead of the mask [A].
        roughness: standard deviation of the boundary that over-, giant and under-segmentations
            have besides [r of the result], the largest with the largest error; it does not
            change the area.
        secondary_probability: share of masks that get a second, structural error.
        soft_probability: share of masks that become a probability.
        temperature_px: T of the sigmoid [px of a grid whose longer side is 224].
        max_temperature: bound of T [r of the corrupted mask].
    """

    probabilities: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_PROBABILITIES))
    identity_px: Range = (0.0, 3.0)
    over_ratio: Range = (1.2, 3.0)
    giant_ratio: Range = (3.0, 20.0)
    under_ratio: Range = (0.4, 0.9)
    missing_share: Range = (0.05, 0.30)
    hole_share: Range = (0.02, 0.20)
    num_holes: tuple[int, int] = (1, 3)
    bridge_length: Range = (0.5, 1.5)
    bridge_width: Range = (0.12, 0.35)
    num_islands: tuple[int, int] = (1, 30)
    island_share: Range = (0.03, 0.6)
    num_cuts: tuple[int, int] = (1, 5)
    cut_width: Range = (0.08, 0.25)
    shift: Range = (0.05, 0.30)
    scatter_share: Range = (0.2, 1.5)
    roughness: Range = (0.02, 0.12)
    secondary_probability: float = 0.15
    soft_probability: float = 0.8
    temperature_px: Range = (2.0, 8.0)
    max_temperature: float = 0.25

    def __post_init__(self) -> None:
        self._check_probabilities()
        for name, (smallest, largest) in _LIMITS.items():
            low, high = getattr(self, name)
            if not smallest <= low <= high <= largest:
                raise ConfigError(
                    f"corruption {name}",
                    expected=f"(low, high) with {smallest:g} <= low <= high <= {largest:g}",
                    found=f"({low}, {high})",
                )
            if name.startswith("num_") and (low, high) != (int(low), int(high)):
                raise ConfigError(
                    f"corruption {name}", expected="whole numbers", found=f"({low}, {high})"
                )
        for name in ("secondary_probability", "soft_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                found = f"{getattr(self, name)}"
                raise ConfigError(f"corruption {name}", expected="a value in [0, 1]", found=found)
        if not 0.0 < self.max_temperature <= 10.0:
            found = f"{self.max_temperature}"
            raise ConfigError(
                "corruption max_temperature", expected="a value in (0, 10]", found=found
            )

    def _check_probabilities(self) -> None:
        unknown = [name for name in self.probabilities if name not in DEFAULT_PROBABILITIES]
        if unknown:
            raise ConfigError(
                "corruption probabilities",
                expected=", ".join(DEFAULT_PROBABILITIES),
                found=", ".join(unknown),
            )
        total = sum(self.probabilities.values())
        if not (min(self.probabilities.values(), default=-1) >= 0 and abs(total - 1) < 1e-6):
            raise ConfigError(
                "corruption probabilities",
                expected="values >= 0 that sum to 1",
                found=f"a sum of {total:g}: {self.probabilities}",
            )


PRESETS: Mapping[str, CorruptionConfig] = MappingProxyType(
    {
        "default": CorruptionConfig(),
        "mild": CorruptionConfig(
            probabilities={
                "identity": 0.35,
                "over": 0.20,
                "under": 0.20,
                "missing": 0.06,
                "holes": 0.04,
                "bridge": 0.05,
                "islands": 0.06,
                "shift": 0.04,
            },
            over_ratio=(1.05, 1.4),
            under_ratio=(0.7, 0.95),
            missing_share=(0.03, 0.12),
            hole_share=(0.01, 0.05),
            num_islands=(1, 5),
            island_share=(0.01, 0.15),
            shift=(0.02, 0.10),
            secondary_probability=0.05,
        ),
        "severe": CorruptionConfig(
            probabilities={
                "over": 0.12,
                "giant": 0.18,
                "under": 0.12,
                "missing": 0.14,
                "holes": 0.07,
                "bridge": 0.07,
                "islands": 0.10,
                "fragments": 0.06,
                "shift": 0.08,
                "empty": 0.03,
                "scatter": 0.03,
            },
            over_ratio=(1.6, 3.0),
            under_ratio=(0.15, 0.6),
            missing_share=(0.2, 0.6),
            island_share=(0.2, 1.5),
            shift=(0.15, 0.5),
            roughness=(0.05, 0.15),
            secondary_probability=0.35,
        ),
        "boundary": CorruptionConfig(
            probabilities={"identity": 0.25, "over": 0.30, "under": 0.30, "shift": 0.15},
            over_ratio=(1.05, 1.8),
            under_ratio=(0.55, 0.95),
            shift=(0.03, 0.15),
            secondary_probability=0.0,
        ),
        "structural": CorruptionConfig(
            probabilities={
                "missing": 0.20,
                "holes": 0.20,
                "bridge": 0.20,
                "islands": 0.20,
                "fragments": 0.20,
            },
            secondary_probability=0.3,
        ),
    }
)
"""Named settings: all types, small errors, large ones, those of the outline, those of topology."""

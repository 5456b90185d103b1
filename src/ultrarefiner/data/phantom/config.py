"""What the presets have in common: frame, scanner, burnt-in marks, images of a patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from ultrarefiner.data.phantom.scene import Overlay, Scan
from ultrarefiner.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SeriesConfig:
    """Which phantoms a series holds. A range ``(low, high)`` is sampled uniformly.

    Attributes:
        preset: name of the preset that this configures.
        height_px: range of the number of rows.
        width_px: range of the number of columns.
        dynamic_range_db: range of the displayed dynamic range [dB].
        num_looks: smallest and largest number of compounded looks; 1 is raw speckle.
        caliper_probability: share of images with calipers burnt in.
        text_probability: share of images with text burnt in.
        scale_probability: share of images with a depth scale burnt in.
        images_per_patient: consecutive images that share a patient and a label.
    """

    preset: ClassVar[str]

    height_px: tuple[int, int] = (300, 640)
    width_px: tuple[int, int] = (300, 640)
    dynamic_range_db: Range = (50.0, 72.0)
    num_looks: tuple[int, int] = (1, 8)
    caliper_probability: float = 0.5
    text_probability: float = 0.5
    scale_probability: float = 0.4
    images_per_patient: int = 1

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            self._check_range(name, 64.0, 4096.0)
        self._check_range("dynamic_range_db", 20.0, 120.0)
        self._check_range("num_looks", 1.0, 64.0)
        for name in (field.name for field in fields(self) if field.name.endswith("_probability")):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    name, expected="a value in [0, 1]", found=f"{getattr(self, name)}"
                )
        if self.images_per_patient < 1:
            raise ConfigError(
                "images_per_patient", expected="at least 1", found=f"{self.images_per_patient}"
            )

    def _check_range(self, name: str, smallest: float, largest: float) -> None:
        low, high = getattr(self, name)
        if not smallest <= low <= high <= largest:
            raise ConfigError(
                name,
                expected=f"(low, high) with {smallest} <= low <= high <= {largest}",
                found=f"({low}, {high})",
            )

    def _check_narrowest(self, depth_mm: float, least_mm: float) -> None:
        """Refuse a range of frames so narrow that the anatomy may not fit."""
        narrowest_mm = depth_mm * self.width_px[0] / self.height_px[1]
        if narrowest_mm < least_mm:
            raise ConfigError(
                "width_px",
                expected=f"frames at least {least_mm:g} mm wide",
                found=f"{narrowest_mm:.1f} mm with the least depth and the largest height_px",
            )


def draw_shape(rng: np.random.Generator, config: SeriesConfig) -> tuple[int, int]:
    """Sample rows and columns [px]."""
    height, width = (
        int(rng.integers(*r, endpoint=True)) for r in (config.height_px, config.width_px)
    )
    return height, width


def draw_linear_scan(rng: np.random.Generator, depth_mm: float, config: SeriesConfig) -> Scan:
    """Sample settings like those of a 10-14 MHz linear array."""
    return Scan(
        axial_mm=rng.uniform(0.05, 0.10),
        lateral_mm=rng.uniform(0.13, 0.24),
        focus_mm=rng.uniform(0.25, 0.5) * depth_mm,
        num_looks=int(rng.integers(*config.num_looks, endpoint=True)),
        loss_db_per_mm=rng.uniform(0.05, 0.8),
        streak_db=rng.uniform(0.5, 3.5),
        noise_db=rng.uniform(-48.0, -36.0),
        dynamic_range_db=rng.uniform(*config.dynamic_range_db),
        tissue_grey=rng.uniform(80.0, 150.0),
    )


def draw_overlay(
    rng: np.random.Generator,
    config: SeriesConfig,
    draw_site: Callable[[np.random.Generator], str],
) -> Overlay:
    """Sample burnt-in marks; the site is text only, never a name."""
    has_text = rng.random() < config.text_probability
    site = draw_site(rng)
    return Overlay(
        calipers=bool(rng.random() < config.caliper_probability),
        dotted=bool(rng.random() < 0.5),
        text=site if has_text else "",
        text_at_top=bool(rng.random() < 0.4),
        scale=bool(rng.random() < config.scale_probability),
    )


def log_uniform(rng: np.random.Generator, limits: Range) -> float:
    """Sample a positive number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log(limits))))

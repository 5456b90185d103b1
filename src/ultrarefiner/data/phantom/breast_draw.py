"""Draw a random breast: which lesions, tissue layers, scanner settings and burnt-in marks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ultrarefiner.data.phantom.breast_scene import BreastScene, Lesion
from ultrarefiner.data.phantom.config import (
    Range,
    SeriesConfig,
    draw_linear_scan,
    draw_overlay,
    draw_shape,
    log_uniform,
)
from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.errors import ConfigError

Label = Literal["benign", "malignant"]

_MAX_LESIONS = 3
_PLACEMENT_TRIES = 50
_FRAME_MARGIN_MM = 0.5
_LEAST_WIDTH_MM = 10.0
_SITES = (
    "RT BREAST",
    "LT BREAST",
    "RIGHT BREAST",
    "LEFT BREAST",
    "R BREAST LONG",
    "L BREAST TRANS",
)


@dataclass(frozen=True, kw_only=True)
class BreastConfig(SeriesConfig):
    """Which breast phantoms are drawn, beside what :class:`SeriesConfig` says.

    Attributes:
        depth_mm: range of the imaged depth [mm].
        lesion_count_probs: probabilities of one, two and three lesions.
        malignant_probability: share of malignant patients.
        relative_radius: range of the radius of the largest lesion over the shorter side of the
            frame, sampled log-uniformly.
        contrast_db: range of how much darker than its surroundings a lesion is [dB].
        margin_blur_mm: range of the standard deviation of the margin's blur [mm].
        posterior_db: range of the strength of posterior enhancement or shadow [dB].
    """

    preset: ClassVar[str] = "breast"

    depth_mm: Range = (28.0, 45.0)
    lesion_count_probs: tuple[float, float, float] = (0.80, 0.14, 0.06)
    malignant_probability: float = 0.4
    relative_radius: Range = (0.07, 0.24)
    contrast_db: Range = (3.0, 16.0)
    margin_blur_mm: Range = (0.1, 0.9)
    posterior_db: Range = (3.0, 12.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("depth_mm", 10.0, 200.0)
        self._check_narrowest(self.depth_mm[0], _LEAST_WIDTH_MM)
        self._check_range("relative_radius", 0.05, 0.3)
        for name in ("contrast_db", "posterior_db"):
            self._check_range(name, 0.0, 60.0)
        self._check_range("margin_blur_mm", 0.01, 3.0)
        probs = self.lesion_count_probs
        if len(probs) != _MAX_LESIONS or min(probs) < 0 or abs(sum(probs) - 1) > 1e-6:
            raise ConfigError(
                "lesion_count_probs",
                expected=f"{_MAX_LESIONS} values >= 0 that sum to 1",
                found=f"{probs}",
            )


def draw_breast_label(rng: np.random.Generator, config: BreastConfig) -> Label:
    """Sample the diagnosis of a patient."""
    return "malignant" if rng.random() < config.malignant_probability else "benign"


def draw_breast(rng: np.random.Generator, label: str, config: BreastConfig) -> BreastScene:
    """Sample a scene.

    Args:
        rng: source of all randomness; the same state gives the same scene.
        label: diagnosis of its lesions.
        config: distribution to sample from.

    Returns:
        Scene whose lesions lie wholly inside the frame.
    """
    height, width = draw_shape(rng, config)
    dy_mm = rng.uniform(*config.depth_mm) / height
    # Most scanners export square pixels, some do not.
    dx_mm = dy_mm * (rng.uniform(0.85, 1.2) if rng.random() < 0.3 else 1.0)
    extent_mm = (height * dy_mm, width * dx_mm)
    return BreastScene(
        shape_hw=(height, width),
        spacing_mm=(dy_mm, dx_mm),
        label=label,
        lesions=_draw_lesions(rng, label, extent_mm, config),
        layers=_draw_layers(rng, extent_mm[0]),
        scan=draw_linear_scan(rng, extent_mm[0], config),
        overlay=draw_overlay(rng, config, _draw_site),
        noise_seed=int(rng.integers(2**32)),
    )


def _draw_lesions(
    rng: np.random.Generator, label: str, extent_mm: tuple[float, float], config: BreastConfig
) -> tuple[Lesion, ...]:
    """Place up to three lesions that do not touch; crowded frames get fewer."""
    count = 1 + int(rng.choice(_MAX_LESIONS, p=config.lesion_count_probs))
    radius_mm = log_uniform(rng, config.relative_radius) * min(extent_mm)
    smallest_mm = config.relative_radius[0] * min(extent_mm)
    placed: list[Lesion] = []
    for _ in range(_PLACEMENT_TRIES):
        lesion = _draw_lesion(rng, label, radius_mm, config)
        lesion = _place(rng, lesion, extent_mm)
        if all(_gap_mm(lesion, other) > 1.0 for other in placed):
            placed.append(lesion)
            radius_mm = max(radius_mm * rng.uniform(0.45, 0.8), smallest_mm)
        if len(placed) == count:
            break
    return tuple(placed)


def _draw_lesion(
    rng: np.random.Generator, label: str, radius_mm: float, config: BreastConfig
) -> Lesion:
    """Sample the form and echo of a lesion about the origin."""
    malignant = label == "malignant"
    aspect = log_uniform(rng, (0.75, 1.7) if malignant else (1.2, 2.3))
    posterior_db = rng.uniform(*config.posterior_db)
    return Lesion(
        centre_xy_mm=(0.0, 0.0),
        semi_axes_mm=(radius_mm * aspect**0.5, radius_mm / aspect**0.5),
        tilt_rad=rng.normal(0.0, 0.2),
        lobes=_draw_lobes(rng, 0.10 if malignant else 0.035),
        spicules=_draw_spicules(rng) if malignant else (),
        contrast_db=rng.uniform(*config.contrast_db),
        margin_blur_mm=rng.uniform(*config.margin_blur_mm),
        posterior_db=-posterior_db if malignant else posterior_db,
        edge_shadow_db=rng.uniform(0.0, 2.0) if malignant else rng.uniform(2.0, 7.0),
        rim_db=rng.uniform(0.0, 5.0),
        rim_mm=rng.uniform(0.6, 1.2) if malignant else rng.uniform(0.2, 0.4),
        texture_db=rng.uniform(0.8, 3.0),
        num_calcifications=int(rng.integers(3, 25)) if malignant and rng.random() < 0.3 else 0,
    )


def _draw_lobes(rng: np.random.Generator, amplitude: float) -> tuple[tuple[float, float], ...]:
    """Harmonics 2 to 8 of the relative radius, falling as 1 / sqrt(order - 1)."""
    scale = amplitude / np.sqrt(np.arange(1, 8))
    return tuple((float(c), float(s)) for c, s in rng.normal(0.0, scale[:, None], (7, 2)) * 0.7)


def _draw_spicules(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Between 2 and 15 pointed extensions in random directions."""
    count = int(rng.integers(2, 16))
    angles = rng.uniform(-np.pi, np.pi, count)
    lengths = rng.uniform(0.06, 0.3, count)
    widths = rng.uniform(0.05, 0.14, count)
    return tuple(
        (float(a), float(n), float(w)) for a, n, w in zip(angles, lengths, widths, strict=True)
    )


def _place(rng: np.random.Generator, lesion: Lesion, extent_mm: tuple[float, float]) -> Lesion:
    """Move a lesion to a random spot of the breast, shrunk first if the frame cannot hold it."""
    depth_mm, width_mm = extent_mm
    room_mm = 0.5 * min(extent_mm) - 2 * _FRAME_MARGIN_MM
    shrink = min(1.0, room_mm / lesion.reach_mm)
    a_mm, b_mm = lesion.semi_axes_mm
    lesion = replace(lesion, semi_axes_mm=(a_mm * shrink, b_mm * shrink))
    reach_mm = lesion.reach_mm + _FRAME_MARGIN_MM
    x_mm = np.clip(rng.uniform(0.2, 0.8) * width_mm, reach_mm, width_mm - reach_mm)
    y_mm = np.clip(rng.uniform(0.2, 0.5) * depth_mm, reach_mm, depth_mm - reach_mm)
    return replace(lesion, centre_xy_mm=(float(x_mm), float(y_mm)))


def _gap_mm(first: Lesion, second: Lesion) -> float:
    """Free distance between the circles that hold two lesions."""
    (x1, y1), (x2, y2) = first.centre_xy_mm, second.centre_xy_mm
    return float(np.hypot(x1 - x2, y1 - y2)) - first.reach_mm - second.reach_mm


def _draw_layers(rng: np.random.Generator, depth_mm: float) -> tuple[Layer, ...]:
    """Skin, fat, gland, retromammary fat, muscle, chest wall; depths scale with the frame."""
    skin_mm = rng.uniform(0.8, 1.8)
    fat_mm = skin_mm + rng.uniform(0.04, 0.28) * depth_mm
    gland_mm = fat_mm + rng.uniform(0.30, 0.50) * depth_mm
    retro_mm = gland_mm + rng.uniform(0.02, 0.08) * depth_mm
    muscle_mm = retro_mm + rng.uniform(0.12, 0.25) * depth_mm
    fat_db = rng.uniform(-10.0, -4.0)

    def layer(name: str, bottom_mm: float, undulation_mm: float, **echo_db: float) -> Layer:
        return Layer(name=name, bottom_mm=bottom_mm, undulation_mm=undulation_mm, **echo_db)

    return (
        layer("skin", skin_mm, 0.08, echo_db=1.5, texture_db=0.8, fascia_db=rng.uniform(3, 8)),
        layer(
            "fat",
            fat_mm,
            0.9,
            echo_db=fat_db,
            texture_db=1.5,
            septa_db=rng.uniform(5, 12),
            fascia_db=5.0,
        ),
        layer(
            "gland",
            gland_mm,
            1.2,
            echo_db=0.0,
            texture_db=rng.uniform(2.0, 4.0),
            septa_db=rng.uniform(2, 7),
            fibre_db=4.0,
        ),
        layer("retromammary fat", retro_mm, 0.6, echo_db=fat_db, texture_db=1.5, fascia_db=8.0),
        layer("muscle", muscle_mm, 0.5, echo_db=-6.0, texture_db=1.5, fibre_db=9.0, fascia_db=9.0),
        layer("chest wall", np.inf, 0.0, echo_db=-12.0, texture_db=2.5, fibre_db=4.0),
    )


def _draw_site(rng: np.random.Generator) -> str:
    return f"{rng.choice(_SITES)} {rng.integers(1, 13)}H {rng.integers(1, 9)}CM FN"

"""Draw a random fetal head that a convex probe sees as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ultrarefiner.data.phantom.config import Range, SeriesConfig, draw_overlay, draw_shape
from ultrarefiner.data.phantom.head_scene import Brain, HeadScene, Sector, Skull, Womb
from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.data.phantom.scene import Scan
from ultrarefiner.errors import ConfigError

Trimester = Literal["second-trimester", "third-trimester"]

_TRIES = 100
_ZOOM_OUT = 0.97  # of the head's share of the depth, at each try that does not fit
_MARGIN_MM = 1.5
_BLACK_SHARE = 0.02  # of the frame, above and below the sector
_SITES = ("FETAL HEAD", "HEAD AX", "BPD/HC", "TRANSTHALAMIC")


@dataclass(frozen=True, kw_only=True)
class HeadConfig(SeriesConfig):
    """Which head phantoms are drawn, beside what :class:`SeriesConfig` says.

    Attributes:
        third_probability: share of patients in the third trimester.
        second_bpd_mm: range of the biparietal diameter in the second trimester [mm].
        third_bpd_mm: the same in the third [mm].
        cephalic_index: range of the biparietal over the occipitofrontal diameter.
        depth_share: range of the biparietal diameter over the imaged depth; less where the head
            would not fit.
        tilt_std_rad: standard deviation of the head's tilt [rad].
    """

    preset: ClassVar[str] = "head"

    height_px: tuple[int, int] = (360, 480)
    width_px: tuple[int, int] = (480, 680)
    num_looks: tuple[int, int] = (1, 3)
    caliper_probability: float = 0.3

    third_probability: float = 0.35
    second_bpd_mm: Range = (32.0, 68.0)
    third_bpd_mm: Range = (70.0, 96.0)
    cephalic_index: Range = (0.72, 0.86)
    depth_share: Range = (0.5, 0.72)
    tilt_std_rad: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("second_bpd_mm", "third_bpd_mm"):
            self._check_range(name, 15.0, 120.0)
        self._check_range("cephalic_index", 0.6, 1.0)
        self._check_range("depth_share", 0.1, 0.8)
        if not 0.0 <= self.tilt_std_rad <= 2.0:
            raise ConfigError(
                "tilt_std_rad", expected="a value in [0, 2]", found=f"{self.tilt_std_rad}"
            )


def draw_trimester(rng: np.random.Generator, config: HeadConfig) -> Trimester:
    """Sample how far a pregnancy is."""
    return "third-trimester" if rng.random() < config.third_probability else "second-trimester"


def draw_head(rng: np.random.Generator, label: str, config: HeadConfig) -> HeadScene:
    """Sample a scene.

    Args:
        rng: source of all randomness; the same state gives the same scene.
        label: trimester, on which the size of the head depends.
        config: distribution to sample from.

    Returns:
        Scene whose skull lies wholly inside frame and sector.
    """
    shape_hw = draw_shape(rng, config)
    is_third = label == "third-trimester"
    spacing_mm, sector, skull = _fit(rng, shape_hw, is_third, config)
    return HeadScene(
        shape_hw=shape_hw,
        spacing_mm=(spacing_mm, spacing_mm),
        label=label,
        sector=sector,
        skull=skull,
        brain=_draw_brain(rng, is_third),
        womb=_draw_womb(rng, skull, sector),
        scan=_draw_scan(rng, sector.depth_mm, config),
        overlay=draw_overlay(rng, config, _draw_site),
        noise_seed=int(rng.integers(2**32)),
    )


def _fit(
    rng: np.random.Generator, shape_hw: tuple[int, int], is_third: bool, config: HeadConfig
) -> tuple[float, Sector, Skull]:
    """Place a head in the sector, zooming out until all of it is seen."""
    bpd_mm = rng.uniform(*(config.third_bpd_mm if is_third else config.second_bpd_mm))
    semi_mm = (0.5 * bpd_mm / rng.uniform(*config.cephalic_index), 0.5 * bpd_mm)
    share = rng.uniform(*config.depth_share)
    radius_mm, half_angle = rng.uniform(45.0, 62.0), rng.uniform(0.5, 0.65)
    thickness_mm = 0.6 + 0.014 * bpd_mm + rng.uniform(0.0, 0.4)
    height, width = shape_hw
    for _ in range(_TRIES):
        depth_mm = bpd_mm / share
        top_mm = radius_mm * (1.0 - np.cos(half_angle))
        spacing_mm = (depth_mm + top_mm) / (height * (1.0 - 2.0 * _BLACK_SHARE))
        centre_y_mm = _BLACK_SHARE * height * spacing_mm + top_mm - radius_mm
        sector = Sector(
            centre_xy_mm=(0.5 * width * spacing_mm, centre_y_mm),
            radius_mm=radius_mm,
            depth_mm=depth_mm,
            half_angle_rad=half_angle,
        )
        skull = Skull(
            centre_xy_mm=(
                width * spacing_mm * (0.5 + rng.normal(0.0, 0.05)),
                centre_y_mm + radius_mm + depth_mm * rng.uniform(0.42, 0.62),
            ),
            semi_axes_mm=semi_mm,
            tilt_rad=rng.normal(0.0, config.tilt_std_rad),
            thickness_mm=thickness_mm,
            echo_db=rng.uniform(16.0, 25.0),
            dropout_db=rng.uniform(18.0, 36.0),
            patch_db=rng.uniform(2.0, 4.5),
            loss_db_per_mm=rng.uniform(0.6, 1.4),
        )
        if _is_seen(skull, sector, width * spacing_mm):
            return spacing_mm, sector, skull
        share *= _ZOOM_OUT
    raise AssertionError("a head this small fits any sector")


def _is_seen(skull: Skull, sector: Sector, width_mm: float) -> bool:
    """Whether the whole outline lies in the sector and in the frame, with a margin."""
    angle = np.linspace(-np.pi, np.pi, 73)
    u, v = skull.semi_axes_mm[0] * np.cos(angle), skull.semi_axes_mm[1] * np.sin(angle)
    cos, sin = np.cos(skull.tilt_rad), np.sin(skull.tilt_rad)
    x_mm = skull.centre_xy_mm[0] + cos * u - sin * v
    from_x_mm = x_mm - sector.centre_xy_mm[0]
    from_y_mm = skull.centre_xy_mm[1] + sin * u + cos * v - sector.centre_xy_mm[1]
    range_mm = np.hypot(from_x_mm, from_y_mm)
    inside = (
        (range_mm > sector.radius_mm + 4 * _MARGIN_MM)
        & (range_mm < sector.radius_mm + sector.depth_mm - _MARGIN_MM)
        & (np.abs(np.arctan2(from_x_mm, from_y_mm)) < sector.half_angle_rad - 0.02)
        & (x_mm > _MARGIN_MM)
        & (x_mm < width_mm - _MARGIN_MM)
    )
    return bool(inside.all())


def _draw_brain(rng: np.random.Generator, is_third: bool) -> Brain:
    return Brain(
        facing=1 if rng.random() < 0.5 else -1,
        echo_db=rng.uniform(-18.0, -12.0),
        haze_db=rng.uniform(2.0, 8.0),
        midline_db=rng.uniform(7.0, 14.0),
        cavum_u=rng.uniform(0.38, 0.52),
        cavum_half_uv=(rng.uniform(0.08, 0.14), rng.uniform(0.05, 0.09)),
        thalamus_db=rng.uniform(-6.0, -3.0),
        choroid_uv=(rng.uniform(-0.48, -0.32), rng.uniform(0.28, 0.42)),
        choroid_half_uv=(rng.uniform(0.14, 0.24), rng.uniform(0.07, 0.13)),
        choroid_db=rng.uniform(6.0, 12.0),
        gyri_db=rng.uniform(4.0, 9.0) if is_third else rng.uniform(0.0, 3.0),
    )


def _draw_womb(rng: np.random.Generator, skull: Skull, sector: Sector) -> Womb:
    size_mm = skull.semi_axes_mm[1]
    top_mm = skull.centre_xy_mm[1] - skull.semi_axes_mm[1]
    above_mm = max(top_mm - sector.centre_xy_mm[1] - sector.radius_mm, 4.0)
    fat_mm = rng.uniform(0.15, 0.35) * above_mm
    muscle_mm = fat_mm + rng.uniform(0.1, 0.25) * above_mm
    layers = (
        Layer(
            name="fat",
            bottom_mm=fat_mm,
            undulation_mm=0.4,
            echo_db=rng.uniform(-4.0, 2.0),
            texture_db=1.5,
            septa_db=4.0,
            fascia_db=6.0,
        ),
        Layer(
            name="muscle",
            bottom_mm=muscle_mm,
            undulation_mm=0.6,
            echo_db=rng.uniform(-9.0, -4.0),
            texture_db=1.5,
            fibre_db=6.0,
            fascia_db=7.0,
        ),
        Layer(
            name="womb",
            bottom_mm=np.inf,
            undulation_mm=0.0,
            echo_db=rng.uniform(-8.0, -2.0),
            texture_db=rng.uniform(3.0, 5.0),
            septa_db=rng.uniform(2.0, 6.0),
            fibre_db=rng.uniform(0.0, 5.0),
        ),
    )
    return Womb(
        layers=layers,
        scalp_mm=size_mm * rng.uniform(0.03, 0.06),
        fluid_mm=size_mm * rng.uniform(-0.25, 0.25),
        fluid_shift_mm=size_mm * rng.uniform(0.1, 0.5),
        fluid_towards_rad=rng.uniform(-np.pi, np.pi),
        fluid_waves_mm=size_mm * rng.uniform(0.05, 0.15),
        fluid_db=rng.uniform(-34.0, -26.0),
        placenta_side=int(rng.choice([-1, 0, 1])),
        placenta_db=rng.uniform(-5.0, 0.0),
    )


def _draw_scan(rng: np.random.Generator, depth_mm: float, config: HeadConfig) -> Scan:
    """Settings like those of a 2-5 MHz convex array, its frequency raised for a shallow field."""
    return Scan(
        axial_mm=rng.uniform(0.0018, 0.0028) * depth_mm,
        lateral_mm=rng.uniform(0.0045, 0.0075) * depth_mm,
        focus_mm=rng.uniform(0.45, 0.65) * depth_mm,
        num_looks=int(rng.integers(*config.num_looks, endpoint=True)),
        loss_db_per_mm=rng.uniform(0.02, 0.12),
        streak_db=rng.uniform(0.5, 2.5),
        noise_db=rng.uniform(-46.0, -36.0),
        dynamic_range_db=rng.uniform(*config.dynamic_range_db),
        tissue_grey=rng.uniform(95.0, 150.0),
    )


def _draw_site(rng: np.random.Generator) -> str:
    return str(rng.choice(_SITES))

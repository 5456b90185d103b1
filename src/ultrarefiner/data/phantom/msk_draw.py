"""Draw a random shoulder: humerus, tendon and tear that fit the frame and each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ultrarefiner.data.phantom.config import (
    Range,
    SeriesConfig,
    draw_linear_scan,
    draw_overlay,
    draw_shape,
)
from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.data.phantom.msk_scene import Bone, MskScene, Muscle, Tear, Tendon

TearLabel = Literal["partial-thickness", "full-thickness"]

_LEAST_WIDTH_MM = 28.0
_FRAME_MARGIN_MM = 1.0
_TENDON_GREY = 25.0  # by how much tendon is brighter than breast tissue
_SIDES = ("RT", "LT", "R", "L")
_SITES = ("SUPRASPINATUS LONG", "SSP LAX", "SHOULDER SSP", "SUPRASP TENDON")


@dataclass(frozen=True, kw_only=True)
class MskConfig(SeriesConfig):
    """Which shoulder phantoms are drawn, beside what :class:`SeriesConfig` says.

    Attributes:
        depth_mm: range of the imaged depth [mm].
        full_thickness_probability: share of patients whose tear goes through the tendon.
        tendon_mm: range of the tendon's thickness [mm].
        tear_length_mm: range of the tear's length along the fibres [mm].
        contrast_db: range of how much darker than the tendon a tear is [dB].
        margin_blur_mm: range of the standard deviation of the margin's blur [mm].
    """

    preset: ClassVar[str] = "msk"

    height_px: tuple[int, int] = (340, 460)
    width_px: tuple[int, int] = (460, 640)
    num_looks: tuple[int, int] = (1, 4)
    text_probability: float = 0.4
    caliper_probability: float = 0.3

    depth_mm: Range = (30.0, 38.0)
    full_thickness_probability: float = 0.4
    tendon_mm: Range = (4.5, 7.0)
    tear_length_mm: Range = (5.0, 13.0)
    contrast_db: Range = (6.0, 24.0)
    margin_blur_mm: Range = (0.1, 0.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("depth_mm", 28.0, 60.0)
        self._check_narrowest(self.depth_mm[0], _LEAST_WIDTH_MM)
        self._check_range("tendon_mm", 3.0, 9.0)
        self._check_range("tear_length_mm", 3.0, 16.0)
        self._check_range("contrast_db", 3.0, 60.0)
        self._check_range("margin_blur_mm", 0.01, 1.0)


def draw_tear_label(rng: np.random.Generator, config: MskConfig) -> TearLabel:
    """Sample what kind of tear a patient has."""
    is_full = rng.random() < config.full_thickness_probability
    return "full-thickness" if is_full else "partial-thickness"


def draw_msk(rng: np.random.Generator, label: str, config: MskConfig) -> MskScene:
    """Sample a scene.

    Args:
        rng: source of all randomness; the same state gives the same scene.
        label: kind of tear.
        config: distribution to sample from.

    Returns:
        Scene whose tear lies wholly inside the frame.
    """
    height, width = draw_shape(rng, config)
    dy_mm = rng.uniform(*config.depth_mm) / height
    dx_mm = dy_mm * (rng.uniform(0.9, 1.15) if rng.random() < 0.3 else 1.0)
    depth_mm, width_mm = height * dy_mm, width * dx_mm
    layers = _draw_layers(rng)
    tendon = _draw_tendon(rng, config)
    scan = draw_linear_scan(rng, depth_mm, config)
    bone = _draw_bone(rng, depth_mm, width_mm, layers[-1].bottom_mm + tendon.thickness_mm)
    return MskScene(
        shape_hw=(height, width),
        spacing_mm=(dy_mm, dx_mm),
        label=label,
        mirrored=bool(rng.random() < 0.5),
        layers=layers,
        muscle=Muscle(
            echo_db=rng.uniform(-17.0, -11.0),
            streak_db=rng.uniform(7.0, 13.0),
            streak_mm=rng.uniform(2.0, 4.0),
            pennation=rng.uniform(-0.15, 0.15),
        ),
        bone=bone,
        tendon=tendon,
        tear=_draw_tear(rng, label, bone, width_mm, config),
        scan=replace(scan, tissue_grey=scan.tissue_grey + _TENDON_GREY),
        overlay=draw_overlay(rng, config, _draw_site),
        noise_seed=int(rng.integers(2**32)),
    )


def _draw_layers(rng: np.random.Generator) -> tuple[Layer, ...]:
    """Skin and fat; what lies below them is drawn from its own surfaces."""
    skin_mm = rng.uniform(1.0, 1.9)
    fat_mm = skin_mm + rng.uniform(1.2, 4.0)
    skin = Layer(
        name="skin",
        bottom_mm=skin_mm,
        undulation_mm=0.08,
        echo_db=-1.0,
        texture_db=0.8,
        fascia_db=rng.uniform(2, 6),
    )
    fat = Layer(
        name="fat",
        bottom_mm=fat_mm,
        undulation_mm=0.2,
        echo_db=rng.uniform(-14.0, -9.0),
        texture_db=1.5,
        septa_db=rng.uniform(6, 12),
    )
    return skin, fat


def _draw_tendon(rng: np.random.Generator, config: MskConfig) -> Tendon:
    return Tendon(
        thickness_mm=rng.uniform(*config.tendon_mm),
        fibre_mm=rng.uniform(0.14, 0.24),
        fibre_db=rng.uniform(3.5, 6.5),
        anisotropy_db=rng.uniform(5.0, 14.0),
        cartilage_mm=rng.uniform(0.5, 1.1),
        bursa_mm=rng.uniform(0.3, 0.7),
        bursa_db=rng.uniform(6.0, 11.0),
    )


def _draw_bone(rng: np.random.Generator, depth_mm: float, width_mm: float, above_mm: float) -> Bone:
    """A humerus in the middle of the frame, ``above_mm`` and the deltoid below the skin."""
    radius_mm = rng.uniform(20.0, 25.0)
    neck_mm = rng.uniform(0.30, 0.45) * radius_mm
    facet_mm = rng.uniform(8.0, 12.0)
    deltoid_mm = rng.uniform(3.0, 7.0)
    # The neck, about which tears lie, is a little right of the middle.
    apex_x_mm = rng.uniform(0.5, 0.62) * width_mm - neck_mm
    return Bone(
        apex_xy_mm=(apex_x_mm, min(above_mm + deltoid_mm + 1.5, 0.62 * depth_mm)),
        radius_mm=radius_mm,
        neck_mm=neck_mm,
        notch_mm=rng.uniform(0.2, 0.9),
        facet_mm=facet_mm,
        facet_slope=rng.uniform(0.2, 0.45),
        wall_slope=rng.uniform(0.9, 1.6),
        roughness_mm=rng.uniform(0.05, 0.12),
        echo_db=rng.uniform(14.0, 20.0),
        shadow_db=rng.uniform(-34.0, -22.0),
    )


def _draw_tear(
    rng: np.random.Generator, label: str, bone: Bone, width_mm: float, config: MskConfig
) -> Tear:
    """A defect near the neck, where most are: at the joint side, inside, at the bursa, or through.

    Reaching past a surface opens it there.
    """
    is_full = label == "full-thickness"
    half_mm = 0.5 * rng.uniform(*config.tear_length_mm)
    room_mm = 0.5 * width_mm - 2 * _FRAME_MARGIN_MM
    half_mm = min(half_mm, 0.5 * room_mm)
    centre_height, half_height = 0.5, 0.5
    if is_full:
        centre_height, half_height = rng.uniform(0.4, 0.6), rng.uniform(0.9, 1.3)
    else:
        centre_height = (0.02, 0.5, 0.95)[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
        half_height = rng.uniform(0.35, 0.6) if centre_height != 0.5 else rng.uniform(0.15, 0.3)
    scale = 0.08 / np.sqrt(np.arange(1, 7))
    centre_mm = bone.apex_xy_mm[0] + bone.neck_mm + rng.uniform(-4.0, 2.0)
    margin_mm = 1.6 * half_mm + _FRAME_MARGIN_MM
    return Tear(
        centre_mm=float(np.clip(centre_mm, margin_mm, width_mm - margin_mm)),
        centre_height=centre_height,
        half_length_mm=half_mm,
        half_height=half_height,
        lean_mm=rng.uniform(-1.5, 1.5),
        lobes=tuple((float(c), float(s)) for c, s in rng.normal(0.0, scale[:, None], (6, 2))),
        contrast_db=rng.uniform(*config.contrast_db),
        margin_blur_mm=rng.uniform(*config.margin_blur_mm),
        texture_db=rng.uniform(1.0, 3.0),
        sag_mm=rng.uniform(0.3, 1.3) if is_full else rng.uniform(0.0, 0.3),
    )


def _draw_site(rng: np.random.Generator) -> str:
    return f"{rng.choice(_SIDES)} {rng.choice(_SITES)}"

"""The anatomy of a fetal head phantom: an axial cut through skull and brain, inside the womb.

Echo levels are in dB relative to the tissue of the womb. Places within the head are ``(u, v)``,
shares of its two semi-axes: u from the back of the head to the front, v away from the probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.data.phantom.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Sector:
    """The field of a convex probe.

    Attributes:
        centre_xy_mm: centre of curvature of the probe, above the frame [mm].
        radius_mm: radius of the probe's face [mm].
        depth_mm: imaged depth below that face [mm].
        half_angle_rad: half of the field's opening angle [rad].
    """

    centre_xy_mm: tuple[float, float]
    radius_mm: float
    depth_mm: float
    half_angle_rad: float


@dataclass(frozen=True, kw_only=True)
class Skull:
    """An ellipse of bone; its outer border is the truth.

    Attributes:
        centre_xy_mm: centre in the frame [mm].
        semi_axes_mm: half the occipitofrontal and half the biparietal diameter [mm].
        tilt_rad: direction of the long axis, clockwise from the horizontal [rad].
        thickness_mm: thickness of the bone [mm].
        echo_db: level where the beam meets it at a right angle [dB].
        dropout_db: how much darker it is where the beam grazes it [dB].
        patch_db: standard deviation of its unevenness [dB].
        loss_db_per_mm: what it takes from the sound on its way [dB / mm].
    """

    centre_xy_mm: tuple[float, float]
    semi_axes_mm: tuple[float, float]
    tilt_rad: float
    thickness_mm: float
    echo_db: float
    dropout_db: float
    patch_db: float
    loss_db_per_mm: float


@dataclass(frozen=True, kw_only=True)
class Brain:
    """What lies inside the skull.

    Attributes:
        facing: 1 if the forehead is on the right, -1 if it is on the left.
        echo_db: mean level [dB].
        haze_db: reverberation below the near wall [dB].
        midline_db: brightness of the falx and of the walls of the cavum [dB].
        cavum_u: position of the cavum septi pellucidi along the midline.
        cavum_half_uv: its half length and half height.
        thalamus_db: level of the thalami against the brain [dB].
        choroid_uv: centre of the choroid plexus.
        choroid_half_uv: its half length and half height.
        choroid_db: its level [dB].
        gyri_db: brightness of the folds below the skull [dB].
    """

    facing: int
    echo_db: float
    haze_db: float
    midline_db: float
    cavum_u: float
    cavum_half_uv: tuple[float, float]
    thalamus_db: float
    choroid_uv: tuple[float, float]
    choroid_half_uv: tuple[float, float]
    choroid_db: float
    gyri_db: float


@dataclass(frozen=True, kw_only=True)
class Womb:
    """What lies around the head.

    Attributes:
        layers: abdominal wall and womb, from the probe's face down.
        scalp_mm: thickness of the scalp [mm].
        fluid_mm: mean width of the fluid around the head [mm]; where it would be < 0, the womb
            lies against the head.
        fluid_shift_mm: how much more of it is on one side, and less on the other [mm].
        fluid_towards_rad: that side, clockwise from the right [rad].
        fluid_waves_mm: standard deviation of the width beside that [mm].
        fluid_db: level of the fluid [dB].
        placenta_side: -1 above the head, 1 below it, 0 out of sight.
        placenta_db: level of the placenta [dB].
    """

    layers: tuple[Layer, ...]
    scalp_mm: float
    fluid_mm: float
    fluid_shift_mm: float
    fluid_towards_rad: float
    fluid_waves_mm: float
    fluid_db: float
    placenta_side: int
    placenta_db: float


@dataclass(frozen=True, kw_only=True)
class HeadScene(Scene):
    """A fetal head in the field of a convex probe.

    Attributes:
        sector: field of the probe.
        skull: the ellipse that is measured.
        brain: its inside.
        womb: its outside.
    """

    preset: ClassVar[str] = "head"

    sector: Sector
    skull: Skull
    brain: Brain
    womb: Womb

"""The anatomy of a shoulder phantom: the supraspinatus tendon along its fibres, with a tear.

From the skin down: fat, deltoid, bursa, tendon, cartilage, humeral head. The frame is described
with the greater tuberosity on the right; ``mirrored`` turns it round. Echo levels are in dB
relative to the tendon's matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.data.phantom.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Bone:
    """The surface of the humerus: a round head, a notch, a facet, and a wall that falls off.

    Attributes:
        apex_xy_mm: highest point of the head [mm].
        radius_mm: radius of the head [mm].
        neck_mm: from the apex across to the anatomical neck, where cartilage ends [mm].
        notch_mm: depth of the notch at the neck [mm].
        facet_mm: width of the facet on which the tendon inserts [mm].
        facet_slope: fall of the facet per mm across.
        wall_slope: the same of the wall beyond it.
        roughness_mm: standard deviation of the surface [mm].
        echo_db: level of the cortex where the beam meets it at a right angle [dB].
        shadow_db: level below it [dB].
    """

    apex_xy_mm: tuple[float, float]
    radius_mm: float
    neck_mm: float
    notch_mm: float
    facet_mm: float
    facet_slope: float
    wall_slope: float
    roughness_mm: float
    echo_db: float
    shadow_db: float


@dataclass(frozen=True, kw_only=True)
class Tendon:
    """The tendon between cartilage and bursa.

    Attributes:
        thickness_mm: over the head, across the fibres; it tapers to nothing along the facet [mm].
        fibre_mm: thickness of a fibre bundle [mm].
        fibre_db: standard deviation of the fibrillar texture [dB].
        anisotropy_db: loss where fibres are far from a right angle to the beam [dB].
        cartilage_mm: thickness of the hypoechoic cartilage below [mm].
        bursa_mm: thickness of the hypoechoic bursa above [mm].
        bursa_db: brightness of the fat along the bursa [dB].
    """

    thickness_mm: float
    fibre_mm: float
    fibre_db: float
    anisotropy_db: float
    cartilage_mm: float
    bursa_mm: float
    bursa_db: float


@dataclass(frozen=True, kw_only=True)
class Tear:
    """A defect in the tendon; lengths along it in mm, across it as a share of its thickness.

    Attributes:
        centre_mm: lateral position [mm].
        centre_height: position across, 0 at the joint and 1 at the bursa.
        half_length_mm: half extent along the fibres [mm].
        half_height: half extent across; a full-thickness tear reaches below 0 and above 1.
        lean_mm: how far its bursal side is shifted towards the facet [mm].
        lobes: ``(cosine, sine)`` amplitude of the relative radius for the harmonics 2, 3, ...
        contrast_db: how much darker than the tendon [dB].
        margin_blur_mm: standard deviation of the margin's blur [mm].
        texture_db: standard deviation of the debris in it [dB].
        sag_mm: how far the bursal surface dips over it [mm].
    """

    centre_mm: float
    centre_height: float
    half_length_mm: float
    half_height: float
    lean_mm: float
    lobes: tuple[tuple[float, float], ...]
    contrast_db: float
    margin_blur_mm: float
    texture_db: float
    sag_mm: float


@dataclass(frozen=True, kw_only=True)
class Muscle:
    """The deltoid.

    Attributes:
        echo_db: mean level [dB].
        streak_db: brightness of the connective tissue between its fibres [dB].
        streak_mm: length of those streaks [mm].
        pennation: fall of the fibres against the fascia, per mm across.
    """

    echo_db: float
    streak_db: float
    streak_mm: float
    pennation: float


@dataclass(frozen=True, kw_only=True)
class MskScene(Scene):
    """A supraspinatus tendon with one tear.

    Attributes:
        mirrored: the greater tuberosity is on the left.
        layers: skin and fat, from the top down.
        muscle: deltoid, from the last of the layers down to the bursa.
        bone: humerus.
        tendon: supraspinatus.
        tear: its defect.
    """

    preset: ClassVar[str] = "msk"

    mirrored: bool
    layers: tuple[Layer, ...]
    muscle: Muscle
    bone: Bone
    tendon: Tendon
    tear: Tear

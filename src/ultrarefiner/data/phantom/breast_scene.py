"""The anatomy of a breast phantom: tissue layers and lesions.

Echo levels are in dB relative to fibroglandular tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ultrarefiner.data.phantom.layers import Layer
from ultrarefiner.data.phantom.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One lesion: an ellipse whose radius is modulated by lobes and spicules.

    Attributes:
        centre_xy_mm: centre in the frame [mm].
        semi_axes_mm: semi-axes, the first along the tilted horizontal [mm].
        tilt_rad: rotation of the ellipse, clockwise on the screen [rad].
        lobes: ``(cosine, sine)`` amplitude of the relative radius for the harmonics 2, 3, ...
        spicules: ``(angle_rad, relative_length, width_rad)`` of each spicule.
        contrast_db: how much darker than its surroundings [dB].
        margin_blur_mm: standard deviation of the margin's blur [mm].
        posterior_db: echo change below the thickest part; > 0 enhancement, < 0 shadow [dB].
        edge_shadow_db: depth of the refraction shadows below both lateral edges [dB].
        rim_db: brightness of the capsule or halo around it [dB].
        rim_mm: width of that rim [mm].
        texture_db: standard deviation of the inner echo texture [dB].
        num_calcifications: number of bright specks inside.
    """

    centre_xy_mm: tuple[float, float]
    semi_axes_mm: tuple[float, float]
    tilt_rad: float
    lobes: tuple[tuple[float, float], ...]
    spicules: tuple[tuple[float, float, float], ...]
    contrast_db: float
    margin_blur_mm: float
    posterior_db: float
    edge_shadow_db: float
    rim_db: float
    rim_mm: float
    texture_db: float
    num_calcifications: int

    def relative_radius(self, angle_rad: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """Return the margin's distance from the centre over that of the plain ellipse."""
        radius = np.ones_like(angle_rad)
        for order, (cosine, sine) in enumerate(self.lobes, start=2):
            radius += cosine * np.cos(order * angle_rad) + sine * np.sin(order * angle_rad)
        for angle, length, width in self.spicules:
            # The wrapped distance keeps a spicule whole across the cut at +-pi.
            distance = np.angle(np.exp(1j * (angle_rad - angle)))
            radius += length * np.exp(-0.5 * (distance / width) ** 2)
        floored: Float[np.ndarray, "*any"] = np.maximum(radius, 0.3)
        return floored

    @property
    def largest_radius(self) -> float:
        """Bound on the relative radius in any direction."""
        return (
            1.0
            + sum(float(np.hypot(cosine, sine)) for cosine, sine in self.lobes)
            + sum(length for _, length, _ in self.spicules)
        )

    @property
    def reach_mm(self) -> float:
        """Radius of the circle about the centre that holds the lesion [mm]."""
        angle = np.linspace(-np.pi, np.pi, 721)
        a_mm, b_mm = self.semi_axes_mm
        ellipse_mm = np.hypot(a_mm * np.cos(angle), b_mm * np.sin(angle))
        return float((ellipse_mm * self.relative_radius(angle)).max())


@dataclass(frozen=True, kw_only=True)
class BreastScene(Scene):
    """A breast with one to three lesions.

    Attributes:
        lesions: one to three, the largest first; they do not touch.
        layers: from the skin down.
    """

    preset: ClassVar[str] = "breast"

    lesions: tuple[Lesion, ...]
    layers: tuple[Layer, ...]

"""What a phantom shows, as plain numbers: drawn once, rendered any number of times.

A :class:`Scene` holds everything that the renderer needs, the seed of its noise included, so that
a phantom can be replayed, or drawn again with one thing changed, from its scene alone. Lengths are
in mm from the top left corner of the frame, echo levels in dB relative to fibroglandular tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Label = Literal["benign", "malignant"]


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
    def reach_mm(self) -> float:
        """Radius of the circle about the centre that holds the lesion [mm]."""
        angle = np.linspace(-np.pi, np.pi, 721)
        a_mm, b_mm = self.semi_axes_mm
        ellipse_mm = np.hypot(a_mm * np.cos(angle), b_mm * np.sin(angle))
        return float((ellipse_mm * self.relative_radius(angle)).max())


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One tissue layer, from the layer above down to ``bottom_mm``.

    Attributes:
        name: tissue.
        bottom_mm: mean depth of its lower interface [mm].
        undulation_mm: standard deviation of that interface about its mean [mm].
        echo_db: mean echo level [dB].
        texture_db: standard deviation of its coarse texture [dB].
        septa_db: brightness of the curved septa (ligaments) in it [dB].
        fibre_db: brightness of the parallel fibres in it [dB].
        fascia_db: brightness of the line along its lower interface [dB].
    """

    name: str
    bottom_mm: float
    undulation_mm: float
    echo_db: float
    texture_db: float
    septa_db: float = 0.0
    fibre_db: float = 0.0
    fascia_db: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Settings of the imaginary scanner.

    Attributes:
        axial_mm: standard deviation of the point spread function along depth [mm].
        lateral_mm: the same across, at the focus [mm].
        focus_mm: depth of the focus [mm].
        num_looks: compounded looks.
        loss_db_per_mm: attenuation left after gain compensation [dB / mm].
        streak_db: standard deviation of the beam-to-beam gain at full depth [dB].
        noise_db: electronic noise floor [dB].
        dynamic_range_db: displayed dynamic range [dB].
        tissue_grey: grey level of 0 dB, in [0, 255].
    """

    axial_mm: float
    lateral_mm: float
    focus_mm: float
    num_looks: int
    loss_db_per_mm: float
    streak_db: float
    noise_db: float
    dynamic_range_db: float
    tissue_grey: float


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What the scanner burns into the picture; the default is nothing.

    Attributes:
        calipers: crosses at the ends of each lesion's axes.
        dotted: a dotted line between them.
        text: examination site, or empty for no text; with calipers the measurements follow.
        text_at_top: text above the image content instead of below.
        scale: depth ticks and a grey bar on the right.
    """

    calipers: bool = False
    dotted: bool = False
    text: str = ""
    text_at_top: bool = False
    scale: bool = False


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a phantom is rendered from.

    Attributes:
        shape_hw: rows and columns [px].
        spacing_mm: ``(dy, dx)`` [mm].
        label: diagnosis that all its lesions share.
        lesions: one to three, the largest first; they do not touch.
        layers: from the skin down.
        scan: scanner settings.
        overlay: burnt-in marks.
        noise_seed: seed of the tissue texture and the speckle.
    """

    shape_hw: tuple[int, int]
    spacing_mm: tuple[float, float]
    label: Label
    lesions: tuple[Lesion, ...]
    layers: tuple[Layer, ...]
    scan: Scan
    overlay: Overlay
    noise_seed: int

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Depth and width of the frame [mm]."""
        height, width = self.shape_hw
        return height * self.spacing_mm[0], width * self.spacing_mm[1]

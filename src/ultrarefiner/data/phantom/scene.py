"""What every phantom shows, as plain numbers: drawn once, rendered any number of times.

A :class:`Scene` holds everything that the renderer needs, the seed of its noise included, so that
a phantom can be replayed, or drawn again with one thing changed, from its scene alone. Each preset
adds its anatomy. Lengths are in mm from the top left corner of the frame, echo levels in dB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
        calipers: crosses at the ends of the axes of each thing that is measured.
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
class Grid:
    """Where the samples of a picture lie.

    Attributes:
        shape_hw: rows and columns [px].
        spacing_mm: ``(dy, dx)`` [mm].
    """

    shape_hw: tuple[int, int]
    spacing_mm: tuple[float, float]

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Depth and width of the frame [mm]."""
        height, width = self.shape_hw
        return height * self.spacing_mm[0], width * self.spacing_mm[1]


@dataclass(frozen=True, kw_only=True)
class Scene(Grid):
    """Everything that a phantom is rendered from, whatever its anatomy.

    Attributes:
        preset: name of the preset that draws and renders it.
        label: diagnosis or group of the patient.
        scan: scanner settings.
        overlay: burnt-in marks.
        noise_seed: seed of the tissue texture and the speckle.
    """

    preset: ClassVar[str]

    label: str
    scan: Scan
    overlay: Overlay
    noise_seed: int

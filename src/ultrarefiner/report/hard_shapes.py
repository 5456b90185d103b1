"""Cases on which prompts go wrong, drawn: concave, split, hollow, tiny, cut, unsure, empty, full.

Each is a speckled picture in which a lesion of that shape really is, with a coarse map of it such
as a network might give. No substitute for patients: the contrast is kind, the tissue plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import expit

from ultrarefiner.data.phantom.layers import Layer, stack_layers
from ultrarefiner.data.phantom.scan import scan_image
from ultrarefiner.data.phantom.scene import Grid, Scan
from ultrarefiner.data.phantom.texture import beam_gain, blur_mm, noise
from ultrarefiner.data.rough import RoughConfig, roughen_mask
from ultrarefiner.ops.distance import signed_distance
from ultrarefiner.report.stages import StagedCase
from ultrarefiner.shapes import GreyImage, Mask, ProbMap

_GRID = Grid(shape_hw=(192, 256), spacing_mm=(0.15, 0.15))
_SCAN = Scan(
    axial_mm=0.10,
    lateral_mm=0.18,
    focus_mm=14.0,
    num_looks=3,
    loss_db_per_mm=0.1,
    streak_db=0.5,
    noise_db=-45.0,
    dynamic_range_db=60.0,
    tissue_grey=125.0,
)
_LAYERS = (
    Layer(name="skin", bottom_mm=1.5, undulation_mm=0.1, echo_db=6, texture_db=1, fascia_db=4),
    Layer(name="gland", bottom_mm=40, undulation_mm=0, echo_db=0, texture_db=1.5, septa_db=3),
)
_CONTRAST_DB, _TEXTURE_DB, _MARGIN_MM = 17.0, 1.5, 0.15

_ROUGH = RoughConfig(
    shift_std=0.07, log_scale_mean=-0.05, log_scale_std=0.03, boundary_std=0.08, correlation=0.4
)
_PEAK, _EDGE_PX, _FLOOR = 0.97, 1.5, 0.001

Disc = tuple[float, float, float]
"""Centre x, y and radius [px]."""


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A lesion as discs with bites taken out, and what its coarse map holds.

    Attributes:
        name: title.
        about: what is hard about it.
        discs: their union is the lesion.
        bites: these are not.
        coarse: ``rough`` (the lesion, mediocre), ``pixel`` (one pixel of it), ``empty`` or
            ``full``.
        floor: mean of the noise beside the lesion, a probability.
    """

    name: str
    about: str
    discs: tuple[Disc, ...]
    bites: tuple[Disc, ...] = ()
    coarse: str = "rough"
    floor: float = _FLOOR


_SHAPES = (
    _Shape(name="Disc", about="Nothing is hard: to compare with.", discs=((118, 104, 36),)),
    _Shape(
        name="Crescent",
        about="The centroid falls beside the lesion.",
        discs=((124, 100, 50),),
        bites=((142, 100, 43),),
    ),
    _Shape(
        name="Small crescent",
        about="The same at half the size.",
        discs=((150, 110, 25),),
        bites=((159, 110, 21.5),),
    ),
    _Shape(
        name="Two blobs",
        about="One map, two lesions; the centroid lies between them.",
        discs=((76, 70, 25), (176, 128, 20)),
    ),
    _Shape(
        name="Ring",
        about="The centroid is in the hole, and so is the background.",
        discs=((128, 104, 52),),
        bites=((128, 104, 35),),
    ),
    _Shape(
        name="One pixel",
        about="All that the map holds of a small lesion is one pixel.",
        discs=((140, 90, 9),),
        coarse="pixel",
    ),
    _Shape(name="Border", about="The left border cuts it.", discs=((6, 96, 40),)),
    _Shape(name="Corner", about="Two borders cut it.", discs=((248, 184, 48),)),
    _Shape(
        name="Noisy floor 0.01",
        about="Noise of mean 0.01 in all of the map outweighs the lesion in moments.",
        discs=((84, 84, 22),),
        floor=0.01,
    ),
    _Shape(
        name="Noisy floor 0.1", about="The same, of mean 0.1.", discs=((84, 84, 22),), floor=0.1
    ),
    _Shape(
        name="Empty",
        about="The lesion is there, the map holds nothing.",
        discs=((130, 100, 32),),
        coarse="empty",
    ),
    _Shape(
        name="Full",
        about="The lesion is there, the map says that everything is.",
        discs=((130, 100, 32),),
        coarse="full",
    ),
)


def draw_hard_shapes(seed: int) -> Iterator[StagedCase]:
    """Draw every shape; the same seed gives the same cases, each independent of the others.

    Args:
        seed: of speckle, texture and roughness, >= 0.
    """
    for number, shape in enumerate(_SHAPES):
        image_rng, coarse_rng = np.random.default_rng([seed, number]).spawn(2)
        truth = _cut(shape)
        yield StagedCase(
            name=shape.name,
            about=shape.about,
            image=_scan(truth, image_rng),
            truth=truth,
            coarse=_coarse(shape, truth, coarse_rng),
            is_hard=False,
            is_synthetic=True,
        )


def _cut(shape: _Shape) -> Mask:
    lesion = np.zeros(_GRID.shape_hw, dtype=bool)
    for discs, is_lesion in ((shape.discs, True), (shape.bites, False)):
        for disc in discs:
            lesion[_disc(disc)] = is_lesion
    return lesion


def _disc(disc: Disc) -> Mask:
    height, width = _GRID.shape_hw
    x, y = np.arange(width)[None] + 0.5 - disc[0], np.arange(height)[:, None] + 0.5 - disc[1]
    inside: Mask = np.hypot(x, y) <= disc[2]
    return inside


def _scan(lesion: Mask, rng: np.random.Generator) -> GreyImage:
    """Return the picture of a dark lesion in tissue."""
    tissue_rng, lesion_rng, beam_rng, speckle_rng = rng.spawn(4)
    soft = blur_mm(lesion, _MARGIN_MM, _GRID)
    tissue = stack_layers(_GRID, _LAYERS, tissue_rng)
    inner = _TEXTURE_DB * noise(_GRID, (0.6, 1.0), lesion_rng) - _CONTRAST_DB
    echo = soft * inner + (1 - soft) * tissue + beam_gain(_GRID, _SCAN, beam_rng)
    grey = scan_image(echo.astype(np.float32), _SCAN, _GRID.spacing_mm, speckle_rng)
    return grey.astype(np.float32) / 255


def _coarse(shape: _Shape, truth: Mask, rng: np.random.Generator) -> ProbMap:
    """Return the coarse probability of a shape."""
    if shape.coarse == "empty":
        return np.zeros(truth.shape, dtype=np.float32)
    if shape.coarse == "full":
        return np.ones(truth.shape, dtype=np.float32)
    if shape.coarse == "pixel":
        lesion = np.zeros(truth.shape)
        x, y, _ = shape.discs[0]
        lesion[int(y), int(x)] = 1
    else:
        lesion = expit(signed_distance(roughen_mask(truth, rng, _ROUGH)) / _EDGE_PX)
    grain = cv2.GaussianBlur(rng.random(truth.shape), (0, 0), sigmaX=0.7)
    probs: ProbMap = np.maximum(_PEAK * lesion, 2 * shape.floor * grain).astype(np.float32)
    return probs

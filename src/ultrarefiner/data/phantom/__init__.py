"""Synthetic ultrasound with known truth: the test fixture and the offline demo.

Presets: ``breast`` (lesions with smooth or spiculated margins, posterior enhancement or shadow),
``msk`` (a torn shoulder tendon with bone and muscle: several classes) and ``head`` (a fetal head in
the sector of a convex probe). Fully developed speckle, layered tissue, and marks burnt in as
scanners do. No substitute for patients: what is measured on it does not say how well anything
segments real lesions.
"""

from ultrarefiner.data.phantom.breast_draw import BreastConfig
from ultrarefiner.data.phantom.config import SeriesConfig
from ultrarefiner.data.phantom.copies import COPY_KINDS, CopyConfig, copy_phantom
from ultrarefiner.data.phantom.drawing import Phantom, draw_phantom, render_scene
from ultrarefiner.data.phantom.files import write_phantoms
from ultrarefiner.data.phantom.head_draw import HeadConfig
from ultrarefiner.data.phantom.msk_draw import MskConfig
from ultrarefiner.data.phantom.presets import PRESETS, Preset
from ultrarefiner.data.phantom.scene import Scene

PhantomConfig = BreastConfig  # the default preset under its general name

__all__ = [
    "COPY_KINDS",
    "PRESETS",
    "BreastConfig",
    "CopyConfig",
    "HeadConfig",
    "MskConfig",
    "Phantom",
    "PhantomConfig",
    "Preset",
    "Scene",
    "SeriesConfig",
    "copy_phantom",
    "draw_phantom",
    "render_scene",
    "write_phantoms",
]

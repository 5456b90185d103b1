"""A gate map as a small coloured picture.

Colours: viridis of matplotlib (CC0), whose lightness rises evenly, so that it survives grey print
and every kind of colour blindness.
"""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image

from ultrarefiner.shapes import ProbMap

GATE_COLOURS = (
    *("#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e"),
    *("#1f988b", "#22a884", "#35b779", "#54c568", "#7ad151", "#a5db36", "#d2e21b", "#fde725"),
)
"""Colours of gate 0 to gate 1 in even steps of 1/15: what fits four bits a pixel."""

_MAX_SIDE_PX = 192


def gate_data_uri(gate: ProbMap) -> str:
    """Return a gate map in steps of 1/15 as an embedded PNG of :data:`GATE_COLOURS`.

    Args:
        gate: ``h w`` in [0, 1]; its long side is shrunk to 192 px at most.
    """
    height_px, width_px = gate.shape
    scale = min(1.0, _MAX_SIDE_PX / max(height_px, width_px))
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    small = cv2.resize(np.asarray(gate, np.float32), size, interpolation=cv2.INTER_AREA)
    steps = np.rint(np.clip(small, 0, 1) * (len(GATE_COLOURS) - 1)).astype(np.uint8)
    picture = Image.fromarray(steps)
    picture.putpalette(bytes.fromhex("".join(colour[1:] for colour in GATE_COLOURS)))
    content = io.BytesIO()
    picture.save(content, format="PNG", bits=4)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")

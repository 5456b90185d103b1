"""Layered tissue: textures between undulating interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from ultrarefiner.data.phantom.scene import Grid
from ultrarefiner.data.phantom.texture import axes_mm, noise

_INTERFACE_MM = 0.3  # width of the transition between two layers
_FASCIA_MM = 0.18  # half width of a bright interface
_FIBRE_PERIOD_MM = 1.3


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


def stack_layers(
    grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Return the echo level of layers, each with its texture, between undulating interfaces [dB].

    Args:
        grid: where it is sampled.
        layers: from the top down; the last one should reach below the frame.
        rng: source of the textures and interfaces.
    """
    y_mm, _ = axes_mm(grid)
    echo = np.zeros(grid.shape_hw)
    above_mm = np.full((1, grid.shape_hw[1]), -10.0)
    for layer, layer_rng in zip(layers, rng.spawn(len(layers)), strict=True):
        wave_mm = layer.undulation_mm * noise(grid, (6.0, 6.0), layer_rng)[:1]
        bottom_mm = np.maximum(layer.bottom_mm + wave_mm, above_mm + 0.2)
        share = expit((y_mm - above_mm) / _INTERFACE_MM) - expit((y_mm - bottom_mm) / _INTERFACE_MM)
        echo += share * _layer_echo(grid, layer, y_mm - above_mm, layer_rng)
        if layer.fascia_db:
            patchy = 1.0 + 0.5 * noise(grid, (1.0, 3.0), layer_rng)
            echo += layer.fascia_db * patchy * np.exp(-(((y_mm - bottom_mm) / _FASCIA_MM) ** 2))
        above_mm = bottom_mm
    return echo


def _layer_echo(
    grid: Grid, layer: Layer, below_top_mm: Float[np.ndarray, "H W"], rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Mean level of a layer with coarse and fine texture, septa and fibres."""
    coarse, fine = noise(grid, (1.5, 3.5), rng), noise(grid, (0.35, 1.4), rng)
    echo: Float[np.ndarray, "H W"] = layer.echo_db + layer.texture_db * (0.8 * coarse + 0.6 * fine)
    if layer.septa_db:
        # The zero level of smooth noise is a net of smooth curves, as Cooper's ligaments are.
        septa = np.exp(-((noise(grid, (1.1, 4.5), rng) / 0.13) ** 2))
        strength = np.clip(0.3 + 0.7 * noise(grid, (1.5, 3.0), rng), 0.0, 1.4)
        echo += layer.septa_db * septa * strength
    if layer.fibre_db:
        phase = below_top_mm / _FIBRE_PERIOD_MM + 0.6 * noise(grid, (1.5, 6.0), rng)
        fibres = np.maximum(np.cos(2 * np.pi * phase), 0.0) ** 4
        echo += layer.fibre_db * fibres * np.clip(noise(grid, (0.8, 3.0), rng), 0.0, 1.5)
    return echo

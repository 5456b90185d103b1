"""How far the refined mask may move the coarse one, pixel by pixel.

``final = coarse + gate * (refined - coarse)``, in probability space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.evidence import boundary_contrast
from ultrarefiner.refine.roi import Scene
from ultrarefiner.registry import Registry
from ultrarefiner.shapes import ProbMaps


class Gate(Protocol):
    """The gate stage."""

    def __call__(self, coarse: ProbMaps, refined: ProbMaps, scene: Scene) -> ProbMaps:
        """Return the gate in [0, 1]: 0 keeps the coarse pixel, 1 takes the refined one."""
        ...


GATES = Registry[type[nn.Module]]("gate")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Settings of the gates.

    Attributes:
        kind: name in the registry.
        minimum: gate where the coarse map is certain (``uncertainty``), or where the image does
            not prefer the refined outline (``evidence``).
        maximum: gate at the other end, or everywhere (``constant``).
        gamma: exponent of the certainty (``uncertainty``).
        contrast_gain: gain in contrast at which the gate is fully open (``evidence``).
    """

    kind: str = "evidence"
    minimum: float = 0.2
    maximum: float = 0.7
    gamma: float = 1.0
    contrast_gain: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum <= 1:
            raise ConfigError(
                "gate range",
                expected="0 <= minimum <= maximum <= 1",
                found=f"[{self.minimum}, {self.maximum}]",
            )
        if self.gamma <= 0:
            raise ConfigError("gate gamma", expected="> 0", found=str(self.gamma))
        if self.contrast_gain <= 0:
            raise ConfigError("gate contrast_gain", expected="> 0", found=str(self.contrast_gain))


def build_gate(config: GateConfig) -> nn.Module:
    """Return the gate that a config names."""
    return GATES[config.kind](config)


@GATES.register("none")
class NoGate(nn.Module):
    """Take the refined mask as it is."""

    def __init__(self, config: GateConfig):
        super().__init__()

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Scene) -> ProbMaps:
        """Return ones."""
        return torch.ones_like(coarse)


@GATES.register("constant")
class ConstantGate(nn.Module):
    """The same blend everywhere: the coarse mask acts as a prior on shape."""

    def __init__(self, config: GateConfig):
        super().__init__()
        self.value = config.maximum

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Scene) -> ProbMaps:
        """Return the constant."""
        return torch.full_like(coarse, self.value)


@GATES.register("uncertainty")
class UncertaintyGate(nn.Module):
    r"""Open where the coarse map is uncertain.

    .. math:: g = g_\min + (g_\max - g_\min)\,(1 - |2P - 1|^\gamma)
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.config = config

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Scene) -> ProbMaps:
        """Return the gate of each pixel."""
        config = self.config
        uncertainty = 1 - (2 * coarse - 1).abs() ** config.gamma
        return config.minimum + (config.maximum - config.minimum) * uncertainty


@GATES.register("evidence")
class EvidenceGate(nn.Module):
    r"""Open where the image prefers the refined outline to the coarse one; one value per lesion.

    .. math:: g = g_\min + (g_\max - g_\min)\,
              \mathrm{clip}\left(\frac{c(\text{refined}) - c(\text{coarse})}{\Delta}, 0, 1\right)

    c is :func:`~ultrarefiner.ops.evidence.boundary_contrast`. A coarse outline that already sits on
    an edge of the image is hardly moved; one that cuts through tissue is.
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.config = config

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Scene) -> ProbMaps:
        """Return the gate, constant over each map."""
        config = self.config
        outlines = (torch.cat([coarse, refined], dim=1).detach() > 0.5).float()
        before, after = boundary_contrast(outlines, *scene.grid_images()).unbind(dim=1)
        opened = ((after - before) / config.contrast_gain).clamp(0, 1)
        gate = config.minimum + (config.maximum - config.minimum) * opened
        return gate[:, None, None, None].expand_as(coarse)


def apply_gate(coarse: ProbMaps, refined: ProbMaps, gate: ProbMaps) -> ProbMaps:
    """Blend coarse and refined; gate 0 and 1 return either of them exactly."""
    return torch.lerp(coarse, refined, gate)

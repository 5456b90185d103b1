"""How far the refined mask may move the coarse one, pixel by pixel.

``final = coarse + gate * (refined - coarse)``, in probability space. The gates without parameters
serve a frozen model; ``learned`` and ``hybrid`` are trained, alone or with the rest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.evidence import boundary_contrast
from ultrarefiner.ops.uncertainty import uncertainty
from ultrarefiner.refine.gate_network import GateNetwork
from ultrarefiner.refine.sight import Sight
from ultrarefiner.registry import Registry
from ultrarefiner.shapes import ProbMaps


class Gate(nn.Module):
    """The gate stage."""

    @abstractmethod
    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the gate in [0, 1]: 0 keeps the coarse pixel, 1 takes the refined one."""


GATES = Registry[Callable[["GateConfig"], Gate]]("gate")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Settings of the gates.

    Attributes:
        kind: name in the registry.
        minimum: gate where the coarse map is certain (``uncertainty``, ``hybrid``), where the image
            does not prefer the refined outline (``evidence``), or for a factor of 0 (``learned``).
        maximum: gate at the other end, or everywhere (``constant``).
        gamma: exponent of the certainty (``uncertainty``, ``hybrid``).
        contrast_gain: gain in contrast at which the gate is fully open (``evidence``).
        width: channels of the network (``learned``, ``hybrid``).
        initial: factor that the network starts from, everywhere (``learned``, ``hybrid``).
        seed: of the network's first weights (``learned``, ``hybrid``).
    """

    kind: str = "evidence"
    minimum: float = 0.2
    maximum: float = 0.7
    gamma: float = 1.0
    contrast_gain: float = 0.4
    width: int = 16
    initial: float = 0.3
    seed: int = 0

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
        if self.width < 1:
            raise ConfigError("gate width", expected=">= 1", found=str(self.width))
        if not 0 < self.initial < 1:
            raise ConfigError("gate initial", expected="in (0, 1)", found=str(self.initial))


def build_gate(config: GateConfig) -> Gate:
    """Return the gate that a config names."""
    return GATES[config.kind](config)


@GATES.register("none")
class NoGate(Gate):
    """Take the refined mask as it is."""

    def __init__(self, config: GateConfig):
        super().__init__()

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return ones."""
        return torch.ones_like(coarse)


@GATES.register("constant")
class ConstantGate(Gate):
    """The same blend everywhere: the coarse mask acts as a prior on shape."""

    def __init__(self, config: GateConfig):
        super().__init__()
        self.value = config.maximum

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the constant."""
        return torch.full_like(coarse, self.value)


@GATES.register("uncertainty")
class UncertaintyGate(Gate):
    r"""Open where the coarse map is uncertain.

    .. math:: g = g_\min + (g_\max - g_\min)\,(1 - |2P - 1|^\gamma)
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.config = config

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the gate of each pixel."""
        return _scale(uncertainty(coarse, self.config.gamma), self.config)


@GATES.register("evidence")
class EvidenceGate(Gate):
    r"""Open where the image prefers the refined outline to the coarse one; one value per lesion.

    .. math:: g = g_\min + (g_\max - g_\min)\,
              \mathrm{clip}\left(\frac{c(\text{refined}) - c(\text{coarse})}{\Delta}, 0, 1\right)

    c is :func:`~ultrarefiner.ops.evidence.boundary_contrast`. A coarse outline that already sits on
    an edge of the image is hardly moved; one that cuts through tissue is.
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.config = config

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the gate, constant over each map."""
        config = self.config
        outlines = (torch.cat([coarse, refined], dim=1).detach() > 0.5).float()
        before, after = boundary_contrast(outlines, *scene.grid_images()).unbind(dim=1)
        opened = ((after - before) / config.contrast_gain).clamp(0, 1)
        gate = _scale(opened, config).to(coarse.dtype)
        return gate[:, None, None, None].expand_as(coarse)


@GATES.register("learned")
class LearnedGate(Gate):
    r"""Open where a small network has learned that the refined mask is the better one.

    .. math:: g = g_\min + (g_\max - g_\min)\,f

    with the factor f of :class:`~ultrarefiner.refine.gate_network.GateNetwork`.
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.config = config
        self.network = _build_network(config)

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the gate of each pixel."""
        image, _ = scene.grid_images()
        return _scale(self.network(coarse, refined, image), self.config).to(coarse.dtype)


@GATES.register("hybrid")
class HybridGate(Gate):
    r"""The uncertainty gate times a learned factor: never wider open than the former alone.

    .. math:: g = \left(g_\min + (g_\max - g_\min)\,(1 - |2P - 1|^\gamma)\right) f
    """

    def __init__(self, config: GateConfig):
        super().__init__()
        self.uncertainty = UncertaintyGate(config)
        self.network = _build_network(config)

    def forward(self, coarse: ProbMaps, refined: ProbMaps, scene: Sight) -> ProbMaps:
        """Return the gate of each pixel."""
        image, _ = scene.grid_images()
        factor: ProbMaps = self.network(coarse, refined, image)
        limit: ProbMaps = self.uncertainty(coarse, refined, scene)
        return limit * factor.to(coarse.dtype)


def _build_network(config: GateConfig) -> GateNetwork:
    return GateNetwork(width=config.width, initial=config.initial, seed=config.seed)


def _scale(opened: Float[Tensor, "*B"], config: GateConfig) -> Float[Tensor, "*B"]:
    """Bring [0, 1] to the config's range."""
    return config.minimum + (config.maximum - config.minimum) * opened


def apply_gate(coarse: ProbMaps, refined: ProbMaps, gate: ProbMaps) -> ProbMaps:
    """Blend coarse and refined; gate 0 and 1 return either of them exactly."""
    return torch.lerp(coarse, refined, gate)

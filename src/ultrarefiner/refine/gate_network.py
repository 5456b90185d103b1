"""The small network behind the gates that learn."""

from __future__ import annotations

import math

import torch
from torch import nn

from ultrarefiner.ops.uncertainty import uncertainty
from ultrarefiner.shapes import Images, ProbMaps

_NUM_INPUTS = 4


class GateNetwork(nn.Module):
    r"""Three convolutions from what is known at a pixel and around it to a factor in (0, 1).

    .. math:: f = \sigma(W_3 * s(W_2 * s(W_1 * [P,\; R,\; 1 - |2P - 1|,\; I] + b_1) + b_2) + b_3)

    with the coarse map P, the refined map R, the image I and :math:`s(x) = x\,\sigma(x)`, which is
    smooth. The 3 x 3 kernels are spread by 1, 2 and 4 px, so that each factor sees 15 x 15 px, on
    both sides of an outline. Inputs are centred to [-1, 1]: without, Adam at a rate of 0.003 closed
    the gate for good from most seeds. It starts near ``initial`` everywhere, with small weights
    rather than zeros in the last layer, so that the first gradient reaches all layers.

    Args:
        width: channels of the hidden layers; 16 make 3057 parameters.
        initial: factor at the start, between 0 and 1.
        seed: of the initial weights; the global random state is not touched.
    """

    def __init__(self, *, width: int = 16, initial: float = 0.3, seed: int = 0):
        super().__init__()
        self.first = _layer(_NUM_INPUTS, width, dilation=1)
        self.second = _layer(width, width, dilation=2)
        self.last = _layer(width, 1, dilation=4)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            _fill(layer, 0.0)
        nn.init.normal_(self.last.weight, std=0.003, generator=generator)
        _fill(self.last, math.log(initial / (1 - initial)))

    def forward(self, coarse: ProbMaps, refined: ProbMaps, image: Images) -> ProbMaps:
        """Return the factor of each pixel, computed in the type of the weights.

        Args:
            coarse: ``B 1 h w`` in [0, 1].
            refined: ``B 1 h w`` in [0, 1].
            image: ``B 1 h w`` grey levels stretched to [0, 1], 0 in the padding.
        """
        parts = (coarse, refined, uncertainty(coarse), image)
        with torch.autocast(coarse.device.type, enabled=False):
            features = torch.cat([part.to(self.last.weight.dtype) for part in parts], dim=1)
            features = nn.functional.silu(self.first(2 * features - 1))
            features = nn.functional.silu(self.second(features))
            factor: ProbMaps = self.last(features).sigmoid()
        return factor


def _layer(num_inputs: int, num_outputs: int, *, dilation: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size, its parameters not yet set."""
    layer = nn.Conv2d(
        num_inputs, num_outputs, kernel_size=3, padding=dilation, dilation=dilation, device="meta"
    )
    return layer.to_empty(device="cpu")


def _fill(layer: nn.Conv2d, value: float) -> None:
    assert layer.bias is not None
    nn.init.constant_(layer.bias, value)

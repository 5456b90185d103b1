"""Coarse probabilities of native images: one network or several, with or without flips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.coarse.protocol import CoarseNetwork, class_probs
from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.intensity import stretch
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.precision import autocast, bf16_is_fast, choose_device
from ultrarefiner.shapes import GreyImage, ProbMap


class CoarsePredictor:
    """Predict the probability of a lesion on the native grid of each image.

    Args:
        networks: one, or the members of an ensemble, whose probabilities are averaged; all of one
            input size and number of classes.
        flips: average with the prediction for the mirrored image.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        bf16: compute in bfloat16; by default where the device is made for it.

    Raises:
        ConfigError: no network, or members that do not fit together.
    """

    def __init__(
        self,
        networks: Sequence[CoarseNetwork],
        *,
        flips: bool = False,
        device: str = "auto",
        bf16: bool | None = None,
    ) -> None:
        kinds = {(network.config.side, network.config.num_classes) for network in networks}
        if len(kinds) != 1:
            raise ConfigError(
                "ensemble of coarse networks",
                expected="at least one, all of one input side and number of classes",
                found=f"{len(networks)} networks: {sorted(kinds)}",
            )
        self.device = choose_device(device)
        self.bf16 = bf16_is_fast(self.device) if bf16 is None else bf16
        self.flips = flips
        self.side, self.num_classes = kinds.pop()
        self.networks = [
            network.to(self.device).to(memory_format=torch.channels_last).eval()
            for network in networks
        ]

    def __call__(self, image: GreyImage) -> ProbMap:
        """Return the probability of any foreground class; see :meth:`predict_batch`."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[GreyImage]) -> list[ProbMap]:
        """Return ``H W`` probabilities in [0, 1] of any foreground class, on the native grids.

        Args:
            images: native grey images in [0, 1] of any sizes.
        """
        return [1 - probs[0] for probs in self.predict_classes(images)]

    @torch.inference_mode()
    def predict_classes(self, images: Sequence[GreyImage]) -> list[Float[np.ndarray, "K H W"]]:
        """Return the probability of each class, the background first, on the native grids."""
        frames = [Letterbox(image.shape, self.side) for image in images]
        shrunk = [frame.shrink(stretch(image)) for frame, image in zip(frames, images, strict=True)]
        batch = torch.from_numpy(np.stack(shrunk))[:, None].to(self.device)
        probs = self._mean_probs(batch)
        if self.flips:
            mirrored = self._mean_probs(_mirror_content(batch, frames))
            probs = (probs + _mirror_content(mirrored, frames)) / 2
        return [
            frame.enlarge(values).clamp(0, 1).numpy()
            for frame, values in zip(frames, probs.cpu(), strict=True)
        ]

    def _mean_probs(self, batch: Float[Tensor, "B 1 side side"]) -> Float[Tensor, "B K side side"]:
        batch = batch.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, enabled=self.bf16):
            members = [class_probs(network(batch)) for network in self.networks]
        return torch.stack(members).mean(dim=0)


def _mirror_content(
    maps: Float[Tensor, "B C side side"], frames: Sequence[Letterbox]
) -> Float[Tensor, "B C side side"]:
    """Mirror each map left to right within its content; the padding stays where it is."""
    mirrored = maps.clone()
    for item, frame in zip(mirrored, frames, strict=True):
        width = frame.content_hw[1]
        item[..., :width] = item[..., :width].flip(-1)
    return mirrored

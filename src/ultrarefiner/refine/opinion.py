"""A coarse map of two opinions: a network's, and what the foundation model sees unasked.

A refinement follows its prompts: where the network missed the lesion, no prompt leads there. A
foundation model that has learned to segment without a prompt, too (``unasked_share`` in training),
errs elsewhere than the network. Where it looks at whole images it has encoded them anyway: its
opinion then costs one more run of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ultrarefiner.coarse import CoarsePredictor
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.shapes import GreyImage, ProbMap


class CoarseOpinions:
    """Predict coarse maps: the network's, and as much of the other opinion as the refiner says.

    Args:
        network: or an ensemble.
        refiner: gives the second opinion, with the share ``second_opinion`` of its config; asked
            to refine these images next, it uses what it has encoded.
    """

    def __init__(self, network: CoarsePredictor, refiner: Refiner) -> None:
        self.network, self.refiner = network, refiner
        self.share = refiner.config.second_opinion or 0.0

    def __call__(self, image: GreyImage) -> ProbMap:
        """Return the coarse map of one image; see :meth:`predict_batch`."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[GreyImage]) -> list[ProbMap]:
        """Return ``H W`` probabilities in [0, 1] of a lesion, on the native grids.

        Args:
            images: native grey images in [0, 1] of any sizes.

        Raises:
            InputError: an image has another shape or range.
        """
        maps = self.network.predict_batch(images)
        if self.share == 0:
            return maps
        share = np.float32(self.share)
        others = self.refiner.segment_batch(images)
        return [own + share * (other - own) for own, other in zip(maps, others, strict=True)]

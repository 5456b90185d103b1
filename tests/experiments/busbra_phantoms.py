"""Phantoms in the layout of BUS-BRA: every study reads that, and none needs the real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from ultrarefiner.coarse import CoarseConfig, build_coarse, encode_checkpoint
from ultrarefiner.data.phantom import PhantomConfig, draw_phantom

_PHANTOMS = PhantomConfig(
    height_px=(96, 120), width_px=(96, 140), lesion_count_probs=(1.0, 0.0, 0.0)
)

THREE_IMAGES = (("0001-l", 1, "1"), ("0001-r", 1, "1"), ("0002-l", 2, "1"))


def write_phantoms(
    root: Path, cases: tuple[tuple[str, int, str], ...] = THREE_IMAGES
) -> list[np.ndarray]:
    """Write a phantom for each case (name, patient, official fold); return their true masks."""
    (root / "Images").mkdir(parents=True)
    (root / "Masks").mkdir()
    data, folds, truths = ["ID,Case,Pathology"], ["ID,Pathology,kFold"], []
    for index, (name, patient, fold) in enumerate(cases):
        phantom = draw_phantom(seed=4, index=index, config=_PHANTOMS)
        cv2.imwrite(str(root / "Images" / f"bus_{name}.png"), phantom.image)
        cv2.imwrite(str(root / "Masks" / f"mask_{name}.png"), phantom.mask.astype(np.uint8) * 255)
        data.append(f"bus_{name},{patient},{phantom.label}")
        folds.append(f"bus_{name},{phantom.label},{fold}")
        truths.append(phantom.mask)
    (root / "bus_data.csv").write_text("\n".join(data))
    (root / "5-fold-cv.csv").write_text("\n".join(folds))
    return truths


def write_checkpoint(path: Path, image_digests: tuple[str, ...] = (), *, seed: int = 0) -> str:
    """Write an untrained network that claims to have seen some images; return its path."""
    torch.manual_seed(seed)
    network = build_coarse(
        CoarseConfig(side=64, encoder_weights="none", decoder_channels=(16, 8, 8, 8, 8))
    )
    card = {"image_digests": list(image_digests), "split_sha256": "0" * 64}
    path.write_bytes(encode_checkpoint(network, card))
    return str(path)

"""BUSI as it is unpacked: three classes, masks beside images, some in several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fakes.scenes import draw_scene, save_png


def write_fake_busi(folder: Path) -> Path:
    """Fill ``folder/Dataset_BUSI_with_GT`` and return it.

    The quirks of the real set: colour images that are grey, a mask in two files (scene 1), a colour
    mask with tinted edges (scene 2), a black mask for the normal image, one-bit masks.
    """
    root = folder / "Dataset_BUSI_with_GT"
    names = ("benign (1)", "benign (10)", "malignant (2)", "normal (1)")
    for index, name in enumerate(names):
        scene = draw_scene(index)
        save_png(root / name.split()[0] / f"{name}.png", np.stack([scene.image] * 3, axis=2))
    _save_one_bit(root / "benign" / "benign (1)_mask.png", draw_scene(0).mask)
    for suffix, lesion in zip(("", "_1"), draw_scene(1).lesions, strict=True):
        save_png(root / "benign" / f"benign (10)_mask{suffix}.png", lesion)
    tinted = np.stack([draw_scene(2).mask * np.uint8(255)] * 3, axis=2)
    tinted[0, 0] = (9, 0, 3)
    save_png(root / "malignant" / "malignant (2)_mask.png", tinted)
    black = np.zeros_like(draw_scene(3).mask)
    save_png(root / "normal" / "normal (1)_mask.png", black)
    return root


def busi_truth(stem: str) -> np.ndarray:
    """Return the mask (H, W) that the importer has to find for an image."""
    index = {"benign (1)": 0, "benign (10)": 1, "malignant (2)": 2}.get(stem)
    return np.zeros_like(draw_scene(0).mask) if index is None else draw_scene(index).mask


def _save_one_bit(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)

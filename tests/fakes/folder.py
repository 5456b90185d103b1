"""Plain folders of images and masks, as people hand them over."""

from __future__ import annotations

from pathlib import Path

from fakes.scenes import NUM_SCENES, draw_scene, save_png


def write_fake_folder(folder: Path) -> Path:
    """Fill ``Images`` (BMP and PNG) and ``Masks`` (PNG, named after them), plus what lies about."""
    for index in range(NUM_SCENES):
        scene = draw_scene(index)
        ending = "bmp" if index == 0 else "png"
        save_png(folder / "Images" / f"case {index}.{ending}", scene.image)
        save_png(folder / "Masks" / f"case {index}_mask.png", scene.mask)
    (folder / "Images" / "Thumbs.db").write_bytes(b"\0")
    (folder / "README.txt").write_text("Scanned in 2019.", encoding="utf-8")
    return folder


def write_fake_classes(folder: Path) -> Path:
    """Fill ``benign`` and ``malignant`` with ``X.png`` beside ``X_seg.png``."""
    for index in range(NUM_SCENES):
        scene, label = draw_scene(index), ("benign", "malignant")[index // 2]
        save_png(folder / label / f"{index}.v1.png", scene.image)
        save_png(folder / label / f"{index}.v1_seg.png", scene.mask)
    return folder

"""A MONAI datalist with folds, a validation list, and a test entry of its own shape."""

from __future__ import annotations

import json
from pathlib import Path

from fakes.scenes import NUM_SCENES, draw_scene, save_png


def write_fake_monai(folder: Path) -> Path:
    """Fill ``folder`` and return its ``datalist.json``."""
    entries = []
    for index in range(NUM_SCENES):
        scene = draw_scene(index)
        save_png(folder / "images" / f"{index}.png", scene.image)
        save_png(folder / "labels" / f"{index}.png", scene.mask)
        entries.append({"image": f"./images/{index}.png", "label": f"labels/{index}.png"})
    content = {
        "description": "made up",
        "training": [
            entries[0] | {"fold": 0, "patient_id": "A"},
            entries[1] | {"fold": 1, "image": [entries[1]["image"]], "patient_id": "B"},
        ],
        "validation": [entries[2]],
        "test": [entries[3]],
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path

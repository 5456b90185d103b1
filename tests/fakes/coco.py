"""COCO annotations in each of their codings, in the original layout."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from fakes.scenes import HEIGHT_PX, NUM_SCENES, RECTANGLE_XYXY_PX, WIDTH_PX, draw_scene, save_png


def write_fake_coco(folder: Path) -> Path:
    """Fill ``train2017`` and ``annotations/instances_train2017.json``; return the folder.

    Scene 0 is compressed run lengths, 1 has two annotations of run lengths (one a crowd), 2 is a
    polygon; scene 3 has no annotation, so that its truth is empty. A captions file lies beside.
    """
    annotations: list[dict[str, object]] = []

    def annotate(index: int, segmentation: object, *, category: int = 1, crowd: int = 0) -> None:
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 100 + index,
                "category_id": category,
                "iscrowd": crowd,
                "segmentation": segmentation,
                "bbox": [0, 0, 1, 1],
                "area": 1,
            }
        )

    for index in range(NUM_SCENES):
        save_png(folder / "train2017" / f"{index:012d}.png", draw_scene(index).image)
    size = [HEIGHT_PX, WIDTH_PX]
    counts = run_lengths(draw_scene(0).mask)
    annotate(0, {"size": size, "counts": compress(counts)})
    for crowd, lesion in enumerate(draw_scene(1).lesions):
        annotate(1, {"size": size, "counts": run_lengths(lesion)}, category=1 + crowd, crowd=crowd)
    left, top, right, bottom = RECTANGLE_XYXY_PX
    annotate(2, [[left, top, right, top, right, bottom, left, bottom]], category=2)
    content = {
        "info": {"description": "made up"},
        "images": [
            {
                "id": 100 + index,
                "file_name": f"{index:012d}.png",
                "height": HEIGHT_PX,
                "width": WIDTH_PX,
            }
            for index in range(NUM_SCENES)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}],
    }
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    captions = {"images": content["images"], "annotations": [{"image_id": 100, "caption": "x"}]}
    (path.parent / "captions_train2017.json").write_text(json.dumps(captions), encoding="utf-8")
    return folder


def coco_truth(index: int) -> np.ndarray:
    """Return the mask (H, W) that the annotations of a scene stand for."""
    scene = draw_scene(index)
    return np.zeros_like(scene.mask) if index == 3 else scene.mask


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return run lengths down the columns, background first."""
    values = [False, *mask.ravel(order="F").tolist()]
    changes = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    edges = [1, *changes, len(values)]
    return [end - start for start, end in pairwise(edges)]


def compress(counts: list[int]) -> str:
    """Return COCO's string of run lengths, written from its description in words."""
    text = ""
    for place, count in enumerate(counts):
        rest = count - (counts[place - 2] if place > 2 else 0)
        while True:
            digit, rest = rest % 32, rest // 32
            is_last = rest == (-1 if digit >= 16 else 0)
            text += chr(48 + digit + (0 if is_last else 32))
            if is_last:
                break
    return text

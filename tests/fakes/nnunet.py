"""nnU-Net's folders: NIfTI with spacing, three training cases, a test case, two splits."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from fakes.scenes import NUM_SCENES, draw_scene

SPACING_MM = (0.2, 0.1)
_NAME = "Dataset027_Breast"


def write_fake_nnunet(folder: Path) -> Path:
    """Fill ``nnUNet_raw`` and ``nnUNet_preprocessed``; return the raw data set."""
    root = folder / "nnUNet_raw" / _NAME
    for index in range(NUM_SCENES):
        part = "Ts" if index == NUM_SCENES - 1 else "Tr"
        scene, case = draw_scene(index), f"breast_{index:03d}"
        _save(root / f"images{part}" / f"{case}_0000.nii.gz", scene.image)
        _save(root / f"labels{part}" / f"{case}.nii.gz", scene.mask.astype(np.uint8))
    content = {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": NUM_SCENES - 1,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    splits = [
        {"train": ["breast_001"], "val": ["breast_000", "breast_002"]},
        {"train": ["breast_000", "breast_002"], "val": ["breast_001"]},
    ]
    preprocessed = folder / "nnUNet_preprocessed" / _NAME
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return root


def _save(path: Path, values: np.ndarray) -> None:
    """Write rows as y and columns as x, which in NIfTI is the transpose."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dy, dx = SPACING_MM
    image = nib.Nifti1Image(values.T[..., None], np.diag([dx, dy, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)

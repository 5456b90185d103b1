"""Write masks, probabilities and JSON, each file whole or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.data.csv_log import CsvLog
from ultrarefiner.errors import ConfigError, OutputError
from ultrarefiner.shapes import Mask, ProbMap

__all__ = [
    "CsvLog",
    "atomic_path",
    "write_json",
    "write_mask",
    "write_probability",
    "write_text",
]


def write_mask(path: Path, mask: Mask) -> None:
    """Write a binary mask as an 8-bit grey PNG of 0 and 255."""
    _check_suffix(path, ".png")
    _write_png(path, mask.astype(np.uint8) * np.uint8(255))


def write_probability(path: Path, prob: ProbMap) -> None:
    """Write a probability in [0, 1], exactly as ``.npy`` or in steps of 1/255 as ``.png``.

    The PNG is for looking at. Read back as a coarse mask, one of two levels counts as binary and
    one of a few low levels is refused as a label map; the array keeps its values.

    Raises:
        OutputError: values outside [0, 1] or NaN, which no file should carry on.
    """
    _check_suffix(path, ".npy", ".png")
    if not ((prob >= 0) & (prob <= 1)).all():
        raise OutputError(
            f"will not write {path}",
            expected="probabilities in [0, 1]",
            found=f"values from {prob.min()} to {prob.max()}",
        )
    if path.suffix == ".png":
        _write_png(path, np.rint(prob * 255).astype(np.uint8))
        return
    content = io.BytesIO()  # np.save to a file hides why the system refused it
    np.save(content, prob.astype(np.float32), allow_pickle=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def write_json(path: Path, obj: object) -> None:
    """Write JSON with sorted keys, the same bytes for the same content.

    Raises:
        OutputError: NaN or infinity inside, which JSON does not have: use None.
    """
    try:
        text = json.dumps(obj, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except ValueError as cause:
        raise OutputError(
            f"will not write {path}", expected="finite numbers", found=str(cause)
        ) from cause
    write_text(path, text + "\n")


def _write_png(path: Path, grey: UInt8[np.ndarray, "H W"]) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(grey).save(temporary, format="PNG")


def _check_suffix(path: Path, *allowed: str) -> None:
    if path.suffix not in allowed:
        raise ConfigError(
            f"cannot write {path}", expected=" or ".join(allowed), found=path.suffix or "no ending"
        )

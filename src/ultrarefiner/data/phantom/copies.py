"""Near duplicates of phantoms, as they turn up in real collections: the truth for an audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from ultrarefiner.data.phantom.drawing import Phantom
from ultrarefiner.data.phantom.overlay import Target, burn_in
from ultrarefiner.data.phantom.presets import PRESETS
from ultrarefiner.data.phantom.scene import Overlay
from ultrarefiner.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CopyConfig:
    """How many images of a series come a second time, and how.

    Attributes:
        num: number of copies, each of another image; at most the number of images.
        kinds: what is done to them, in turn: names of :data:`COPY_KINDS`.
        same_patient: a copy keeps the patient of its original; else it comes under an identifier
            of its own, as leaks do in real collections.
    """

    num: int = 0
    kinds: tuple[str, ...] = ("resaved", "resized", "cropped", "brightness", "annotated")
    same_patient: bool = False

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ConfigError("num", expected="a value >= 0", found=f"{self.num}")
        if not self.kinds or not set(self.kinds) <= COPY_KINDS.keys():
            raise ConfigError(
                "kinds",
                expected="some of " + ", ".join(COPY_KINDS),
                found=", ".join(self.kinds) or "none",
            )


def copy_phantom(phantom: Phantom, kind: str, rng: np.random.Generator) -> Phantom:
    """Return a near duplicate of a phantom.

    Args:
        phantom: the original.
        kind: name of one of :data:`COPY_KINDS`.
        rng: source of how strongly it is changed.

    Returns:
        Phantom with its own image, truth and spacing; patient, label and scene are the original's.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in COPY_KINDS:
        raise ConfigError(
            f"unknown kind of copy {kind!r}", expected="one of " + ", ".join(COPY_KINDS)
        )
    return COPY_KINDS[kind](phantom, rng)


def _resaved(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """Through a JPEG of medium quality."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 90))]
    done, data = cv2.imencode(".jpg", phantom.image, quality)
    assert done, "a uint8 image always encodes"
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert image is not None, "what was just encoded decodes"
    return replace(phantom, image=image.astype(np.uint8))


def _resized(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """To between half and one and a half times its size, aspect kept to a pixel."""
    scale = rng.uniform(0.5, 0.85) if rng.random() < 0.7 else rng.uniform(1.15, 1.5)
    old_hw = phantom.image.shape
    size_wh = (round(old_hw[1] * scale), round(old_hw[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(phantom.image, size_wh, interpolation=interpolation)
    classes = cv2.resize(phantom.classes, size_wh, interpolation=cv2.INTER_NEAREST_EXACT)
    (dy_mm, dx_mm), (width, height) = phantom.spacing_mm, size_wh
    spacing_mm = (dy_mm * old_hw[0] / height, dx_mm * old_hw[1] / width)
    return _with_truth(replace(phantom, image=image, spacing_mm=spacing_mm), classes)


def _cropped(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """Without a few rows and columns on each side."""
    height, width = phantom.image.shape
    most = max(2, round(0.03 * min(height, width)))
    top, bottom, left, right = (int(cut) for cut in rng.integers(1, most + 1, 4))
    kept = np.s_[top : height - bottom, left : width - right]
    return _with_truth(replace(phantom, image=phantom.image[kept]), phantom.classes[kept])


def _brightness(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """With another gamma, contrast and brightness."""
    grey = 255.0 * (phantom.image / 255.0) ** rng.uniform(0.8, 1.25)
    grey = grey * rng.uniform(0.8, 1.2) + rng.uniform(-15.0, 15.0)
    return replace(phantom, image=np.clip(np.rint(grey), 0, 255).astype(np.uint8))


def _annotated(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """With calipers, and with text, a scale and dotted lines where the original has none."""
    given = phantom.scene.overlay
    marks = Overlay(
        calipers=True,
        dotted=not (given.calipers and given.dotted),
        text=f"IM {rng.integers(1, 40)}/{rng.integers(40, 80)}",
        text_at_top=not given.text_at_top,
        scale=not given.scale,
    )
    target = Target(mask=phantom.mask, tilt_rad=0.0)
    marked = burn_in(phantom.image, replace(phantom.scene, overlay=marks), [target])
    return replace(phantom, image=marked)


def _flipped(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """Left to right."""
    image, classes = (np.fliplr(p).copy() for p in (phantom.image, phantom.classes))
    return _with_truth(replace(phantom, image=image), classes)


def _with_truth(phantom: Phantom, classes: UInt8[np.ndarray, "H W"]) -> Phantom:
    preset = PRESETS[phantom.scene.preset]
    mask = classes == preset.class_names.index(preset.target)
    return replace(phantom, classes=classes, mask=mask)


COPY_KINDS: dict[str, Callable[[Phantom, np.random.Generator], Phantom]] = {
    "resaved": _resaved,
    "resized": _resized,
    "cropped": _cropped,
    "brightness": _brightness,
    "annotated": _annotated,
    "flipped": _flipped,
}

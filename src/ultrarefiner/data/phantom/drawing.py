"""Draw phantom number n of an endless series, or the same picture again from its scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from ultrarefiner.data.phantom.breast_draw import BreastConfig
from ultrarefiner.data.phantom.config import SeriesConfig
from ultrarefiner.data.phantom.presets import PRESETS
from ultrarefiner.data.phantom.scene import Scene
from ultrarefiner.errors import ConfigError

PATIENT_STREAM, IMAGE_STREAM, ROUGH_STREAM, COPY_STREAM = range(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """One synthetic image with its truth.

    Attributes:
        image: grey levels.
        mask: the preset's target (breast: all lesions, msk: the tear, head: the head), never
            empty, never touching the frame.
        classes: label map, values from 0 (background) to ``len(class_names) - 1``.
        class_names: name of each of these values.
        spacing_mm: ``(dy, dx)`` [mm].
        patient: identifier, shared by ``images_per_patient`` consecutive images.
        label: diagnosis or group of the patient.
        scene: what was drawn; :func:`render_scene` gives the same image and mask again.
    """

    image: UInt8[np.ndarray, "H W"]
    mask: Bool[np.ndarray, "H W"]
    classes: UInt8[np.ndarray, "H W"]
    class_names: tuple[str, ...]
    spacing_mm: tuple[float, float]
    patient: str
    label: str
    scene: Scene


def draw_phantom(seed: int, index: int, config: SeriesConfig | None = None) -> Phantom:
    """Draw phantom number ``index`` of the endless series ``seed``.

    Args:
        seed: names the series, >= 0.
        index: number in it, >= 0; each can be drawn without the others.
        config: preset and distribution of the series, default
            :class:`~ultrarefiner.data.phantom.BreastConfig`.

    Returns:
        The phantom; the same arguments give the same bytes.

    Raises:
        ConfigError: seed or index is negative.

    Example:
        >>> phantom = draw_phantom(seed=0, index=3, config=PRESETS["msk"].config())
        >>> phantom.image.shape == phantom.classes.shape, phantom.class_names[2]
        (True, 'tear')
    """
    config = config or BreastConfig()
    for name, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise ConfigError(name, expected="a value >= 0", found=str(value))
    preset = PRESETS[config.preset]
    number = index // config.images_per_patient
    label = preset.draw_label(stream(seed, number, PATIENT_STREAM), config)
    scene = preset.draw_scene(stream(seed, index, IMAGE_STREAM), label, config)
    image, classes = preset.render(scene)
    return Phantom(
        image=image,
        mask=classes == preset.class_names.index(preset.target),
        classes=classes,
        class_names=preset.class_names,
        spacing_mm=scene.spacing_mm,
        patient=f"{preset.series}-{seed}-{number:04d}",
        label=label,
        scene=scene,
    )


def render_scene(scene: Scene) -> tuple[UInt8[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return image and mask of a scene; deterministic, the noise comes from the scene's seed."""
    preset = PRESETS[scene.preset]
    image, classes = preset.render(scene)
    return image, classes == preset.class_names.index(preset.target)


def stream(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Return independent generators for independent purposes."""
    return np.random.default_rng([seed, number, purpose])

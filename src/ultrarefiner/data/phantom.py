"""Synthetic breast ultrasound with known truth: the test fixture and the offline demo.

Layered tissue with fully developed speckle, hypoechoic lesions with smooth or spiculated margins,
posterior enhancement or shadow, edge shadows, and marks burnt in as scanners do. No substitute
for patients: what is measured on it does not say how well anything segments real lesions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.manifest import Record, write_manifest
from ultrarefiner.data.phantom_draw import PhantomConfig, draw_scene
from ultrarefiner.data.phantom_echo import echo_map, lesion_mask
from ultrarefiner.data.phantom_overlay import burn_in
from ultrarefiner.data.phantom_scan import scan_image
from ultrarefiner.data.phantom_scene import Label, Scene
from ultrarefiner.data.rough import roughen_mask
from ultrarefiner.errors import ConfigError, OutputError

__all__ = ["Phantom", "PhantomConfig", "Scene", "draw_phantom", "render_scene", "write_phantoms"]

_PATIENT_STREAM, _IMAGE_STREAM, _ROUGH_STREAM = range(3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """One synthetic image with its truth.

    Attributes:
        image: grey levels.
        mask: union of all lesions, never empty, never touching the frame.
        spacing_mm: ``(dy, dx)`` [mm].
        patient: identifier, shared by ``images_per_patient`` consecutive images.
        label: diagnosis of the patient.
        scene: what was drawn; :func:`render_scene` gives the same image and mask again.
    """

    image: UInt8[np.ndarray, "H W"]
    mask: Bool[np.ndarray, "H W"]
    spacing_mm: tuple[float, float]
    patient: str
    label: Label
    scene: Scene


def draw_phantom(seed: int, index: int, config: PhantomConfig | None = None) -> Phantom:
    """Draw phantom number ``index`` of the endless series ``seed``.

    Args:
        seed: names the series, >= 0.
        index: number in it, >= 0; each can be drawn without the others.
        config: distribution of the series, default :class:`PhantomConfig`.

    Returns:
        The phantom; the same arguments give the same bytes.

    Raises:
        ConfigError: seed or index is negative.

    Example:
        >>> phantom = draw_phantom(seed=0, index=3)
        >>> phantom.image.shape == phantom.mask.shape, bool(phantom.mask.any())
        (True, True)
    """
    config = config or PhantomConfig()
    for name, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise ConfigError(name, expected="a value >= 0", found=str(value))
    number = index // config.images_per_patient
    malignant = _stream(seed, number, _PATIENT_STREAM).random() < config.malignant_probability
    label: Label = "malignant" if malignant else "benign"
    scene = draw_scene(_stream(seed, index, _IMAGE_STREAM), label, config)
    image, mask = render_scene(scene)
    return Phantom(
        image=image,
        mask=mask,
        spacing_mm=scene.spacing_mm,
        patient=f"phantom-{seed}-{number:04d}",
        label=label,
        scene=scene,
    )


def render_scene(scene: Scene) -> tuple[UInt8[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return image and mask of a scene; deterministic, the noise comes from the scene's seed."""
    echo_rng, scan_rng = np.random.default_rng(scene.noise_seed).spawn(2)
    masks = [lesion_mask(scene, lesion) for lesion in scene.lesions]
    image = scan_image(echo_map(scene, echo_rng), scene.scan, scene.spacing_mm, scan_rng)
    return burn_in(image, scene, masks), np.logical_or.reduce(masks)


def write_phantoms(
    num: int, seed: int, out_dir: Path, *, rough: bool = True, config: PhantomConfig | None = None
) -> Path:
    """Write the first ``num`` phantoms of a series as PNG files with a manifest.

    ``images/STEM.png``, ``masks/STEM.png`` (0 or 255), ``coarse/STEM.png`` (a mediocre mask, 0 or
    255) and ``manifest.csv`` with paths relative to it. The manifest is removed first and written
    last, so that where there is one, every file it names is complete.

    Args:
        num: how many, >= 1.
        seed: series to draw from, >= 0.
        out_dir: folder, made if missing; files of the same name are replaced.
        rough: write the coarse masks too.
        config: distribution of the series, default :class:`PhantomConfig`.

    Returns:
        Path of the manifest.

    Raises:
        ConfigError: num or seed is out of range.
        OutputError: a file cannot be written.
    """
    if num < 1:
        raise ConfigError("num", expected="a value >= 1", found=str(num))
    out_dir = Path(out_dir)
    manifest = out_dir / "manifest.csv"
    try:
        manifest.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write phantoms to {out_dir}", found=str(error)) from error
    records = [_write_one(seed, index, out_dir, rough, config) for index in range(num)]
    write_manifest(manifest, tuple(records))
    return manifest


def _stream(seed: int, number: int, stream: int) -> np.random.Generator:
    """Independent generators for independent purposes."""
    return np.random.default_rng([seed, number, stream])


def _write_one(
    seed: int, index: int, out_dir: Path, rough: bool, config: PhantomConfig | None
) -> Record:
    """Write the files of one phantom and return its manifest row."""
    phantom = draw_phantom(seed, index, config)
    name = f"phantom-{seed}-{index:04d}.png"
    _write_png(out_dir / "images" / name, phantom.image)
    _write_png(out_dir / "masks" / name, phantom.mask)
    if rough:
        coarse = roughen_mask(phantom.mask, _stream(seed, index, _ROUGH_STREAM))
        _write_png(out_dir / "coarse" / name, coarse)
    dy_mm, dx_mm = phantom.spacing_mm
    return Record(
        image=out_dir / "images" / name,
        mask=out_dir / "masks" / name,
        patient=phantom.patient,
        label=phantom.label,
        dataset="phantom",
        spacing_mm=(round(dy_mm, 6), round(dx_mm, 6)),
    )


def _write_png(path: Path, image: UInt8[np.ndarray, "H W"] | Bool[np.ndarray, "H W"]) -> None:
    """Write grey levels, or a mask as 0 and 255."""
    grey = image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
    done, encoded = cv2.imencode(".png", grey)
    assert done, "a uint8 image always encodes"
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())

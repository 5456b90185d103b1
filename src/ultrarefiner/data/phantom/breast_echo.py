"""A breast scene as a picture: tissue layers, lesions, and what sound suffers on its way."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.special import expit

from ultrarefiner.data.phantom.breast_scene import BreastScene, Lesion
from ultrarefiner.data.phantom.layers import stack_layers
from ultrarefiner.data.phantom.overlay import Target, burn_in
from ultrarefiner.data.phantom.scan import scan_image
from ultrarefiner.data.phantom.texture import axes_mm, beam_gain, blur_mm, noise

_POSTERIOR_FADE_MM = 22.0  # depth over which shadow or enhancement fades to 1 / e
_EDGE_FADE_MM = 10.0


def render_breast(
    scene: BreastScene,
) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Return image and label map (1: lesion) of a scene."""
    echo_rng, scan_rng = np.random.default_rng(scene.noise_seed).spawn(2)
    masks = [lesion_mask(scene, lesion) for lesion in scene.lesions]
    image = scan_image(echo_map(scene, echo_rng), scene.scan, scene.spacing_mm, scan_rng)
    targets = [
        Target(mask=mask, tilt_rad=lesion.tilt_rad)
        for mask, lesion in zip(masks, scene.lesions, strict=True)
    ]
    return burn_in(image, scene, targets), np.logical_or.reduce(masks).astype(np.uint8)


def lesion_mask(scene: BreastScene, lesion: Lesion) -> Bool[np.ndarray, "H W"]:
    """Return the pixels whose centre lies within the lesion's margin."""
    y_mm, x_mm = axes_mm(scene)
    x_mm, y_mm = x_mm - lesion.centre_xy_mm[0], y_mm - lesion.centre_xy_mm[1]
    cos, sin = np.cos(lesion.tilt_rad), np.sin(lesion.tilt_rad)
    u = (cos * x_mm + sin * y_mm) / lesion.semi_axes_mm[0]
    v = (cos * y_mm - sin * x_mm) / lesion.semi_axes_mm[1]
    radius = np.hypot(u, v)
    # The margin costs more than the rest of the picture, so it is followed only where it may run.
    inside: Bool[np.ndarray, "H W"] = radius <= lesion.largest_radius
    inside[inside] = radius[inside] <= lesion.relative_radius(np.arctan2(v[inside], u[inside]))
    return inside


def echo_map(scene: BreastScene, rng: np.random.Generator) -> Float32[np.ndarray, "H W"]:
    """Return the mean echo level of every pixel [dB, 0 = fibroglandular tissue].

    Args:
        scene: what to draw.
        rng: source of the tissue texture.

    Returns:
        Level after attenuation and gain, before speckle and compression.
    """
    tissue_rng, lesion_rng, beam_rng = rng.spawn(3)
    echo = stack_layers(scene, scene.layers, tissue_rng)
    path = beam_gain(scene, scene.scan, beam_rng)
    rngs = lesion_rng.spawn(len(scene.lesions))
    for lesion, inner_rng in zip(scene.lesions, rngs, strict=True):
        mask = lesion_mask(scene, lesion)
        soft = blur_mm(mask, lesion.margin_blur_mm, scene)
        echo = _insert(echo, scene, lesion, soft, inner_rng)
        path += _posterior(scene, lesion, soft) + _edge_shadows(scene, lesion, mask)
    level: Float32[np.ndarray, "H W"] = (echo + path).astype(np.float32)
    return level


def _insert(
    echo: Float[np.ndarray, "H W"],
    scene: BreastScene,
    lesion: Lesion,
    soft: Float32[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """Replace tissue by lesion, relative to the mean level of what surrounds it."""
    core = soft > 0.5 * soft.max()
    around = blur_mm(core, 2.0, scene) * ~core
    level_db = float(np.average(echo, weights=around)) - lesion.contrast_db
    inner = level_db + lesion.texture_db * noise(scene, (0.6, 1.0), rng)
    inner += 16.0 * _specks(scene, lesion, soft, rng)
    rim = lesion.rim_db * blur_mm(core, lesion.rim_mm, scene) * 2.0
    return soft * inner + (1.0 - soft) * (echo + rim)


def _specks(
    scene: BreastScene, lesion: Lesion, soft: Float32[np.ndarray, "H W"], rng: np.random.Generator
) -> Float32[np.ndarray, "H W"]:
    """Calcifications: points of height 1 inside the lesion, 0.1 mm wide."""
    points = np.zeros(scene.shape_hw, dtype=bool)
    inside = np.flatnonzero(soft > 0.8 * soft.max())
    if lesion.num_calcifications:
        points.flat[rng.choice(inside, lesion.num_calcifications)] = True
    specks = blur_mm(points, 0.1, scene)
    return specks / max(float(specks.max()), 1e-6)


def _posterior(
    scene: BreastScene, lesion: Lesion, soft: Float32[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Enhancement or shadow behind the lesion, in proportion to the path through it."""
    dy_mm, dx_mm = scene.spacing_mm
    path_mm = np.cumsum(soft, axis=0, dtype=np.float64) * dy_mm
    share = path_mm / path_mm.max()
    y_mm, _ = axes_mm(scene)
    below_mm = np.maximum(y_mm - lesion.centre_xy_mm[1], 0.0)
    share *= np.exp(-below_mm / _POSTERIOR_FADE_MM)
    # A beam is wider than a pixel, so the sides of the shadow are soft.
    share = cv2.GaussianBlur(share, (0, 0), sigmaX=0.7 / dx_mm, sigmaY=0.2 / dy_mm)
    behind: Float[np.ndarray, "H W"] = lesion.posterior_db * share * (1.0 - soft)
    return behind


def _edge_shadows(
    scene: BreastScene, lesion: Lesion, mask: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Thin dark stripes below the two points where a beam grazes the margin and is refracted."""
    y_mm, x_mm = axes_mm(scene)
    columns = np.flatnonzero(mask.any(axis=0))
    shadows: Float[np.ndarray, "H W"] = np.zeros(scene.shape_hw)
    for column in (columns[0], columns[-1]):
        below_mm = y_mm - y_mm[np.flatnonzero(mask[:, column]).mean().astype(int)]
        half_width_mm = 0.4 + 0.04 * np.maximum(below_mm, 0.0)
        across = np.exp(-(((x_mm - x_mm[0, column]) / half_width_mm) ** 2))
        fade = expit(below_mm / 0.5) * np.exp(-np.maximum(below_mm, 0.0) / _EDGE_FADE_MM)
        shadows -= lesion.edge_shadow_db * across * fade
    shadows[mask] = 0.0
    return shadows

"""Echo strength of a scene in dB: tissue layers, lesions, and what sound suffers on its way."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.special import expit

from ultrarefiner.data.phantom_scene import Layer, Lesion, Scene
from ultrarefiner.data.rough import smooth_noise

_INTERFACE_MM = 0.3  # width of the transition between two layers
_FASCIA_MM = 0.18  # half width of a bright interface
_FIBRE_PERIOD_MM = 1.3
_POSTERIOR_FADE_MM = 22.0  # depth over which shadow or enhancement fades to 1 / e
_EDGE_FADE_MM = 10.0


def lesion_mask(scene: Scene, lesion: Lesion) -> Bool[np.ndarray, "H W"]:
    """Return the pixels whose centre lies within the lesion's margin."""
    y_mm, x_mm = _axes_mm(scene)
    x_mm, y_mm = x_mm - lesion.centre_xy_mm[0], y_mm - lesion.centre_xy_mm[1]
    cos, sin = np.cos(lesion.tilt_rad), np.sin(lesion.tilt_rad)
    u = (cos * x_mm + sin * y_mm) / lesion.semi_axes_mm[0]
    v = (cos * y_mm - sin * x_mm) / lesion.semi_axes_mm[1]
    inside: Bool[np.ndarray, "H W"] = np.hypot(u, v) <= lesion.relative_radius(np.arctan2(v, u))
    return inside


def echo_map(scene: Scene, rng: np.random.Generator) -> Float32[np.ndarray, "H W"]:
    """Return the mean echo level of every pixel [dB, 0 = fibroglandular tissue].

    Args:
        scene: what to draw.
        rng: source of the tissue texture.

    Returns:
        Level after attenuation and gain, before speckle and compression.
    """
    tissue_rng, lesion_rng, beam_rng = rng.spawn(3)
    echo = _tissue(scene, tissue_rng)
    path = _beam_gain(scene, beam_rng)
    rngs = lesion_rng.spawn(len(scene.lesions))
    for lesion, inner_rng in zip(scene.lesions, rngs, strict=True):
        mask = lesion_mask(scene, lesion)
        soft = _blur_mm(mask, lesion.margin_blur_mm, scene)
        echo = _insert(echo, scene, lesion, soft, inner_rng)
        path += _posterior(scene, lesion, soft) + _edge_shadows(scene, lesion, mask)
    level: Float32[np.ndarray, "H W"] = (echo + path).astype(np.float32)
    return level


def _axes_mm(scene: Scene) -> tuple[Float[np.ndarray, "H 1"], Float[np.ndarray, "1 W"]]:
    """Depth of each row centre and lateral position of each column centre."""
    (height, width), (dy_mm, dx_mm) = scene.shape_hw, scene.spacing_mm
    return (np.arange(height)[:, None] + 0.5) * dy_mm, (np.arange(width)[None] + 0.5) * dx_mm


def _noise(
    scene: Scene, sigma_yx_mm: tuple[float, float], rng: np.random.Generator
) -> Float32[np.ndarray, "H W"]:
    """Smooth noise of unit variance, correlation length given along depth and across."""
    sigma_px = (sigma_yx_mm[0] / scene.spacing_mm[0], sigma_yx_mm[1] / scene.spacing_mm[1])
    return smooth_noise(scene.shape_hw, sigma_px, rng)


def _blur_mm(
    mask: Bool[np.ndarray, "H W"], sigma_mm: float, scene: Scene
) -> Float32[np.ndarray, "H W"]:
    dy_mm, dx_mm = scene.spacing_mm
    blurred: Float32[np.ndarray, "H W"] = cv2.GaussianBlur(
        mask.astype(np.float32), (0, 0), sigmaX=sigma_mm / dx_mm, sigmaY=sigma_mm / dy_mm
    )
    return blurred


def _tissue(scene: Scene, rng: np.random.Generator) -> Float[np.ndarray, "H W"]:
    """Stack the layers, each with its texture, between undulating interfaces."""
    y_mm, _ = _axes_mm(scene)
    echo = np.zeros(scene.shape_hw)
    above_mm = np.full((1, scene.shape_hw[1]), -10.0)
    for layer, layer_rng in zip(scene.layers, rng.spawn(len(scene.layers)), strict=True):
        wave_mm = layer.undulation_mm * _noise(scene, (6.0, 6.0), layer_rng)[:1]
        bottom_mm = np.maximum(layer.bottom_mm + wave_mm, above_mm + 0.2)
        share = expit((y_mm - above_mm) / _INTERFACE_MM) - expit((y_mm - bottom_mm) / _INTERFACE_MM)
        echo += share * _layer_echo(scene, layer, y_mm - above_mm, layer_rng)
        if layer.fascia_db:
            patchy = 1.0 + 0.5 * _noise(scene, (1.0, 3.0), layer_rng)
            echo += layer.fascia_db * patchy * np.exp(-(((y_mm - bottom_mm) / _FASCIA_MM) ** 2))
        above_mm = bottom_mm
    return echo


def _layer_echo(
    scene: Scene, layer: Layer, below_top_mm: Float[np.ndarray, "H W"], rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Mean level of a layer with coarse and fine texture, septa and fibres."""
    coarse, fine = _noise(scene, (1.5, 3.5), rng), _noise(scene, (0.35, 1.4), rng)
    echo: Float[np.ndarray, "H W"] = layer.echo_db + layer.texture_db * (0.8 * coarse + 0.6 * fine)
    if layer.septa_db:
        # The zero level of smooth noise is a net of smooth curves, as Cooper's ligaments are.
        septa = np.exp(-((_noise(scene, (1.1, 4.5), rng) / 0.13) ** 2))
        strength = np.clip(0.3 + 0.7 * _noise(scene, (1.5, 3.0), rng), 0.0, 1.4)
        echo += layer.septa_db * septa * strength
    if layer.fibre_db:
        phase = below_top_mm / _FIBRE_PERIOD_MM + 0.6 * _noise(scene, (1.5, 6.0), rng)
        fibres = np.maximum(np.cos(2 * np.pi * phase), 0.0) ** 4
        echo += layer.fibre_db * fibres * np.clip(_noise(scene, (0.8, 3.0), rng), 0.0, 1.5)
    return echo


def _insert(
    echo: Float[np.ndarray, "H W"],
    scene: Scene,
    lesion: Lesion,
    soft: Float32[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """Replace tissue by lesion, relative to the mean level of what surrounds it."""
    core = soft > 0.5 * soft.max()
    around = _blur_mm(core, 2.0, scene) * ~core
    level_db = float(np.average(echo, weights=around)) - lesion.contrast_db
    inner = level_db + lesion.texture_db * _noise(scene, (0.6, 1.0), rng)
    inner += 16.0 * _specks(scene, lesion, soft, rng)
    rim = lesion.rim_db * _blur_mm(core, lesion.rim_mm, scene) * 2.0
    return soft * inner + (1.0 - soft) * (echo + rim)


def _specks(
    scene: Scene, lesion: Lesion, soft: Float32[np.ndarray, "H W"], rng: np.random.Generator
) -> Float32[np.ndarray, "H W"]:
    """Calcifications: points of height 1 inside the lesion, 0.1 mm wide."""
    points = np.zeros(scene.shape_hw, dtype=bool)
    inside = np.flatnonzero(soft > 0.8 * soft.max())
    if lesion.num_calcifications:
        points.flat[rng.choice(inside, lesion.num_calcifications)] = True
    specks = _blur_mm(points, 0.1, scene)
    return specks / max(float(specks.max()), 1e-6)


def _posterior(
    scene: Scene, lesion: Lesion, soft: Float32[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Enhancement or shadow behind the lesion, in proportion to the path through it."""
    dy_mm, dx_mm = scene.spacing_mm
    path_mm = np.cumsum(soft, axis=0, dtype=np.float64) * dy_mm
    share = path_mm / path_mm.max()
    y_mm, _ = _axes_mm(scene)
    below_mm = np.maximum(y_mm - lesion.centre_xy_mm[1], 0.0)
    share *= np.exp(-below_mm / _POSTERIOR_FADE_MM)
    # A beam is wider than a pixel, so the sides of the shadow are soft.
    share = cv2.GaussianBlur(share, (0, 0), sigmaX=0.7 / dx_mm, sigmaY=0.2 / dy_mm)
    behind: Float[np.ndarray, "H W"] = lesion.posterior_db * share * (1.0 - soft)
    return behind


def _edge_shadows(
    scene: Scene, lesion: Lesion, mask: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Thin dark stripes below the two points where a beam grazes the margin and is refracted."""
    y_mm, x_mm = _axes_mm(scene)
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


def _beam_gain(scene: Scene, rng: np.random.Generator) -> Float[np.ndarray, "H W"]:
    """Residual attenuation, the focal zone's gain, and uneven beams that worsen with depth."""
    y_mm, _ = _axes_mm(scene)
    depth_mm = scene.extent_mm[0]
    focus = 2.0 * np.exp(-(((y_mm - scene.scan.focus_mm) / (0.25 * depth_mm)) ** 2))
    streaks = scene.scan.streak_db * _noise(scene, (3 * depth_mm, 1.5), rng) * y_mm / depth_mm
    beyond_mm = np.maximum(y_mm - scene.scan.focus_mm, 0.0)
    gain: Float[np.ndarray, "H W"] = focus - scene.scan.loss_db_per_mm * beyond_mm + streaks
    return gain

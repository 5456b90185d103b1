"""A shoulder scene as a picture: fibres that follow the tendon, bone that ends the sound."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy.special import expit

from ultrarefiner.data.phantom.layers import stack_layers
from ultrarefiner.data.phantom.msk_scene import MskScene
from ultrarefiner.data.phantom.msk_shape import (
    TEAR,
    TENDON,
    Surfaces,
    find_surfaces,
    height_in_tendon,
    label_map,
)
from ultrarefiner.data.phantom.overlay import Target, burn_in
from ultrarefiner.data.phantom.scan import scan_image
from ultrarefiner.data.phantom.texture import axes_mm, beam_gain, blur_mm, follow, noise

_EDGE_MM = 0.12  # width of the transition between two tissues
_CORTEX_MM = 0.22  # half width of the bright line of the bone
_BLOOM_MM = 0.7  # depth over which its afterglow fades to 1 / e
_FLAT = 0.35  # slope at which a surface returns little


def render_msk(scene: MskScene) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Return image and label map of a scene."""
    shape_rng, echo_rng, scan_rng = np.random.default_rng(scene.noise_seed).spawn(3)
    surfaces = find_surfaces(scene, shape_rng)
    classes = label_map(scene, surfaces)
    image = scan_image(
        echo_map(scene, surfaces, classes, rng=echo_rng), scene.scan, scene.spacing_mm, scan_rng
    )
    if scene.mirrored:
        image, classes = image[:, ::-1].copy(), classes[:, ::-1].copy()
    return burn_in(image, scene, [Target(mask=classes == TEAR, tilt_rad=0.0)]), classes


def echo_map(
    scene: MskScene,
    surfaces: Surfaces,
    classes: UInt8[np.ndarray, "H W"],
    *,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "H W"]:
    """Return the mean echo level of every pixel of the unmirrored frame [dB, 0 = tendon].

    Args:
        scene: what to draw.
        surfaces: where its tissues lie.
        classes: their label map.
        rng: source of the tissue texture.

    Returns:
        Level after attenuation and gain, before speckle and compression.
    """
    layer_rng, muscle_rng, tendon_rng, tear_rng, bone_rng, beam_rng = rng.spawn(6)
    y_mm, _ = axes_mm(scene)
    height = height_in_tendon(scene, surfaces)
    echo = stack_layers(scene, scene.layers, layer_rng)
    echo = _below(y_mm, surfaces.muscle, echo, _muscle(scene, surfaces, muscle_rng))
    echo = _below(y_mm, surfaces.bursa, echo, np.full(scene.shape_hw, -17.0))
    echo = _below(y_mm, surfaces.top, echo, _tendon(scene, surfaces, height, tendon_rng))
    echo = _below(y_mm, surfaces.bottom, echo, np.full(scene.shape_hw, -15.0))
    echo += _interfaces(scene, surfaces, tendon_rng)
    echo = _tear(scene, surfaces, classes, echo, tear_rng)
    echo = _bone(scene, surfaces, echo, bone_rng)
    level: Float32[np.ndarray, "H W"] = (echo + beam_gain(scene, scene.scan, beam_rng)).astype(
        np.float32
    )
    return level


def _below(
    y_mm: Float[np.ndarray, "H 1"],
    surface_mm: Float[np.ndarray, " W"],
    above: Float[np.ndarray, "H W"],
    below: Float[np.ndarray, "H W"],
) -> Float[np.ndarray, "H W"]:
    """Join two tissues at a surface."""
    share = expit((y_mm - surface_mm) / (0.5 * _EDGE_MM))
    joined: Float[np.ndarray, "H W"] = above + share * (below - above)
    return joined


def _line(
    y_mm: Float[np.ndarray, "H 1"], surface_mm: Float[np.ndarray, " W"], half_width_mm: float
) -> Float[np.ndarray, "H W"]:
    """A soft line of height 1 along a surface."""
    line: Float[np.ndarray, "H W"] = np.exp(-(((y_mm - surface_mm) / half_width_mm) ** 2))
    return line


def _muscle(
    scene: MskScene, surfaces: Surfaces, rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Dark fibres between bright broken streaks that run at a small angle to the fascia."""
    y_mm, _ = axes_mm(scene)
    dy_mm, _ = scene.spacing_mm
    muscle = scene.muscle
    coarse = noise(scene, (1.5, 4.0), rng)
    # Between the fascia above and the bursa below, streaks follow both by halves.
    course_mm = 0.5 * (surfaces.muscle + np.minimum(surfaces.bursa, surfaces.bursa.min() + 6.0))
    course_mm = course_mm + muscle.pennation * surfaces.x_mm
    course_mm = course_mm - course_mm.min()
    depth_px = (y_mm - course_mm + 0.4 * noise(scene, (3.0, 5.0), rng)) / dy_mm
    streaks = sum(
        np.clip(follow(noise(scene, (0.12, length), rng), depth_px) - 0.9, 0.0, 1.5)
        for length in (muscle.streak_mm, 0.4 * muscle.streak_mm)
    )
    echo: Float[np.ndarray, "H W"] = muscle.echo_db + 1.5 * coarse + muscle.streak_db * streaks
    return echo


def _tendon(
    scene: MskScene,
    surfaces: Surfaces,
    height: Float[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """Fibrillar texture along the tendon, darker where the fibres turn away from the beam."""
    dy_mm, _ = scene.spacing_mm
    tendon = scene.tendon
    depth_px = (1.0 - np.clip(height, 0.0, 1.0)) * tendon.thickness_mm / dy_mm
    fine = follow(noise(scene, (tendon.fibre_mm, 2.2), rng), depth_px)
    bundle = follow(noise(scene, (2.0 * tendon.fibre_mm, 4.5), rng), depth_px)
    patchy = noise(scene, (1.2, 2.5), rng)
    slope = surfaces.slope * np.clip(1.0 - 0.5 * np.clip(height, 0.0, 1.0), 0.0, 1.0)
    loss = tendon.anisotropy_db * (1.0 - np.exp(-((slope / 0.5) ** 2)))
    fibres = tendon.fibre_db * (0.8 * fine + 0.6 * bundle)
    echo: Float[np.ndarray, "H W"] = 0.8 * patchy + fibres - loss
    return echo


def _interfaces(
    scene: MskScene, surfaces: Surfaces, rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Bright fat above the bursa, the tendon's own surface, the fascia of the deltoid."""
    y_mm, _ = axes_mm(scene)
    patchy = np.clip(1.0 + 0.45 * noise(scene, (1.0, 2.0), rng), 0.2, 1.6)
    flat = np.exp(-((surfaces.slope / 0.9) ** 2))
    fat = scene.tendon.bursa_db * (0.4 + 0.6 * flat) * _line(y_mm, surfaces.bursa - 0.25, 0.4)
    skin = 5.0 * _line(y_mm, surfaces.top, 0.15) * flat
    fascia = 11.0 * _line(y_mm, surfaces.muscle, 0.22)
    lines: Float[np.ndarray, "H W"] = patchy * (1.6 * fat + skin + fascia)
    return lines


def _tear(
    scene: MskScene,
    surfaces: Surfaces,
    classes: UInt8[np.ndarray, "H W"],
    echo: Float[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """Replace tendon by fluid and debris; where it opens to the joint, cartilage lights up."""
    tear = scene.tear
    mask = classes == TEAR
    around = blur_mm(mask, 1.5, scene) * (classes == TENDON) + 1e-9
    level_db = float(np.average(echo, weights=around)) - tear.contrast_db
    soft = blur_mm(mask, tear.margin_blur_mm, scene)
    debris = tear.texture_db * noise(scene, (0.4, 0.8), rng)
    torn = soft * (debris + level_db) + (1.0 - soft) * echo
    y_mm, _ = axes_mm(scene)
    opened = mask[np.clip(_rows(scene, surfaces.bottom) - 2, 0, None), np.arange(mask.shape[1])]
    bright = 9.0 * opened * _line(y_mm, surfaces.bottom, 0.15)
    joined: Float[np.ndarray, "H W"] = torn + bright
    return joined


def _bone(
    scene: MskScene,
    surfaces: Surfaces,
    echo: Float[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """A bright cortex where the beam meets it squarely, and darkness with a faint haze below."""
    y_mm, _ = axes_mm(scene)
    bone = scene.bone
    below_mm = np.maximum(y_mm - surfaces.bone, 0.0)
    haze = bone.shadow_db + 3.0 * noise(scene, (4.0, 1.5), rng) - 0.4 * below_mm
    echo = _below(y_mm, surfaces.bone, echo, haze)
    facing = np.exp(-((surfaces.slope / _FLAT) ** 2) / 4.0)
    uneven = np.clip(1.0 + 0.15 * noise(scene, (9.0, 1.5), rng)[0], 0.5, 1.3)
    peak_db = (bone.echo_db * (0.25 + 0.75 * facing) * uneven).astype(np.float64)
    glow = np.where(
        y_mm < surfaces.bone,
        _line(y_mm, surfaces.bone, _CORTEX_MM),
        np.maximum(np.exp(-below_mm / _BLOOM_MM), _line(y_mm, surfaces.bone, _CORTEX_MM)),
    )
    # In amplitude, so that the line stands on whatever level lies around it.
    amplitude = 10.0 ** (echo / 20.0) + 10.0 ** (peak_db / 20.0) * glow**3
    level: Float[np.ndarray, "H W"] = 20.0 * np.log10(amplitude)
    return level


def _rows(scene: MskScene, depth_mm: Float[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Row index of a depth in each column."""
    rows = (depth_mm / scene.spacing_mm[0]).astype(int)
    inside: Int[np.ndarray, " W"] = np.clip(rows, 0, scene.shape_hw[0] - 1)
    return inside

"""A fetal head as a picture: drawn along the beams of a convex probe, then laid into the frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.special import expit

from ultrarefiner.data.phantom.head_scene import Brain, HeadScene, Sector, Skull
from ultrarefiner.data.phantom.layers import stack_layers
from ultrarefiner.data.phantom.overlay import Target, burn_in
from ultrarefiner.data.phantom.scan import scan_image
from ultrarefiner.data.phantom.scene import Grid
from ultrarefiner.data.phantom.texture import axes_mm, beam_gain, noise

_BEAM = 0.05  # standard deviation of a beam's width, as a share of half the head's height
_FALX_MM = 0.5  # half width of the midline echo
_SOFT_MM = 0.4  # width of the transition between two tissues
_MEMBRANE_MM = 0.7  # half width of the bright line around the fluid
_PLACENTA_MM = 22.0  # thickness of the placenta beyond the fluid


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where points lie against the skull.

    Attributes:
        u: along its long axis, as a share of the semi-axis.
        v: along its short axis, likewise.
        outside_mm: signed distance from its outer border, < 0 inside [mm].
        normal_xy: outward normal of the ellipse through each point.
    """

    u: Float[np.ndarray, "H W"]
    v: Float[np.ndarray, "H W"]
    outside_mm: Float[np.ndarray, "H W"]
    normal_xy: tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]


def render_head(scene: HeadScene) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Return image and label map (1: head, out to the outer border of the skull) of a scene."""
    echo_rng, scan_rng = np.random.default_rng(scene.noise_seed).spawn(2)
    grid = beam_grid(scene)
    beams = scan_image(echo_map(scene, grid, echo_rng), scene.scan, grid.spacing_mm, scan_rng)
    image = convert_scan(beams, scene)
    mask = head_mask(scene)
    target = Target(mask=mask, tilt_rad=scene.skull.tilt_rad)
    return burn_in(image, scene, [target]), mask.astype(np.uint8)


def head_mask(scene: HeadScene) -> Bool[np.ndarray, "H W"]:
    """Return the pixels whose centre lies within the outer border of the skull."""
    y_mm, x_mm = axes_mm(scene)
    u, v = _along_axes(scene.skull, x_mm, y_mm)
    inside: Bool[np.ndarray, "H W"] = np.hypot(u, v) <= 1.0
    return inside


def beam_grid(scene: HeadScene) -> Grid:
    """Return the grid of samples along the beams: rows of one depth, columns of one direction.

    Its lateral spacing is that at the focus; above it samples lie closer, below it further apart.
    """
    step_mm, sector = scene.spacing_mm[0], scene.sector
    at_focus_mm = sector.radius_mm + scene.scan.focus_mm
    num_samples = int(np.ceil(sector.depth_mm / step_mm))
    num_beams = int(np.ceil(2.0 * sector.half_angle_rad * at_focus_mm / step_mm))
    return Grid(
        shape_hw=(num_samples, num_beams),
        spacing_mm=(
            sector.depth_mm / num_samples,
            2.0 * sector.half_angle_rad * at_focus_mm / num_beams,
        ),
    )


def convert_scan(
    beams: UInt8[np.ndarray, "samples beams"], scene: HeadScene
) -> UInt8[np.ndarray, "H W"]:
    """Lay samples along beams into the frame; outside the sector it is black."""
    sector = scene.sector
    y_mm, x_mm = axes_mm(scene)
    from_x, from_y = x_mm - sector.centre_xy_mm[0], y_mm - sector.centre_xy_mm[1]
    depth = (np.hypot(from_x, from_y) - sector.radius_mm) / sector.depth_mm
    across = 0.5 + 0.5 * np.arctan2(from_x, from_y) / sector.half_angle_rad
    num_samples, num_beams = beams.shape
    rows = (depth * num_samples - 0.5).astype(np.float32)
    columns = (across * num_beams - 0.5).astype(np.float32)
    image: UInt8[np.ndarray, "H W"] = cv2.remap(
        beams, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    image[(depth < 0) | (depth > 1) | (across < 0) | (across > 1)] = 0
    return image


def echo_map(
    scene: HeadScene, grid: Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "samples beams"]:
    """Return the mean echo level of every sample [dB, 0 = tissue of the womb].

    Args:
        scene: what to draw.
        grid: samples along the beams, see :func:`beam_grid`.
        rng: source of the tissue texture.

    Returns:
        Level after attenuation and gain, before speckle and compression.
    """
    womb_rng, brain_rng, skull_rng, beam_rng = rng.spawn(4)
    skull = scene.skull
    x_mm, y_mm, angle = _beam_points(grid, scene.sector)
    place = _place(skull, x_mm, y_mm)
    echo = _womb(scene, grid, place, womb_rng)
    inside = expit(-place.outside_mm / _SOFT_MM)
    echo += inside * (_brain(scene.brain, skull, grid, place, brain_rng) - echo)
    normal_x, normal_y = place.normal_xy
    facing = np.abs(normal_x * np.sin(angle) + normal_y * np.cos(angle))
    depth_in_bone = (place.outside_mm + 0.5 * skull.thickness_mm) / (0.5 * skull.thickness_mm)
    bone = np.exp(-(depth_in_bone**2))
    peak_db = skull.echo_db - skull.dropout_db * (1.0 - facing**2) ** 0.8
    peak_db = peak_db + skull.patch_db * noise(grid, (5.0, 5.0), skull_rng)
    # In amplitude, so that the line stands on whatever level lies around it.
    level = 20.0 * np.log10(10.0 ** (echo / 20.0) + bone**2 * 10.0 ** (peak_db / 20.0))
    loss = _loss(skull, grid, bone)
    gain = beam_gain(grid, scene.scan, beam_rng)
    total: Float32[np.ndarray, "samples beams"] = (level - loss + gain).astype(np.float32)
    return total


def _loss(skull: Skull, grid: Grid, bone: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """What the bone above each sample has taken [dB]: most where a beam grazes the skull."""
    dy_mm, dx_mm = grid.spacing_mm
    passed_mm = (np.cumsum(bone, axis=0) - bone) * dy_mm
    # A beam is wider than a sample, so the sides of the shadow are soft.
    sigma_px = _BEAM * skull.semi_axes_mm[1] / dx_mm
    wide_mm = cv2.GaussianBlur(passed_mm, (0, 0), sigmaX=sigma_px, sigmaY=0.2 / dy_mm)
    loss: Float[np.ndarray, "H W"] = skull.loss_db_per_mm * wide_mm
    return loss


def _beam_points(
    grid: Grid, sector: Sector
) -> tuple[
    Float[np.ndarray, "samples beams"],
    Float[np.ndarray, "samples beams"],
    Float[np.ndarray, "1 beams"],
]:
    """Lateral position and depth in the frame of each sample [mm], direction of each beam [rad]."""
    depth_mm, _ = axes_mm(grid)
    num_beams = grid.shape_hw[1]
    share = (np.arange(num_beams)[None] + 0.5) / num_beams
    angle = (2.0 * share - 1.0) * sector.half_angle_rad
    range_mm = sector.radius_mm + depth_mm
    x_mm = sector.centre_xy_mm[0] + range_mm * np.sin(angle)
    y_mm = sector.centre_xy_mm[1] + range_mm * np.cos(angle)
    return x_mm, y_mm, angle


def _along_axes(
    skull: Skull, x_mm: Float[np.ndarray, "..."], y_mm: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Positions along the two axes of the skull, as shares of the semi-axes."""
    x_mm, y_mm = x_mm - skull.centre_xy_mm[0], y_mm - skull.centre_xy_mm[1]
    cos, sin = np.cos(skull.tilt_rad), np.sin(skull.tilt_rad)
    a_mm, b_mm = skull.semi_axes_mm
    return (cos * x_mm + sin * y_mm) / a_mm, (cos * y_mm - sin * x_mm) / b_mm


def _place(skull: Skull, x_mm: Float[np.ndarray, "H W"], y_mm: Float[np.ndarray, "H W"]) -> Place:
    """Distance to first order: how far the relative radius is from 1, over its gradient."""
    u, v = _along_axes(skull, x_mm, y_mm)
    a_mm, b_mm = skull.semi_axes_mm
    radius = np.maximum(np.hypot(u, v), 1e-6)
    along_u, along_v = u / (a_mm * radius), v / (b_mm * radius)
    gradient = np.maximum(np.hypot(along_u, along_v), 1e-6)
    cos, sin = np.cos(skull.tilt_rad), np.sin(skull.tilt_rad)
    normal_xy = (
        (cos * along_u - sin * along_v) / gradient,
        (sin * along_u + cos * along_v) / gradient,
    )
    return Place(u=u, v=v, outside_mm=(radius - 1.0) / gradient, normal_xy=normal_xy)


def _womb(
    scene: HeadScene, grid: Grid, place: Place, rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Abdominal wall, womb, placenta, and fluid in pockets about the scalp."""
    womb = scene.womb
    echo = stack_layers(grid, womb.layers, rng)
    normal_x, normal_y = place.normal_xy
    towards = normal_x * np.cos(womb.fluid_towards_rad) + normal_y * np.sin(womb.fluid_towards_rad)
    waves = noise(grid, (9.0, 14.0), rng)
    width_mm = womb.fluid_mm + womb.fluid_shift_mm * towards + womb.fluid_waves_mm * waves
    beyond_mm = place.outside_mm - womb.scalp_mm - width_mm
    if womb.placenta_side:
        side = expit((womb.placenta_side * place.v - 0.5) / 0.12)
        share = side * expit((_PLACENTA_MM - beyond_mm) / 2.0) * expit(beyond_mm / _SOFT_MM)
        granular = womb.placenta_db + 1.2 * noise(grid, (0.8, 1.2), rng)
        echo += share * (granular - echo)
    pocket = expit(-beyond_mm / _SOFT_MM) * expit((place.outside_mm - womb.scalp_mm) / _SOFT_MM)
    clutter = womb.fluid_db + 2.0 * noise(grid, (3.0, 6.0), rng)
    echo += pocket * (clutter - echo)
    membrane = np.exp(-((beyond_mm / _MEMBRANE_MM) ** 2)) * (place.outside_mm > 0)
    echo += 7.0 * membrane * np.abs(normal_y) * expit(width_mm)
    return echo


def _brain(
    brain: Brain, skull: Skull, grid: Grid, place: Place, rng: np.random.Generator
) -> Float[np.ndarray, "H W"]:
    """Dark tissue with haze below the near wall, and the landmarks of the standard plane."""
    a_mm, b_mm = skull.semi_axes_mm
    u, v = brain.facing * place.u, place.v
    # The far hemisphere shows what the near one hides.
    clear = 0.35 + 0.65 * expit(v / 0.15)
    echo = brain.echo_db + 1.5 * noise(grid, (3.0, 4.0), rng) + 1.0 * noise(grid, (0.8, 1.4), rng)
    echo += brain.haze_db * np.exp(-(v + 1.0) / 0.45)
    for side, share in ((-1.0, 0.6), (1.0, 1.0)):
        thalamus = np.hypot((u + 0.02) / 0.24, (v - 0.19 * side) / 0.17)
        echo += share * brain.thalamus_db * expit((1.0 - thalamus) / 0.08)
    folds = np.exp(-((noise(grid, (2.2, 4.0), rng) / 0.16) ** 2))
    under = np.exp(-(((place.outside_mm + 0.2 * b_mm) / (0.12 * b_mm)) ** 2))
    echo += brain.gyri_db * clear * folds * under
    echo = _choroid(brain, grid, (u, v), clear, echo, rng)
    bend = 0.015 * np.sin(3.0 * u)
    insula = np.abs(v - 0.66 - 0.25 * (u - 0.15) ** 2) * b_mm
    echo += 8.0 * np.exp(-((insula / 0.9) ** 2)) * _between(u, -0.12, 0.42)
    return _midline(brain, (a_mm, b_mm), (u, v - bend), grid, echo, rng)


def _choroid(
    brain: Brain,
    grid: Grid,
    uv: tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]],
    clear: Float[np.ndarray, "H W"],
    echo: Float[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """A bright plexus inside the dark posterior horn, on either side of the midline."""
    u, v = uv
    half_u, half_v = brain.choroid_half_uv
    for side in (-1.0, 1.0):
        from_u = u - brain.choroid_uv[0]
        from_v = side * v - brain.choroid_uv[1] + 0.3 * from_u
        horn = np.hypot((from_u + 0.06) / (1.45 * half_u), from_v / (1.5 * half_v))
        plexus = np.hypot(from_u / half_u, from_v / half_v)
        wall = np.exp(-(((horn - 1.0) / 0.10) ** 2))
        echo = echo - 7.0 * clear * expit((1.0 - horn) / 0.06) + 7.0 * clear * wall
        grain = 7.0 + brain.choroid_db + 1.5 * noise(grid, (0.7, 1.0), rng)
        echo = echo + clear * grain * expit((1.0 - plexus) / 0.1)
    return echo


def _midline(
    brain: Brain,
    semi_axes_mm: tuple[float, float],
    uv: tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]],
    grid: Grid,
    echo: Float[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
    """The falx, interrupted by the box of the cavum and fainter between the thalami."""
    u, v = uv
    _, b_mm = semi_axes_mm
    half_u, half_v = brain.cavum_half_uv
    patchy = np.clip(1.0 + 0.5 * noise(grid, (3.0, 5.0), rng), 0.2, 1.5)
    box = _between(u, brain.cavum_u - half_u, brain.cavum_u + half_u)
    falx = np.exp(-((v * b_mm / _FALX_MM) ** 2)) * _between(u, -0.9, 0.9) * (1.0 - box)
    falx *= 1.0 - 0.6 * _between(u, -0.22, 0.2)
    walls = np.exp(-(((np.abs(v) - half_v) * b_mm / _FALX_MM) ** 2)) * box
    fluid = box * expit((half_v - np.abs(v)) * b_mm / 0.3)
    drawn: Float[np.ndarray, "H W"] = (
        echo + 1.4 * brain.midline_db * patchy * np.maximum(falx, walls) - 9.0 * fluid
    )
    return drawn


def _between(value: Float[np.ndarray, "H W"], low: float, high: float) -> Float[np.ndarray, "H W"]:
    """A soft window, 1 between its ends."""
    window: Float[np.ndarray, "H W"] = expit((value - low) / 0.02) * expit((high - value) / 0.02)
    return window

"""Textures and gains that all tissue shares, on the grid of a picture."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from ultrarefiner.data.phantom.scene import Grid, Scan
from ultrarefiner.data.rough import smooth_noise


def axes_mm(grid: Grid) -> tuple[Float[np.ndarray, "H 1"], Float[np.ndarray, "1 W"]]:
    """Return the depth of each row centre and the lateral position of each column centre [mm]."""
    (height, width), (dy_mm, dx_mm) = grid.shape_hw, grid.spacing_mm
    return (np.arange(height)[:, None] + 0.5) * dy_mm, (np.arange(width)[None] + 0.5) * dx_mm


def noise(
    grid: Grid, sigma_yx_mm: tuple[float, float], rng: np.random.Generator
) -> Float32[np.ndarray, "H W"]:
    """Return smooth noise of unit variance.

    Args:
        grid: where it is sampled.
        sigma_yx_mm: correlation length along depth and across [mm].
        rng: source of all randomness.
    """
    sigma_px = (sigma_yx_mm[0] / grid.spacing_mm[0], sigma_yx_mm[1] / grid.spacing_mm[1])
    return smooth_noise(grid.shape_hw, sigma_px, rng)


def blur_mm(
    mask: Bool[np.ndarray, "H W"], sigma_mm: float, grid: Grid
) -> Float32[np.ndarray, "H W"]:
    """Return a mask blurred by a Gaussian of that standard deviation [mm], in [0, 1]."""
    dy_mm, dx_mm = grid.spacing_mm
    blurred: Float32[np.ndarray, "H W"] = cv2.GaussianBlur(
        mask.astype(np.float32), (0, 0), sigmaX=sigma_mm / dx_mm, sigmaY=sigma_mm / dy_mm
    )
    return blurred


def follow(
    texture: Float32[np.ndarray, "D W"],
    depth_px: Float[np.ndarray, "H W"],
    shift_px: float = 0.0,
) -> Float32[np.ndarray, "H W"]:
    """Return a flat texture bent along curves.

    Args:
        texture: rows of depth below a curve.
        depth_px: for each pixel, the row of ``texture`` to take in its column [px].
        shift_px: columns by which the texture is moved to the left.

    Returns:
        Texture in which what was one row now follows one level of ``depth_px``.
    """
    columns = np.arange(depth_px.shape[1], dtype=np.float32)[None] + np.float32(shift_px)
    bent: Float32[np.ndarray, "H W"] = cv2.remap(
        texture,
        np.broadcast_to(columns, depth_px.shape).copy(),
        depth_px.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return bent


def beam_gain(grid: Grid, scan: Scan, rng: np.random.Generator) -> Float[np.ndarray, "H W"]:
    """Return residual attenuation, focal gain, and uneven beams that worsen with depth [dB]."""
    y_mm, _ = axes_mm(grid)
    depth_mm = grid.extent_mm[0]
    focus = 2.0 * np.exp(-(((y_mm - scan.focus_mm) / (0.25 * depth_mm)) ** 2))
    streaks = scan.streak_db * noise(grid, (3 * depth_mm, 1.5), rng) * y_mm / depth_mm
    beyond_mm = np.maximum(y_mm - scan.focus_mm, 0.0)
    gain: Float[np.ndarray, "H W"] = focus - scan.loss_db_per_mm * beyond_mm + streaks
    return gain

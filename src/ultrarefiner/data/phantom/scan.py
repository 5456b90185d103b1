"""Image formation: from echo levels to speckle, envelope and grey levels."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Complex64, Float, Float32, UInt8

from ultrarefiner.data.phantom.scene import Scan

_DEFOCUS = 1.8  # lateral width far from the focus over that at the focus


def scan_image(
    echo_db: Float32[np.ndarray, "H W"],
    scan: Scan,
    spacing_mm: tuple[float, float],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "H W"]:
    """Return the B-mode picture of an echo map: compounded envelope, logarithm, grey levels.

    Args:
        echo_db: mean echo level [dB].
        scan: scanner settings.
        spacing_mm: ``(dy, dx)`` [mm].
        rng: source of the speckle.

    Returns:
        Grey levels; 0 dB is ``scan.tissue_grey``, and the dynamic range spans 255 levels.
    """
    looks = [envelope(echo_db, scan, spacing_mm, rng) for _ in range(scan.num_looks)]
    level_db = 20.0 * np.log10(np.mean(looks, axis=0) + 1e-6)
    grey = scan.tissue_grey + 255.0 / scan.dynamic_range_db * level_db
    image: UInt8[np.ndarray, "H W"] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return image


def envelope(
    echo_db: Float32[np.ndarray, "H W"],
    scan: Scan,
    spacing_mm: tuple[float, float],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "H W"]:
    r"""Return one look's envelope, fully developed speckle of unit mean square at 0 dB.

    .. math:: e = \left| h * (10^{E / 20}\, s) + n \right|, \quad s \sim \mathcal{CN}(0, 1)

    with point spread function h, scatterers s, and electronic noise n. Where E is constant, e is
    Rayleigh distributed: mean over standard deviation is :math:`\sqrt{\pi / (4 - \pi)} = 1.91`.

    Args:
        echo_db: mean echo level E [dB].
        scan: scanner settings.
        spacing_mm: ``(dy, dx)`` [mm].
        rng: source of scatterers and noise.

    Returns:
        Amplitude before log compression, >= 0.

    Reference:
        Wagner et al., Statistics of Speckle in Ultrasound B-Scans, IEEE Trans. Sonics Ultrason.
        30(3), 1983.
    """
    scatterers = _circular_noise(echo_db.shape, rng) * 10.0 ** (echo_db / 20.0)
    field = _focused(scatterers.astype(np.complex64), scan, spacing_mm)
    noise = _circular_noise(echo_db.shape, rng) * 10.0 ** (scan.noise_db / 20.0)
    amplitude: Float32[np.ndarray, "H W"] = np.abs(field + noise).astype(np.float32)
    return amplitude


def _circular_noise(
    shape: tuple[int, ...], rng: np.random.Generator
) -> Complex64[np.ndarray, "H W"]:
    """Complex Gaussian noise of unit mean square."""
    parts = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return parts.view(np.complex64)[..., 0]


def _focused(
    scatterers: Complex64[np.ndarray, "H W"], scan: Scan, spacing_mm: tuple[float, float]
) -> Complex64[np.ndarray, "H W"]:
    """Convolve with a point spread function that widens laterally away from the focus.

    A weighted sum of a narrow and a wide Gaussian; dividing by the norm of that sum keeps the mean
    square of white scatterers at every depth.
    """
    dy_mm, dx_mm = spacing_mm
    axial_px, narrow_px = scan.axial_mm / dy_mm, scan.lateral_mm / dx_mm
    wide_px = _DEFOCUS * narrow_px
    depth_mm = (np.arange(scatterers.shape[0])[:, None] + 0.5) * dy_mm
    wide = 1.0 - np.exp(-(((depth_mm - scan.focus_mm) / (0.75 * scan.focus_mm + 1.0)) ** 2))
    down = _kernel(axial_px, reach_px=3.0 * axial_px)
    near, far = (_kernel(sigma_px, reach_px=3.0 * wide_px) for sigma_px in (narrow_px, wide_px))
    field = (1.0 - wide) * _convolve(scatterers, near, down)
    field += wide * _convolve(scatterers, far, down)
    across = (1.0 - wide) * near[None] + wide * far[None]
    norm = np.sqrt((across**2).sum(axis=1, keepdims=True) * (down**2).sum())
    focused: Complex64[np.ndarray, "H W"] = (field / norm).astype(np.complex64)
    return focused


def _kernel(sigma_px: float, reach_px: float) -> Float[np.ndarray, " K"]:
    """Sampled Gaussian of unit sum, odd length."""
    offset = np.arange(-np.ceil(reach_px), np.ceil(reach_px) + 1.0)
    weights: Float[np.ndarray, " K"] = np.exp(-0.5 * (offset / sigma_px) ** 2)
    weights /= weights.sum()
    return weights


def _convolve(
    field: Complex64[np.ndarray, "H W"],
    across: Float[np.ndarray, " A"],
    down: Float[np.ndarray, " D"],
) -> Complex64[np.ndarray, "H W"]:
    parts = np.ascontiguousarray(field).view(np.float32).reshape(*field.shape, 2)
    blurred: Float32[np.ndarray, "H W 2"] = cv2.sepFilter2D(
        parts, -1, across, down, borderType=cv2.BORDER_REFLECT
    )
    return blurred.view(np.complex64)[..., 0]

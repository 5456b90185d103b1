"""Random variations of a training image: drawn as numbers, then applied by a pure function.

Shape (flip, rotation, scale, shift, elastic deformation) is one map of coordinates, so that image
and truth are resampled once and together. Grey levels (gamma, contrast, brightness, speckle,
low resolution) change the image alone. Source: UltraRefiner 4.1.2; speckle as in
log-compressed B-mode, where multiplicative noise has a grain of more than one px.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Float, Float32

from ultrarefiner.errors import ConfigError

_ELASTIC_KNOTS = 6


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Ranges that variations are drawn from, all symmetric about no change; 0 switches one off.

    Attributes:
        flip_probability: of mirroring left to right.
        rotation_deg: largest rotation either way [degrees].
        log_scale: largest change of the natural logarithm of the scale.
        log_aspect: the same of width against height.
        shift: largest shift, as a share of the image's sides.
        elastic_probability: of an elastic deformation.
        elastic_share: its standard deviation, as a share of the frame's side.
        log_gamma: largest change of the logarithm of gamma.
        contrast: largest relative change of contrast.
        brightness: largest change of grey level, of 1.
        speckle_probability: of added speckle.
        speckle: its largest relative standard deviation.
        blur_probability: of a loss of resolution.
        blur_px: its largest standard deviation [px of the frame].
    """

    flip_probability: float = 0.5
    rotation_deg: float = 20.0
    log_scale: float = 0.25
    log_aspect: float = 0.1
    shift: float = 0.08
    elastic_probability: float = 0.5
    elastic_share: float = 0.016
    log_gamma: float = 0.4
    contrast: float = 0.2
    brightness: float = 0.08
    speckle_probability: float = 0.3
    speckle: float = 0.2
    blur_probability: float = 0.1
    blur_px: float = 1.2

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            highest = 1.0 if item.name.endswith("probability") else float("inf")
            if not 0 <= value <= highest:
                raise ConfigError(
                    f"augmentation {item.name}",
                    expected=">= 0" if highest > 1 else "0 to 1",
                    found=str(value),
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmentation:
    """One variation.

    Attributes:
        matrix: ``2 2`` map of offsets from the content's centre, varied to original.
        shift_xy: shift, as a share of the content's sides.
        knots_xy: ``K K 2`` elastic displacements, as a share of the frame's side; ``None`` if none.
        gamma: exponent of the grey levels.
        contrast: factor of them, applied after gamma.
        brightness: added to them, applied after contrast.
        speckle: relative standard deviation of the multiplicative noise.
        grain_px: standard deviation of its grain [px].
        blur_px: standard deviation of the blur [px]; 0 for none.
        noise_seed: of the speckle.
    """

    matrix: Float[np.ndarray, "2 2"]
    shift_xy: tuple[float, float]
    knots_xy: Float32[np.ndarray, "K K 2"] | None
    gamma: float
    contrast: float
    brightness: float
    speckle: float
    grain_px: float
    blur_px: float
    noise_seed: int


def draw_augmentation(rng: np.random.Generator, config: AugmentationConfig) -> Augmentation:
    """Draw a variation; every call takes the same number of draws, whatever is switched off."""
    angle = np.deg2rad(rng.uniform(-1, 1) * config.rotation_deg)
    scale = np.exp(rng.uniform(-1, 1) * config.log_scale)
    aspect = np.exp(rng.uniform(-1, 1) * config.log_aspect / 2)
    mirror = -1.0 if rng.random() < config.flip_probability else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift_x, shift_y = (float(value) for value in rng.uniform(-1, 1, 2) * config.shift)
    is_elastic = rng.random() < config.elastic_probability and config.elastic_share > 0
    knots = rng.normal(0, config.elastic_share, (_ELASTIC_KNOTS, _ELASTIC_KNOTS, 2))
    gamma, contrast, brightness = rng.uniform(-1, 1, 3)
    has_speckle, has_blur = rng.random(2) < (config.speckle_probability, config.blur_probability)
    speckle, grain, blur = rng.random(3)
    return Augmentation(
        matrix=rotation @ np.diag([mirror * scale * aspect, scale / aspect]),
        shift_xy=(shift_x, shift_y),
        knots_xy=knots.astype(np.float32) if is_elastic else None,
        gamma=float(np.exp(gamma * config.log_gamma)),
        contrast=float(1 + contrast * config.contrast),
        brightness=float(brightness * config.brightness),
        speckle=float(speckle * config.speckle) if has_speckle else 0.0,
        grain_px=float(0.5 + grain),
        blur_px=float(blur * config.blur_px) if has_blur else 0.0,
        noise_seed=int(rng.integers(2**32)),
    )


def vary_shape(
    maps: Float32[np.ndarray, "side side *channels"],
    augmentation: Augmentation,
    content_hw: tuple[int, int],
) -> Float32[np.ndarray, "side side *channels"]:
    """Return maps on a letterboxed frame, moved and deformed about the centre of their content.

    What comes from outside the frame is 0. Bilinear: shares stay shares.
    """
    columns, rows = _sources_px(augmentation, maps.shape[0], content_hw)
    moved: Float32[np.ndarray, "side side *channels"] = cv2.remap(
        maps, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return moved


def vary_grey(
    image: Float32[np.ndarray, "side side"], augmentation: Augmentation
) -> Float32[np.ndarray, "side side"]:
    """Return the image with other grey levels, in [0, 1]; black (and padding) need not stay 0."""
    grey = np.power(image, np.float32(augmentation.gamma))
    if augmentation.blur_px > 0:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), augmentation.blur_px), np.float32)
    if augmentation.speckle > 0:
        noise = np.random.default_rng(augmentation.noise_seed).standard_normal(
            image.shape, dtype=np.float32
        )
        grain = np.asarray(cv2.GaussianBlur(noise, (0, 0), augmentation.grain_px))
        grey = grey * (1 + np.float32(augmentation.speckle) * grain / grain.std())
    grey = grey * np.float32(augmentation.contrast) + np.float32(augmentation.brightness)
    clipped: Float32[np.ndarray, "side side"] = np.clip(grey, 0, 1)
    return clipped


def _sources_px(
    augmentation: Augmentation, side: int, content_hw: tuple[int, int]
) -> tuple[Float32[np.ndarray, "side side"], Float32[np.ndarray, "side side"]]:
    """Return the column and row that each px of the varied frame comes from, as indices."""
    centre_xy = np.array([content_hw[1], content_hw[0]]) / 2
    offset_xy = centre_xy + np.array(augmentation.shift_xy) * 2 * centre_xy
    index = np.arange(side, dtype=np.float32) + np.float32(0.5)
    from_centre_x = index - np.float32(centre_xy[0])
    from_centre_y = index - np.float32(centre_xy[1])
    (a, b), (c, d) = augmentation.matrix.astype(np.float32)
    columns = a * from_centre_x + b * from_centre_y[:, None] + np.float32(offset_xy[0] - 0.5)
    rows = c * from_centre_x + d * from_centre_y[:, None] + np.float32(offset_xy[1] - 0.5)
    if augmentation.knots_xy is not None:
        field = cv2.resize(augmentation.knots_xy, (side, side), interpolation=cv2.INTER_CUBIC)
        columns, rows = columns + side * field[..., 0], rows + side * field[..., 1]
    return columns, rows

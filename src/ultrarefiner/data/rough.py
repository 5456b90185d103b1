"""Masks of mediocre quality: a true mask, shifted, scaled and with a smooth boundary error.

The stand-in for a hurried annotator or a middling network. The default distribution is pinned by
a test: against the truth DSC 0.81 on average (sd 0.075), area ratio 0.97 (sd 0.25), centre shift
0.4 radii at the 95th percentile. Lengths are relative to the lesion, so small and large lesions
are equally rough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.data.writers import write_mask
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.ops.distance import signed_distance


@dataclass(frozen=True, kw_only=True)
class RoughConfig:
    """How rough a rough mask is. Lengths are in lesion radii, r = sqrt(area / pi).

    Attributes:
        shift_std: standard deviation of the centre shift along each axis [radii].
        log_scale_mean: mean of the log of the linear scale factor.
        log_scale_std: standard deviation of the log of the linear scale factor.
        boundary_std: largest standard deviation of the boundary displacement [radii]; each mask
            draws its own between a third of it and all of it.
        correlation: correlation length of the boundary displacement [radii].
    """

    shift_std: float = 0.13
    log_scale_mean: float = -0.03
    log_scale_std: float = 0.10
    boundary_std: float = 0.19
    correlation: float = 0.45

    def __post_init__(self) -> None:
        for name in ("shift_std", "log_scale_std", "boundary_std"):
            if getattr(self, name) < 0:
                raise ConfigError(name, expected="a value >= 0", found=f"{getattr(self, name)}")
        if self.correlation <= 0:
            raise ConfigError("correlation", expected="a value > 0", found=f"{self.correlation}")


def roughen_mask(
    mask: Bool[np.ndarray, "H W"],
    rng: np.random.Generator,
    config: RoughConfig | None = None,
) -> Bool[np.ndarray, "H W"]:
    """Return a mediocre version of a true mask.

    The level set of the signed distance is moved as a whole (shift, scale) and then displaced by
    smooth noise; the new mask is where it stays positive.

    Args:
        mask: true mask. An empty or full one has no boundary and comes back unchanged.
        rng: source of all randomness; the same state gives the same mask.
        config: distribution of the error, default :class:`RoughConfig`.

    Returns:
        Rough mask on the same grid; never empty if the truth is not.
    """
    config = config or RoughConfig()
    if not mask.any() or mask.all():
        return mask.copy()
    ys, xs = np.nonzero(mask)
    radius_px = float(np.sqrt(len(ys) / np.pi))
    shift_px = rng.normal(0.0, config.shift_std, size=2) * radius_px
    scale = float(np.exp(rng.normal(config.log_scale_mean, config.log_scale_std)))
    amplitude_px = config.boundary_std * rng.uniform(1 / 3, 1.0) * radius_px
    moved = _similarity(signed_distance(mask), (xs.mean(), ys.mean()), shift_px, scale)
    correlation_px = config.correlation * radius_px
    noise = smooth_noise(mask.shape, (correlation_px, correlation_px), rng)
    rough: Bool[np.ndarray, "H W"] = moved + amplitude_px * noise > 0
    rough = _drop_crumbs(rough, min_area_px=0.02 * len(ys))
    return rough if rough.any() else mask.copy()


def _similarity(
    phi: Float32[np.ndarray, "H W"],
    centre_xy: tuple[float, float],
    shift_px: np.ndarray,
    scale: float,
) -> Float32[np.ndarray, "H W"]:
    """Scale a distance map about a centre, then shift it; distances scale with it."""
    cx, cy = centre_xy
    inverse = np.array(
        [
            [1 / scale, 0.0, cx - (cx + shift_px[0]) / scale],
            [0.0, 1 / scale, cy - (cy + shift_px[1]) / scale],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (phi.shape[1], phi.shape[0])
    warped = cv2.warpAffine(phi, inverse, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return (warped * scale).astype(np.float32)


def smooth_noise(
    shape: tuple[int, ...], sigma_yx_px: tuple[float, float], rng: np.random.Generator
) -> Float32[np.ndarray, "H W"]:
    """Return Gaussian noise of unit variance, smooth over a given length along each axis.

    Drawn on a coarse lattice (one node per half sigma) and blurred there, so that the cost does
    not grow with the correlation length.

    Args:
        shape: rows and columns [px].
        sigma_yx_px: correlation length down and across [px], > 0.
        rng: source of all randomness.

    Returns:
        Noise field of that shape.
    """
    steps = [max(sigma / 2.0, 1.0) for sigma in sigma_yx_px]
    nodes = [int(np.ceil(length / step)) + 12 for length, step in zip(shape, steps, strict=True)]
    white = rng.standard_normal(nodes).astype(np.float32)
    sigma_y, sigma_x = (sigma / step for sigma, step in zip(sigma_yx_px, steps, strict=True))
    coarse: Float32[np.ndarray, "h w"] = cv2.GaussianBlur(
        white, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y
    )
    coarse /= max(float(coarse.std()), 1e-6)
    enlarged_hw = [round(num * step) for num, step in zip(nodes, steps, strict=True)]
    fine = cv2.resize(coarse, enlarged_hw[::-1], interpolation=cv2.INTER_CUBIC)
    top, left = (int(6 * step) for step in steps)
    return fine[top : top + shape[0], left : left + shape[1]].astype(np.float32)


def _drop_crumbs(mask: Bool[np.ndarray, "H W"], min_area_px: float) -> Bool[np.ndarray, "H W"]:
    """Remove components smaller than ``min_area_px`` (noise far from the lesion)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    kept: Bool[np.ndarray, "H W"] = keep[labels]
    return kept


def rough_version(
    mask: Bool[np.ndarray, "H W"], *, seed: int, index: int, config: RoughConfig | None = None
) -> Bool[np.ndarray, "H W"]:
    """Return the rough mask of an image of a series; it depends on seed and position alone."""
    return roughen_mask(mask, np.random.default_rng([seed, index]), config)


@dataclass(frozen=True, kw_only=True)
class WrittenMasks:
    """How the writing went.

    Attributes:
        num_masks: masks written.
        failures: file and reason of every true mask that could not be used.
    """

    num_masks: int
    failures: tuple[tuple[str, str], ...]


def write_rough_masks(
    records: Sequence[Record],
    out: Path,
    *,
    seed: int = 0,
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> WrittenMasks:
    """Write a rough version of every true mask, named as its image.

    Args:
        records: images with masks.
        out: folder of the masks, ``STEM.png``.
        seed: of the series; the mask of a record depends on it and the record's position.
        track: wraps the iteration, for a progress bar.

    Raises:
        InputError: two images have one name, so that their masks would be one file.
        OutputError: a mask cannot be written.
    """
    stems = [split_name(record.image)[0] for record in records]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"several images are called {twice}", expected="one of each name")
    failures = []
    for index, (record, stem) in enumerate(zip(track(records, len(records)), stems, strict=True)):
        try:
            if record.mask is None:
                raise InputError(f"{record.image.name} has no mask in the manifest")
            truth = read_coarse(record.mask).values > 0.5
        except InputError as error:
            failures.append((record.image.name, str(error)))
        else:
            write_mask(out / f"{stem}.png", rough_version(truth, seed=seed, index=index))
    return WrittenMasks(num_masks=len(records) - len(failures), failures=tuple(failures))

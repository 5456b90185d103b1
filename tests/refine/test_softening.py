"""Softening: the mask is kept, the width follows the lesion, every lesion gets its own map."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.refine.softening import CoarseLesions, SofteningConfig, soften, split_lesions

_CONFIG = SofteningConfig(width=0.12, max_lesions=16)


def _ellipse(
    hw: tuple[int, int], centre_xy: tuple[float, float], a_px: float, b_px: float
) -> np.ndarray:
    ys, xs = np.indices(hw) + 0.5
    return ((xs - centre_xy[0]) / a_px) ** 2 + ((ys - centre_xy[1]) / b_px) ** 2 <= 1


def _two_lesions(hw: tuple[int, int] = (90, 120)) -> np.ndarray:
    return _ellipse(hw, (35, 40), 20, 14) | _ellipse(hw, (95, 60), 12, 16)


def _hard(mask: np.ndarray, side: int = 64, config: SofteningConfig = _CONFIG) -> CoarseLesions:
    return split_lesions(
        mask.astype(np.float32), is_hard=True, frame=Letterbox(mask.shape, side), config=config
    )


def _logit(probs: np.ndarray) -> np.ndarray:
    probs = probs.astype(np.float64)
    return np.log(probs / (1 - probs))


@pytest.mark.parametrize("hw", [(256, 256), (480, 640), (97, 133), (301, 200)])
@pytest.mark.parametrize("width", [0.05, 0.12, 0.4])
def test_above_a_half_is_the_mask(hw: tuple[int, int], width: float) -> None:
    mask = _ellipse(hw, (0.45 * hw[1], 0.5 * hw[0]), 0.2 * min(hw), 0.11 * min(hw))
    frame = Letterbox(hw, 256)
    soft = soften(mask, frame, width)
    coverage = frame.shrink(mask.astype(np.float32))
    on_the_outline = (coverage > 0) & (coverage < 1)
    assert np.array_equal((soft > 0.5)[~on_the_outline], (coverage > 0.5)[~on_the_outline])
    assert (soft > 0.5).sum() == pytest.approx(coverage.sum(), rel=0.03)


def test_on_its_own_grid_the_mask_is_exact() -> None:
    mask = np.random.default_rng(0).random((64, 64)) < 0.3
    assert np.array_equal(soften(mask, Letterbox((64, 64), 64), 0.12) > 0.5, mask)


@pytest.mark.parametrize("width", [0.05, 0.12, 0.4])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_temperature_follows_the_radius(width: float, scale: int) -> None:
    # A square of 20 frame px; its columns 22..42 hold the lesion, its edge lies at x = 42.
    mask = np.zeros((64 * scale, 64 * scale), dtype=bool)
    mask[22 * scale : 42 * scale, 22 * scale : 42 * scale] = True
    soft = soften(mask, Letterbox(mask.shape, 64), width)
    temperature_px = width * math.sqrt(20 * 20 / math.pi)
    logits = _logit(soft[32, 38:46])
    distances_px = 42 - (np.arange(38, 46) + 0.5)
    np.testing.assert_allclose(logits, distances_px / temperature_px, rtol=1e-3)


def test_two_lesions_are_split_largest_first() -> None:
    mask = _two_lesions()
    lesions = _hard(mask)
    first, second = _ellipse(mask.shape, (35, 40), 20, 14), _ellipse(mask.shape, (95, 60), 12, 16)
    assert lesions.probs.shape == (2, 64, 64)
    assert np.array_equal(lesions.masks, np.stack([first, second]))
    assert not lesions.rest.any()
    frame = Letterbox(mask.shape, 64)
    for probs, own in zip(lesions.probs, (first, second), strict=True):
        # Each by its own distance and size; cv2's distance varies by a rounding between calls.
        np.testing.assert_allclose(probs, soften(own, frame, 0.12), rtol=1e-4)
    assert lesions.probs.dtype == np.float32


def test_lesions_beyond_the_limit_are_kept_in_rest() -> None:
    mask = np.zeros((60, 60), dtype=bool)
    for i, side in enumerate((9, 7, 5, 3, 1)):
        mask[2 + 11 * i : 2 + 11 * i + side, 5 : 5 + side] = True
    lesions = _hard(mask, config=SofteningConfig(width=0.12, max_lesions=3))
    assert [int(own.sum()) for own in lesions.masks] == [81, 49, 25]
    assert lesions.rest.sum() == 9 + 1
    together = lesions.masks.sum(axis=0) + lesions.rest
    assert np.array_equal(together, mask.astype(int)), "every pixel belongs to one part"


def _probability_map() -> np.ndarray:
    """Two smooth bumps above 0.5 over a faint floor."""
    ys, xs = np.indices((90, 120)) + 0.5
    values = 0.03 + 0.9 * np.exp(-((xs - 35) ** 2 + (ys - 40) ** 2) / 300)
    values += 0.8 * np.exp(-((xs - 92) ** 2 + (ys - 55) ** 2) / 200)
    return values.clip(0, 1).astype(np.float32)


def test_the_parts_of_a_probability_map_sum_to_it() -> None:
    values = _probability_map()
    frame = Letterbox(values.shape, 64)
    lesions = split_lesions(values, is_hard=False, frame=frame, config=_CONFIG)
    assert len(lesions.probs) == 2
    np.testing.assert_allclose(lesions.probs.sum(axis=0), frame.shrink(values), atol=1e-6)
    assert np.array_equal(lesions.masks.any(axis=0), values > 0.5)
    # Far from the border between them, each part is the map itself.
    np.testing.assert_array_equal(lesions.probs[0, :, :25], frame.shrink(values)[:, :25])
    assert (lesions.probs[0, :, 55:] == 0).all()


def test_a_probability_map_of_one_lesion_is_passed_on_unchanged() -> None:
    values = _probability_map()
    values[:, 65:] = 0.1
    frame = Letterbox(values.shape, 64)
    lesions = split_lesions(values, is_hard=False, frame=frame, config=_CONFIG)
    assert np.array_equal(lesions.probs, frame.shrink(values)[None])


@pytest.mark.parametrize("is_hard", [True, False])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_map_without_lesion_is_passed_on_with_an_empty_mask(is_hard: bool, level: float) -> None:
    values = np.full((40, 30), level, dtype=np.float32)
    frame = Letterbox(values.shape, 64)
    lesions = split_lesions(values, is_hard=is_hard, frame=frame, config=_CONFIG)
    assert np.array_equal(lesions.probs, frame.shrink(values)[None])
    assert lesions.masks.shape == (1, 40, 30)
    assert not lesions.masks.any()
    assert not lesions.rest.any()


def test_a_full_mask_is_certain_everywhere_but_in_the_padding() -> None:
    mask = np.ones((40, 30), dtype=bool)
    lesions = _hard(mask)
    inside = Letterbox(mask.shape, 64).content_mask().numpy()
    assert (lesions.probs[0][inside] == 1).all()
    assert (lesions.probs[0][~inside] == 0).all()


@pytest.mark.parametrize("hw", [(64, 64), (480, 640), (20, 30)])
def test_one_pixel_is_a_lesion_without_nan(hw: tuple[int, int]) -> None:
    mask = np.zeros(hw, dtype=bool)
    mask[7, 11] = True
    lesions = _hard(mask)
    assert len(lesions.probs) == 1
    assert np.isfinite(lesions.probs).all()
    assert ((lesions.probs >= 0) & (lesions.probs <= 1)).all()
    peak = np.unravel_index(lesions.probs[0].argmax(), (64, 64))
    assert np.array_equal(peak, [int(7.5 * 64 / max(hw)), int(11.5 * 64 / max(hw))])


@pytest.mark.parametrize("hw", [(90, 120), (120, 50)])
def test_the_padding_is_zero(hw: tuple[int, int]) -> None:
    mask = np.zeros(hw, dtype=bool)
    mask[-20:, -20:] = True  # at the corner next to the padding
    lesions = _hard(mask)
    assert (lesions.probs[0][~Letterbox(hw, 64).content_mask().numpy()] == 0).all()
    assert lesions.probs.max() > 0.9


@pytest.mark.parametrize(("name", "value"), [("width", 0.0), ("max_lesions", 0)])
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"softening {name}: expected .*, found {value}"):
        SofteningConfig(**{name: value})

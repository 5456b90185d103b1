"""Variations: replayable numbers, one map for image and truth, exact where a closed form exists."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ultrarefiner.data.augmentation import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    vary_grey,
    vary_shape,
)
from ultrarefiner.data.phantom import draw_phantom
from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.letterbox import Letterbox

NOTHING = AugmentationConfig(**{item.name: 0.0 for item in fields(AugmentationConfig)})
SIDE = 64


def draw(config: AugmentationConfig, seed: int = 0) -> Augmentation:
    return draw_augmentation(np.random.default_rng(seed), config)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A smooth image on a letterboxed frame, 48 rows of content."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    image = 0.5 + 0.3 * np.sin(columns / 9) * np.cos(rows / 7)
    image[48:] = 0
    return image.astype(np.float32)


CONTENT = (48, SIDE)


def test_all_off_is_the_identity(frame: np.ndarray) -> None:
    nothing = draw(NOTHING)
    np.testing.assert_allclose(vary_shape(frame, nothing, CONTENT), frame, atol=1e-6)
    np.testing.assert_allclose(vary_grey(frame, nothing), frame, atol=1e-6)


def test_a_flip_mirrors_the_content_and_not_the_frame() -> None:
    image = np.zeros((SIDE, SIDE), np.float32)
    image[:, :40] = np.random.default_rng(0).random((SIDE, 40), dtype=np.float32)
    flip = draw(replace(NOTHING, flip_probability=1.0))
    expected = np.zeros_like(image)
    expected[:, :40] = image[:, 39::-1]
    np.testing.assert_allclose(vary_shape(image, flip, (SIDE, 40)), expected, atol=1e-5)


def test_a_shift_is_a_shift() -> None:
    image = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    shift = replace(draw(NOTHING), shift_xy=(4 / SIDE, -8 / SIDE))
    moved = vary_shape(image, shift, (SIDE, SIDE))
    np.testing.assert_allclose(moved[8:, :-4], image[:-8, 4:], atol=1e-5)
    assert (moved[:7] == 0).all()


def test_a_quarter_turn_is_exact() -> None:
    image = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    turn = replace(draw(NOTHING), matrix=np.array([[0.0, -1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(vary_shape(image, turn, (SIDE, SIDE)), np.rot90(image, 1), atol=1e-5)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_scale_changes_the_area_by_its_square(factor: float) -> None:
    rows, columns = np.mgrid[:256, :256] + 0.5
    disc = (np.hypot(rows - 128, columns - 128) < 60).astype(np.float32)
    scaled = replace(draw(NOTHING), matrix=np.eye(2) * factor)
    area = vary_shape(disc, scaled, (256, 256)).sum()
    assert area == pytest.approx(disc.sum() / factor**2, rel=0.01)


def test_image_and_truth_move_together() -> None:
    """The truth of a bright disc stays on the bright disc, whatever is drawn."""
    rows, columns = np.mgrid[:256, :256] + 0.5
    disc = (np.hypot(rows - 100, columns - 130) < 40).astype(np.float32)
    for seed in range(20):
        augmentation = draw(AugmentationConfig(), seed)
        both = vary_shape(np.stack([disc, 1 - disc], axis=-1), augmentation, (200, 256))
        alone = vary_shape(disc, augmentation, (200, 256))
        np.testing.assert_allclose(both[..., 0], alone, atol=0.04)  # OpenCV: 1/32 px
        assert both.min() >= 0
        assert both.sum(axis=-1).max() <= 1 + 1e-5


def test_the_same_draw_gives_the_same_image(frame: np.ndarray) -> None:
    first, second = (draw(AugmentationConfig(), 5) for _ in range(2))
    other = draw(AugmentationConfig(), 6)
    np.testing.assert_array_equal(
        vary_grey(vary_shape(frame, first, CONTENT), first),
        vary_grey(vary_shape(frame, second, CONTENT), second),
    )
    assert np.abs(vary_shape(frame, first, CONTENT) - vary_shape(frame, other, CONTENT)).max() > 0.1


def test_what_is_switched_off_does_not_move_the_rest() -> None:
    full, bare = draw(AugmentationConfig(), 3), draw(replace(AugmentationConfig(), speckle=0.0), 3)
    np.testing.assert_array_equal(full.matrix, bare.matrix)
    assert (full.gamma, full.shift_xy, full.noise_seed) == (
        bare.gamma,
        bare.shift_xy,
        bare.noise_seed,
    )


def test_draws_fill_their_ranges() -> None:
    config = AugmentationConfig()
    draws = [draw(config, seed) for seed in range(400)]
    mirrored = np.mean([np.linalg.det(item.matrix) < 0 for item in draws])
    assert mirrored == pytest.approx(config.flip_probability, abs=0.08)
    elastic = np.mean([item.knots_xy is not None for item in draws])
    assert elastic == pytest.approx(config.elastic_probability, abs=0.08)
    speckled = np.mean([item.speckle > 0 for item in draws])
    assert speckled == pytest.approx(config.speckle_probability, abs=0.08)
    gammas = np.log([item.gamma for item in draws])
    assert abs(gammas.mean()) < 0.05
    assert config.log_gamma * 0.95 < np.abs(gammas).max() <= config.log_gamma
    areas = np.log([abs(np.linalg.det(item.matrix)) for item in draws])
    assert np.abs(areas).max() <= 2 * config.log_scale + 1e-9
    assert np.abs(areas).max() > 1.9 * config.log_scale


def test_speckle_has_the_strength_and_grain_it_says() -> None:
    flat = np.full((256, 256), 0.5, np.float32)
    speckled = vary_grey(flat, replace(draw(NOTHING), speckle=0.1, grain_px=1.0))
    assert speckled.std() / speckled.mean() == pytest.approx(0.1, rel=0.05)
    noise = speckled - speckled.mean()
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    assert neighbours == pytest.approx(np.exp(-1 / 4), abs=0.08)  # of a Gaussian of 1 px


@pytest.mark.parametrize("seed", range(5))
def test_a_phantom_stays_an_image(seed: int) -> None:
    phantom = draw_phantom(0, seed)
    frame = Letterbox(phantom.image.shape, 128)
    image = frame.shrink(phantom.image / np.float32(255))
    augmentation = draw(AugmentationConfig(), seed)
    varied = vary_grey(vary_shape(image, augmentation, frame.content_hw), augmentation)
    assert varied.dtype == np.float32
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert varied.std() > 0.02


@pytest.mark.parametrize(
    ("setting", "value"), [("rotation_deg", -1), ("flip_probability", 1.1), ("speckle", np.nan)]
)
def test_bad_settings(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        AugmentationConfig(**{setting: value})

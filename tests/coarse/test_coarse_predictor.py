"""Prediction on native grids: frames, flips, ensembles, number formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.coarse import CoarseConfig, CoarseNetwork, CoarsePredictor, build_coarse
from ultrarefiner.errors import ConfigError
from ultrarefiner.shapes import GreyImage


class Bright(CoarseNetwork):
    """A network with a known answer: where the image is bright, and optionally to the left."""

    def __init__(self, leftward: float = 0.0, bias: float = 0.0) -> None:
        super().__init__(CoarseConfig(side=64))
        self.leftward, self.bias = leftward, bias

    def forward(self, images: Tensor) -> Tensor:
        columns = torch.linspace(1, -1, images.shape[-1])
        return 20 * (images - 0.5) + self.leftward * columns + self.bias


def disc(height: int, width: int) -> tuple[GreyImage, np.ndarray]:
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = np.hypot(rows - 0.4 * height, columns - 0.6 * width) < 0.25 * min(height, width)
    return np.where(inside, np.float32(0.9), np.float32(0.2)), inside


@given(height=st.integers(40, 300), width=st.integers(40, 300))
@settings(max_examples=25, deadline=None)
def test_any_shape_comes_back_in_place(height: int, width: int) -> None:
    image, inside = disc(height, width)
    predictor = CoarsePredictor([Bright()], device="cpu", bf16=False)
    probs = predictor(image)
    assert probs.shape == image.shape
    assert probs.dtype == np.float32
    found = probs > 0.5
    overlap = 2 * (found & inside).sum() / (found.sum() + inside.sum())
    assert overlap > 0.9


@pytest.mark.parametrize("shape", [(50, 31), (31, 50), (200, 117)])
def test_flips_undo_a_leaning(shape: tuple[int, int]) -> None:
    """A network that leans to one side of the frame no longer does, whatever the padding."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = (np.minimum(columns, columns[:, ::-1]) / shape[1] + rows * 0).astype(np.float32)
    leaning = Bright(leftward=2.0)
    plain = CoarsePredictor([leaning], device="cpu", bf16=False)(image)
    flipped = CoarsePredictor([leaning], flips=True, device="cpu", bf16=False)(image)
    assert np.abs(plain - plain[:, ::-1]).max() > 0.2
    np.testing.assert_allclose(flipped, flipped[:, ::-1], atol=0.02)


def test_an_ensemble_is_the_mean() -> None:
    image, _ = disc(48, 64)
    members = [Bright(bias=bias) for bias in (-3.0, 1.0)]
    alone = [CoarsePredictor([member], device="cpu", bf16=False)(image) for member in members]
    together = CoarsePredictor(members, device="cpu", bf16=False)(image)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_members_must_fit_together(small: CoarseNetwork, small_config: CoarseConfig) -> None:
    other = build_coarse(replace(small_config, side=96))
    for members in ([], [small, other]):
        with pytest.raises(ConfigError, match="ensemble"):
            CoarsePredictor(members, device="cpu")


def test_batches_change_nothing(small: CoarseNetwork) -> None:
    images = [disc(60, 80)[0], disc(80, 60)[0], disc(33, 90)[0]]
    predictor = CoarsePredictor([small], device="cpu", bf16=False)
    for alone, together in zip(
        map(predictor, images), predictor.predict_batch(images), strict=True
    ):
        np.testing.assert_allclose(alone, together, atol=1e-5)


def test_classes_sum_to_one(small_config: CoarseConfig) -> None:
    network = build_coarse(replace(small_config, num_classes=3))
    predictor = CoarsePredictor([network], device="cpu", bf16=False)
    image, _ = disc(70, 50)
    (classes,) = predictor.predict_classes([image])
    assert classes.shape == (3, 70, 50)
    np.testing.assert_allclose(classes.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(predictor(image), 1 - classes[0], atol=1e-6)


@pytest.mark.parametrize("transform", [lambda x: 0.1 + 0.05 * x, lambda x: x * 0 + 0.5])
def test_exposure_does_not_matter(
    small: CoarseNetwork, transform: Callable[[GreyImage], GreyImage]
) -> None:
    """A dark export of 12 bits in 16 gives what the full range gives; a constant image is fine."""
    image = disc(60, 80)[0]
    predictor = CoarsePredictor([small], device="cpu", bf16=False)
    changed = predictor(transform(image))
    assert np.isfinite(changed).all()
    if np.ptp(transform(image)) > 0:
        np.testing.assert_allclose(changed, predictor(image), atol=1e-4)


def test_bf16_parity(small: CoarseNetwork) -> None:
    image, _ = disc(60, 80)
    exact, fast = (
        CoarsePredictor([small], device="cpu", bf16=bf16)(image) for bf16 in (False, True)
    )
    assert np.abs(exact - fast).max() < 0.03

"""What corruptions are made of: exact distances, chosen pixels, softened outlines."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from corrupting import SHARES, lesion, only
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from scipy.special import expit

from ultrarefiner.data.corruption import (
    corrupt,
)
from ultrarefiner.data.corruption.lesion import Lesion, choose_lowest
from ultrarefiner.data.corruption.softening import soften
from ultrarefiner.ops.distance import signed_distance


class TestDistance:
    """Distances in a box around the lesion are those of the whole frame."""

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        margin_px=st.integers(1, 40),
        density=st.sampled_from([0.02, 0.3, 0.7]),
    )
    def test_as_in_the_whole_frame(self, seed: int, margin_px: int, density: float) -> None:
        rng = np.random.default_rng(seed)
        mask = np.zeros((40, 50), dtype=bool)
        y0, x0 = rng.integers(0, 30), rng.integers(0, 40)
        mask[y0 : y0 + 12, x0 : x0 + 15] = (
            rng.random(mask[y0 : y0 + 12, x0 : x0 + 15].shape) < density
        )
        mask[y0, x0] = True
        distance, window = Lesion(mask).distance(margin_px)
        assert np.allclose(distance, signed_distance(mask)[window.slices], atol=1e-5)
        inside, outside = (
            distance_transform_edt(pixels).astype(np.float32) for pixels in (mask, ~mask)
        )
        half = np.float32(0.5)
        exact = np.where(mask, inside - half, half - outside)
        assert np.array_equal(distance, exact[window.slices])  # to the last bit

    def test_a_mask_that_fills_the_frame_ends_there(self) -> None:
        distance, _ = Lesion(np.ones((5, 7), dtype=bool)).distance(3)
        assert distance[0, 0] == 0.5
        assert distance[2, 3] == 2.5


class TestChoice:
    """Exactly as many pixels as asked for, whatever ties."""

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), num_px=st.integers(0, 120))
    def test_number_and_order(self, seed: int, num_px: int) -> None:
        rng = np.random.default_rng(seed)
        score = rng.integers(0, 4, size=(8, 12)).astype(np.float32)
        allowed = rng.random(score.shape) < 0.6
        chosen = choose_lowest(score, num_px, allowed)
        assert chosen.sum() == min(num_px, allowed.sum())
        assert not (chosen & ~allowed).any()
        anywhere = choose_lowest(score, num_px)
        assert np.array_equal(anywhere, choose_lowest(score, num_px, np.ones_like(allowed)))
        rest = allowed & ~chosen
        if chosen.any() and rest.any():
            assert score[chosen].max() <= score[rest].min()


class TestSoftening:
    """Probabilities are the squashed exact distance, and still hold the mask."""

    @pytest.mark.parametrize("temperature_px", [0.3, 2.0, 9.0])
    def test_against_scipy(self, temperature_px: float) -> None:
        mask = lesion("parts", 0.03)
        signed = np.where(
            mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask)
        )
        expected = expit(signed / temperature_px)
        probs = soften(mask, temperature_px)
        assert np.abs(probs - expected).max() < 2**-10
        kept = probs > 0
        assert np.allclose(probs[kept], expected[kept], atol=1e-6)
        assert kept[expected > 1e-3].all()
        assert np.array_equal(probs > 0.5, mask)

    @pytest.mark.parametrize("share", SHARES)
    def test_temperature_is_bounded_by_the_lesion(self, share: float) -> None:
        mask = lesion("round", share)
        config = replace(only("identity"), soft_probability=1.0)
        scale = 256 / 224
        found = []
        for index in range(20):
            made = corrupt(mask, seed=0, index=index, config=config)
            radius_px = np.sqrt((made.probs > 0.5).sum() / np.pi)
            found.append(made.parameters["temperature_px"])
            assert found[-1] <= min(0.25 * radius_px, 8 * scale) + 1e-9
            assert found[-1] >= min(0.25 * radius_px, 2 * scale) - 1e-9
        assert share < 0.02 or len(np.unique(found)) > 10

    def test_as_often_as_asked_for(self) -> None:
        mask = lesion("round", 0.05)
        config = replace(only("identity"), soft_probability=0.8)
        made = [corrupt(mask, seed=0, index=i, config=config) for i in range(300)]
        soft = [m.parameters["temperature_px"] is not None for m in made]
        assert np.mean(soft) == pytest.approx(0.8, abs=0.07)
        for m, is_soft in zip(made, soft, strict=True):
            assert is_soft == bool(((m.probs > 0) & (m.probs < 1)).any())


def test_opencv_distances_are_exact() -> None:
    """The gap to the whole square is small: the precise mask is no approximation."""
    rng = np.random.default_rng(0)
    for density in (0.5, 0.99, 0.9995):
        free = (rng.random((300, 400)) < density).astype(np.uint8)
        found = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.allclose(found, distance_transform_edt(free), rtol=1e-6, atol=0)

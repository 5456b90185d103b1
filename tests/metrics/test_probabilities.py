"""Brier score and calibration error: by hand, a loop, torchmetrics, and a simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import binary_calibration_error

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics.probabilities import calibration_error, evaluate_probs, pool_bins

images = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(float, shape, elements=st.floats(0, 1)), hnp.arrays(bool, shape)
    )
)


def by_loop(p, y, num_bins) -> tuple[float, float]:
    gaps = [0.0] * num_bins
    for one, truth in zip(p.ravel(), y.ravel(), strict=True):
        gaps[min(int(one * num_bins), num_bins - 1)] += one - truth
    squares = [(one - truth) ** 2 for one, truth in zip(p.ravel(), y.ravel(), strict=True)]
    return sum(squares) / p.size, sum(map(abs, gaps)) / p.size


class TestSolvedByHand:
    target = np.pad(np.ones((2, 2), dtype=bool), 2)
    probs = np.where(target, 0.75, 0.25)

    def test_frame(self):
        metrics = evaluate_probs(self.probs, self.target, num_bins=2, margin=None)
        assert metrics.brier == 0.0625
        assert metrics.bins == ((32, 8.0, 0.0), (4, 3.0, 4.0))
        assert metrics.ece == 9 / 36

    def test_box_with_a_margin(self):
        metrics = evaluate_probs(self.probs, self.target, num_bins=2, margin=0.5)
        assert metrics.bins == ((12, 3.0, 0.0), (4, 3.0, 4.0))
        assert evaluate_probs(self.probs, self.target, num_bins=2, margin=0.0).bins[0][0] == 0

    def test_the_box_holds_misses_and_false_alarms(self):
        probs = np.zeros((6, 6))
        probs[0, 5] = 0.9
        metrics = evaluate_probs(probs, self.target, num_bins=1, margin=0.0)
        assert metrics.bins == ((16, 0.9, 4.0),)  # rows 0 to 3, columns 2 to 5
        assert evaluate_probs(self.target * 0.5, self.target, margin=0.0).bins[7][0] == 4

    def test_the_box_stays_in_the_frame(self):
        probs = np.full((3, 5), 0.25)
        metrics = evaluate_probs(probs, np.ones((3, 5), dtype=bool), margin=3.0)
        assert sum(count for count, _, _ in metrics.bins) == 15

    def test_nothing_there_and_nothing_called(self):
        metrics = evaluate_probs(np.full((4, 4), 0.4), np.zeros((4, 4), dtype=bool), num_bins=2)
        assert np.isnan([metrics.brier, metrics.ece]).all()
        assert metrics.bins == ((0, 0.0, 0.0),) * 2
        frame = evaluate_probs(np.full((4, 4), 0.4), np.zeros((4, 4), dtype=bool), margin=None)
        assert (frame.brier, frame.ece) == pytest.approx((0.16, 0.4))

    def test_one_belongs_to_the_last_bin(self):
        metrics = evaluate_probs(np.ones((2, 2)), np.ones((2, 2)), num_bins=3)
        assert metrics.bins == ((0, 0.0, 0.0), (0, 0.0, 0.0), (4, 4.0, 4.0))


class TestOracles:
    @given(images, st.integers(1, 20))
    def test_equal_a_loop(self, image, num_bins):
        metrics = evaluate_probs(*image, num_bins=num_bins, margin=None)
        assert (metrics.brier, metrics.ece) == pytest.approx(by_loop(*image, num_bins))

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("num_bins", [5, 15])
    def test_equal_torchmetrics(self, seed, num_bins):
        rng = np.random.default_rng(seed)
        probs, target = rng.random((40, 50)), rng.random((40, 50)) < 0.3
        theirs = binary_calibration_error(
            torch.from_numpy(probs),
            torch.from_numpy(target.astype(int)),
            n_bins=num_bins,
            norm="l1",
        )
        ours = evaluate_probs(probs, target, num_bins=num_bins, margin=None)
        assert ours.ece == pytest.approx(theirs.item(), rel=1e-6)
        mean_squared = torch.nn.functional.mse_loss(
            torch.from_numpy(probs), torch.from_numpy(target.astype(float))
        )
        assert ours.brier == pytest.approx(mean_squared.item())

    def test_calibrated_probabilities(self):
        """Lesion as often as p says: ECE near 0, and the Brier score of its expectation."""
        rng = np.random.default_rng(0)
        probs = rng.random((600, 600))
        metrics = evaluate_probs(probs, rng.random((600, 600)) < probs)
        assert metrics.ece < 0.005
        assert metrics.brier == pytest.approx(1 / 6, abs=0.002)  # mean of p (1 - p)

    def test_overconfident_probabilities(self):
        rng = np.random.default_rng(0)
        truth = rng.random((600, 600)) < 0.7
        metrics = evaluate_probs(np.full((600, 600), 0.95), truth)
        assert metrics.ece == pytest.approx(0.25, abs=0.005)


class TestPooling:
    @given(st.lists(images, min_size=1, max_size=4))
    def test_pooled_bins_are_those_of_all_pixels(self, several):
        pooled = pool_bins([evaluate_probs(*image, margin=None).bins for image in several])
        p, y = (np.concatenate([image[k].ravel() for image in several])[None] for k in (0, 1))
        together = evaluate_probs(p, y, margin=None)
        np.testing.assert_allclose(pooled, together.bins, atol=1e-12)
        assert calibration_error(pooled) == pytest.approx(together.ece, abs=1e-12)

    def test_images_without_a_region_add_nothing(self):
        empty = evaluate_probs(np.zeros((4, 4)), np.zeros((4, 4))).bins
        some = evaluate_probs(np.full((4, 4), 0.9), np.ones((4, 4))).bins
        assert pool_bins([empty, some, empty]) == some
        assert np.isnan(calibration_error(empty))

    def test_refusals(self):
        with pytest.raises(InputError, match="one number of bins, found 0 images"):
            pool_bins([])
        with pytest.raises(InputError, match="found 2 images, 1 bins, 2 bins"):
            pool_bins([((0, 0.0, 0.0),), ((0, 0.0, 0.0),) * 2])


class TestInvariants:
    @given(images)
    def test_bounds_and_flips(self, image):
        metrics = evaluate_probs(*image)
        flipped = evaluate_probs(*(array[::-1, ::-1] for array in image))
        np.testing.assert_allclose(flipped.bins, metrics.bins, atol=1e-12)
        if not np.isnan(metrics.brier):
            assert 0 <= metrics.brier <= 1
            assert 0 <= metrics.ece**2 <= metrics.brier + 1e-12  # by Jensen, twice

    @given(images)
    def test_a_wider_margin_is_nothing_but_more_pixels(self, image):
        narrow, wide, frame = (evaluate_probs(*image, margin=m).bins for m in (0.1, 1.0, None))
        if sum(count for count, _, _ in narrow):
            counts = [[count for count, _, _ in bins] for bins in (narrow, wide, frame)]
            assert (np.diff(counts, axis=0) >= 0).all()


class TestRefusals:
    target = np.ones((2, 2))

    @pytest.mark.parametrize(
        ("probs", "message"),
        [
            (np.ones((2, 3)), r"found probs \(2, 3\), target \(2, 2\)"),
            (np.ones((1, 2, 2)), "not of one image"),
            (np.full((2, 2), 1.5), "in .0, 1., found float64 from 1.5 to 1.5. Divide 8-bit"),
            (np.full((2, 2), -0.1), "no probabilities"),
            (np.full((2, 2), np.nan), "no probabilities"),
            (np.full((2, 2), 200, dtype=np.uint8), "uint8 from 200 to 200"),
        ],
    )
    def test_probs(self, probs, message):
        with pytest.raises(InputError, match=message):
            evaluate_probs(probs, self.target)

    def test_target(self):
        with pytest.raises(InputError, match="target is not binary"):
            evaluate_probs(np.ones((2, 2)), np.full((2, 2), 255))

    @pytest.mark.parametrize("setting", [{"num_bins": 0}, {"margin": -0.1}, {"margin": np.nan}])
    def test_settings(self, setting):
        with pytest.raises(ConfigError, match="out of range"):
            evaluate_probs(np.ones((2, 2)), self.target, **setting)

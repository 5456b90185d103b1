"""Rough masks: deterministic, never empty, scale-free, and as mediocre as they claim."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data.rough import RoughConfig, roughen_mask, smooth_noise
from ultrarefiner.errors import ConfigError


def _ellipse(size_px: int, a_px: float, b_px: float) -> np.ndarray:
    ys, xs = np.mgrid[:size_px, :size_px] + 0.5 - size_px / 2
    return (xs / a_px) ** 2 + (ys / b_px) ** 2 <= 1


def _errors(mask: np.ndarray, rough: np.ndarray) -> tuple[float, float, float]:
    """DSC, area ratio, and centre shift in radii."""
    area, rough_area = mask.sum(), rough.sum()
    shift_px = np.hypot(*(np.argwhere(mask).mean(axis=0) - np.argwhere(rough).mean(axis=0)))
    dsc = 2 * (mask & rough).sum() / (area + rough_area)
    return float(dsc), float(rough_area / area), float(shift_px / np.sqrt(area / np.pi))


def test_the_same_state_gives_the_same_mask() -> None:
    mask = _ellipse(120, 30, 18)
    first, again, other = (roughen_mask(mask, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_truth_is_left_alone() -> None:
    mask = _ellipse(80, 20, 12)
    before = mask.copy()
    rough = roughen_mask(mask, np.random.default_rng(0))
    assert np.array_equal(mask, before)
    assert rough.dtype == np.bool_
    assert rough.shape == mask.shape


@pytest.mark.parametrize("value", [False, True], ids=["empty", "full"])
def test_a_mask_without_boundary_comes_back_unchanged(value: bool) -> None:
    mask = np.full((20, 30), value)
    rough = roughen_mask(mask, np.random.default_rng(0))
    assert np.array_equal(rough, mask)
    assert rough is not mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    corner=st.tuples(st.integers(0, 31), st.integers(0, 31)),
)
def test_never_empty_however_small(
    seed: int, height: int, width: int, corner: tuple[int, int]
) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = True
    assert roughen_mask(mask, np.random.default_rng(seed)).any()


def test_never_empty_under_a_violent_config() -> None:
    config = RoughConfig(shift_std=3.0, log_scale_std=1.0, boundary_std=2.0)
    mask = _ellipse(64, 5, 5)
    for seed in range(30):
        assert roughen_mask(mask, np.random.default_rng(seed), config).any()


def test_no_error_is_the_identity() -> None:
    calm = RoughConfig(shift_std=0.0, log_scale_mean=0.0, log_scale_std=0.0, boundary_std=0.0)
    mask = _ellipse(60, 17, 11)
    assert np.array_equal(roughen_mask(mask, np.random.default_rng(0), calm), mask)


def test_lengths_are_relative_to_the_lesion() -> None:
    small, large = (
        np.array(
            [
                _errors(mask, roughen_mask(mask, np.random.default_rng([7, seed])))
                for seed in range(120)
            ]
        )
        for mask in (_ellipse(160, 32, 20), _ellipse(320, 64, 40))
    )
    assert np.allclose(small.mean(axis=0), large.mean(axis=0), atol=0.02)
    assert np.allclose(small.std(axis=0), large.std(axis=0), atol=0.03)


def test_noise_has_unit_variance_and_the_lengths_asked_for() -> None:
    noise = smooth_noise((256, 256), (2.0, 8.0), np.random.default_rng(3))
    assert noise.std() == pytest.approx(1.0, abs=0.15)
    # A Gaussian kernel of width s leaves the correlation exp(-1/4) at lag s.
    down = (noise[:-2] * noise[2:]).mean() / noise.var()
    across = (noise[:, :-8] * noise[:, 8:]).mean() / noise.var()
    assert down == pytest.approx(np.exp(-0.25), abs=0.08)
    assert across == pytest.approx(np.exp(-0.25), abs=0.08)


@pytest.mark.parametrize(
    ("name", "value"),
    [("shift_std", -1.0), ("log_scale_std", -0.1), ("boundary_std", -2.0), ("correlation", 0.0)],
)
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RoughConfig(**{name: value})


@pytest.mark.realdata
def test_mediocre_on_real_lesions(busbra: Path) -> None:
    with (busbra / "5-fold-cv.csv").open(newline="") as file:
        ids = sorted(row["ID"] for row in csv.DictReader(file) if row["kFold"] == "3")
    assert len(ids) == 366
    errors = []
    for k, case in enumerate(ids):
        path = busbra / "Masks" / f"{case.replace('bus', 'mask')}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        errors.append(_errors(mask, roughen_mask(mask, np.random.default_rng([0, k]))))
    dsc, area_ratio, shift_radii = np.array(errors).T
    assert dsc.mean() == pytest.approx(0.81, abs=0.01)
    assert dsc.std() >= 0.06
    assert np.percentile(dsc, 5) <= 0.71
    assert 0.9 <= area_ratio.mean() <= 1.0
    assert area_ratio.std() >= 0.18
    assert np.percentile(shift_radii, 95) >= 0.3

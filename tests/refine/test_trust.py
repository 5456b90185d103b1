"""Stabiliser: perfect repairs pass if the model is sure, stabilising twice changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from ultrarefiner.refine.stabilization import (
    ACCEPTED,
    AREA_RATIO,
    FRAGMENTED,
    LOW_IOU,
    NO_LESION,
    NO_RESPONSE,
    TOO_LARGE,
    Stabilizer,
    StabilizerConfig,
)

_SIDE = 96
_TRUTH_PX = 12.0
_DEFAULT, _LITERAL = StabilizerConfig(), StabilizerConfig.literal()
_SURE, _UNSURE = 0.96, 0.6


def _disc(area_ratio: float = 1.0, shift_px: float = 0.0) -> Tensor:
    """A confident disc of so many times the truth's area, ``1 1 side side``."""
    centres = torch.arange(_SIDE) + 0.5
    x, y = centres[None] - _SIDE / 2 - shift_px, centres[:, None] - _SIDE / 2
    radius_px = _TRUTH_PX * area_ratio**0.5
    return ((x**2 + y**2).sqrt() < radius_px).float()[None, None]


def _chunk_missing(share: float) -> Tensor:
    """The truth without what lies on one side of a line."""
    disc = _disc()
    columns = disc.sum(dim=-2).cumsum(dim=-1) / disc.sum()
    return disc * (columns[..., None, :] > share)


def _islands() -> Tensor:
    """The truth with six false islands, each 1/5 of its area."""
    coarse = _disc()
    for row, col in ((6, 6), (6, 44), (6, 80), (80, 6), (80, 44), (80, 80)):
        coarse[..., row : row + 10, col : col + 9] = 1
    return coarse


_CORRUPTIONS = {
    # corruption: coarse, literal, default if the model is sure, default if it is not
    "identity": (_disc(), ACCEPTED, ACCEPTED, ACCEPTED),
    "over 2x": (_disc(2.0), LOW_IOU, ACCEPTED, LOW_IOU),
    "over 3x": (_disc(3.0), LOW_IOU, ACCEPTED, LOW_IOU),
    "giant 8x": (_disc(8.0), AREA_RATIO, LOW_IOU, AREA_RATIO),
    "eroded to 0.4": (_disc(0.4), LOW_IOU, ACCEPTED, LOW_IOU),
    "shift 30 %": (_disc(shift_px=0.6 * _TRUTH_PX), LOW_IOU, ACCEPTED, LOW_IOU),
    "chunk 30 % missing": (_chunk_missing(0.3), ACCEPTED, ACCEPTED, ACCEPTED),
    "chunk 60 % missing": (_chunk_missing(0.6), LOW_IOU, ACCEPTED, LOW_IOU),
    "islands": (_islands(), LOW_IOU, ACCEPTED, LOW_IOU),
    "elsewhere": (_disc(shift_px=30.0), LOW_IOU, LOW_IOU, LOW_IOU),
    "empty": (torch.zeros(1, 1, _SIDE, _SIDE), NO_LESION, ACCEPTED, NO_LESION),
}


def _judge(
    coarse: Tensor, refined: Tensor, predicted_iou: float, config: StabilizerConfig
) -> tuple[str, Tensor]:
    stabilized = Stabilizer(config)(
        coarse,
        refined,
        refined,
        torch.tensor([predicted_iou]),
        torch.tensor([not bool((coarse > 0.5).any())]),
    )
    return stabilized.reasons[0], stabilized.probs


@pytest.mark.parametrize("name", _CORRUPTIONS)
def test_a_perfect_repair(name: str) -> None:
    coarse, *expected = _CORRUPTIONS[name]
    cases = ((_LITERAL, _SURE), (_DEFAULT, _SURE), (_DEFAULT, _UNSURE))
    for (config, predicted_iou), reason in zip(cases, expected, strict=True):
        found, probs = _judge(coarse, _disc(), predicted_iou, config)
        assert found == reason
        assert torch.equal(probs, _disc() if reason == ACCEPTED else coarse)


@pytest.mark.parametrize("name", sorted(set(_CORRUPTIONS) - {"empty"}))
def test_literal_does_not_listen_to_the_model(name: str) -> None:
    coarse, literal, _, _ = _CORRUPTIONS[name]
    for predicted_iou in (0.0, 0.5, 1.0):
        assert _judge(coarse, _disc(), predicted_iou, _LITERAL)[0] == literal


def test_literal_has_the_thresholds_of_the_source() -> None:
    assert (_LITERAL.min_iou, _LITERAL.min_area_ratio, _LITERAL.max_area_ratio) == (0.5, 0.3, 3.0)
    assert (_LITERAL.max_components, _LITERAL.min_component_share) == (5, 0.0)
    specks = _disc()
    specks[..., 2, 2:14:2] = 1
    assert _judge(specks, specks, _SURE, _LITERAL)[0] == FRAGMENTED
    assert _judge(specks, specks, _SURE, _DEFAULT)[0] == ACCEPTED


@pytest.mark.parametrize(("predicted_iou", "trust"), [(0.8, 0.0), (0.85, 0.5), (0.9, 1.0)])
def test_a_limit_is_raised_to_a_power_that_grows_with_trust(
    predicted_iou: float, trust: float
) -> None:
    limit = 0.5 ** (1 + 1.5 * trust)
    config = replace(_DEFAULT, min_area_ratio=0.0, max_area_ratio=1e9)
    full = torch.ones(1, 1, 1, 1000)
    for share, reason in ((limit + 0.002, ACCEPTED), (limit - 0.002, LOW_IOU)):
        part = (torch.arange(1000) < 1000 * share).float().expand(1, 1, 1, 1000)
        assert _judge(full, part, predicted_iou, config)[0] == reason


def test_trust_rises_with_what_the_coarse_map_leaves_open() -> None:
    decided, undecided = _disc(3.0), 0.5 + 0.1 * (2 * _disc(3.0) - 1)
    credit = replace(_DEFAULT, uncertainty_credit=0.2)
    assert _judge(decided, _disc(), 0.75, credit)[0] == LOW_IOU
    assert _judge(undecided, _disc(), 0.75, credit)[0] == ACCEPTED
    assert _judge(undecided, _disc(), 0.75, replace(credit, uncertainty_credit=0.0))[0] == LOW_IOU


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_limits_of_zero_and_one_stay_what_they_are(limit: float) -> None:
    config = replace(_DEFAULT, min_iou=limit, min_area_ratio=0.0, max_area_ratio=1e300)
    reason, _ = _judge(_disc(1.1), _disc(), 1.0, config)
    assert reason == (ACCEPTED if limit == 0 else LOW_IOU)


def test_an_undefined_prediction_is_not_trusted() -> None:
    assert _judge(_disc(3.0), _disc(), float("nan"), _DEFAULT)[0] != ACCEPTED
    nothing = torch.full((1, 1, _SIDE, _SIDE), float("nan"))
    assert _judge(_disc(), nothing, _SURE, _DEFAULT)[0] == NO_RESPONSE


def test_a_mask_of_nearly_everything_is_never_a_new_lesion() -> None:
    empty = torch.zeros(1, 1, _SIDE, _SIDE)
    assert _judge(empty, torch.ones_like(empty), 1.0, _DEFAULT)[0] == TOO_LARGE


_BLOBS = st.tuples(
    st.floats(0.3, 4.0), st.floats(-14.0, 14.0), st.floats(0.1, 1.0), st.integers(0, 99)
)


def _blob(area_ratio: float, shift_px: float, peak: float, seed: int) -> Tensor:
    """A disc with a noisy outline, whose specks come and go."""
    noise = np.random.default_rng(seed).standard_normal((_SIDE, _SIDE))
    smooth = torch.from_numpy(ndimage.gaussian_filter(noise, 2.0)).float() * 3
    return peak * (0.8 * _disc(area_ratio, shift_px) + 0.2 * (smooth > 0.5))


@given(
    coarse=_BLOBS,
    refined=_BLOBS,
    gate=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    predicted_iou=st.floats(0.7, 1.0),
    band_px=st.sampled_from([0.0, 7.0]),
    literal=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_stabilising_twice_changes_nothing(
    coarse: tuple[float, float, float, int],
    refined: tuple[float, float, float, int],
    *,
    gate: float,
    predicted_iou: float,
    band_px: float,
    literal: bool,
) -> None:
    before, answer = _blob(*coarse), _blob(*refined)
    stage = Stabilizer(replace(_LITERAL if literal else _DEFAULT, band_px=band_px))
    no_lesion = torch.tensor([not bool((before > 0.5).any())])
    known = torch.tensor([predicted_iou]), no_lesion
    once = stage(before, answer, torch.lerp(before, answer, gate), *known)
    # The outcome is gated again, is the answer to the same coarse map, or takes that map's place.
    assert torch.equal(stage(before, answer, once.probs, *known).probs, once.probs)
    assert torch.equal(stage(before, once.probs, once.probs, *known).probs, once.probs)
    assert torch.equal(stage(once.probs, answer, once.probs, *known).probs, once.probs)


@pytest.mark.parametrize(("side", "radius_px"), [(224, 7), (112, 4), (256, 8), (20, 1)])
def test_with_a_band_only_the_outline_may_change(side: int, radius_px: int) -> None:
    coarse = torch.zeros(1, 1, side, side)
    coarse[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 0.8
    gated = 0.3 + 0.4 * torch.rand(1, 1, side, side)
    gated = torch.where(coarse > 0.5, gated.clamp_min(0.51), gated.clamp_max(0.49))
    mask, square = coarse[0, 0].numpy() > 0.5, np.ones((3, 3), dtype=bool)
    band = ndimage.binary_dilation(mask, square, iterations=radius_px)
    band &= ~ndimage.binary_erosion(mask, square, iterations=radius_px)
    config = replace(_DEFAULT, band_px=7.0)
    stabilized = Stabilizer(config)(
        coarse, coarse, gated, torch.tensor([0.9]), torch.tensor([False])
    )
    assert stabilized.reasons == (ACCEPTED,)
    expected = torch.where(torch.from_numpy(band), gated, coarse)
    assert torch.equal(stabilized.probs, expected)
    assert 0 < band.mean() < 1


def test_a_new_lesion_has_no_band() -> None:
    empty, config = torch.zeros(1, 1, _SIDE, _SIDE), replace(_DEFAULT, band_px=7.0)
    reason, probs = _judge(empty, _disc(), 0.99, config)
    assert reason == ACCEPTED
    assert torch.equal(probs, _disc())

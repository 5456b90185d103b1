"""The last stage: each sign on hand-solved masks, and what a rule refuses stays as it was given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from models import LesionFinder
from rules import rule_of
from scenes import scene_of
from torch import Tensor

from ultrarefiner.refine.acceptance import COMPLAINTS, SIGNS, AcceptanceRule
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.selection import Selected
from ultrarefiner.refine.stabilization import ACCEPTED, AREA_RATIO, Stabilized, StabilizerConfig
from ultrarefiner.refine.verdict import REFUSED, Acceptance, NoAcceptance, measure_signs

_EMPTY = """
.....
.....
.....
.....
....."""
_SQUARE = """
.....
.##..
.##..
.....
....."""
_WIDE = """
.....
.####
.####
.....
....."""
_PIXEL = """
.....
.#...
.....
.....
....."""
_CORNERS = """
#...#
.....
.....
.....
#...#"""
_DIAGONAL = """
#....
.#...
..#..
.....
....."""


def _map(picture: str, value: float = 1.0) -> Tensor:
    rows = [[value * (cell == "#") for cell in row] for row in picture.split()]
    return torch.tensor(rows)[None, None]


def _refinement(
    coarse: Tensor,
    final: Tensor,
    *,
    refined: Tensor | None = None,
    answers: Tensor | None = None,
    selected: Tensor | None = None,
    predicted_iou: float = 1.0,
) -> Refinement:
    """Return the refinement of one lesion; the model says ``refined``, all agreed on it."""
    refined = final if refined is None else refined
    selected = refined if selected is None else selected
    answers = selected if answers is None else answers
    unused = cast(Any, None)
    return Refinement(
        scene=scene_of(coarse),
        lesions=unused,
        view=unused,
        prompts=unused,
        proposals=Proposals(logits=answers - 0.5, iou_predictions=unused),
        selected=Selected(
            probs=selected,
            logits=selected,
            weights=unused,
            predicted_iou=torch.tensor([predicted_iou]),
        ),
        refined=refined,
        gate=unused,
        final=Stabilized(probs=final, reasons=(ACCEPTED,)),
    )


def _sign(name: str, refinement: Refinement) -> float:
    (signs,) = measure_signs(refinement)
    return float(getattr(signs, name))


def test_nothing_speaks_against_a_certain_mask_that_stays() -> None:
    (signs,) = measure_signs(_refinement(_map(_SQUARE), _map(_SQUARE)))
    harmless = dict.fromkeys(SIGNS, 0.0) | {"unsupported": 1.0}  # the image prefers neither
    assert {name: getattr(signs, name) for name in SIGNS} == harmless


@pytest.mark.parametrize(
    ("coarse", "final", "moved", "resized"),
    [
        (_SQUARE, _WIDE, 1 - 4 / 8, 1.0),
        (_WIDE, _SQUARE, 1 - 4 / 8, 1.0),
        (_SQUARE, _PIXEL, 1 - 1 / 4, 2.0),
        (_CORNERS, _SQUARE, 1.0, 0.0),
        (_EMPTY, _SQUARE, 1.0, 2.0),  # an empty mask counts as 1 px
        (_SQUARE, _EMPTY, 1.0, 2.0),
        (_EMPTY, _EMPTY, 0.0, 0.0),
    ],
)
def test_moved_and_resized(coarse: str, final: str, moved: float, resized: float) -> None:
    refinement = _refinement(_map(coarse), _map(final))
    assert _sign("moved", refinement) == pytest.approx(moved)
    assert _sign("resized", refinement) == pytest.approx(resized)


@pytest.mark.parametrize(
    ("final", "fragmented"), [(_EMPTY, 0.0), (_WIDE, 0.0), (_DIAGONAL, 0.0), (_CORNERS, 2.0)]
)
def test_fragmented(final: str, fragmented: float) -> None:
    assert _sign("fragmented", _refinement(_map(_SQUARE), _map(final))) == fragmented


def test_specks_are_no_fragments_unless_there_is_nothing_else() -> None:
    final = torch.zeros(1, 1, 40, 40)
    final[..., :10, :10] = 1
    final[..., 20, 20] = 1  # 1 of 101 px
    assert _sign("fragmented", _refinement(final, final)) == 0
    final[..., 9, 9] = 0
    assert _sign("fragmented", _refinement(final, final)) == 1  # 1 of 100 px
    dust = torch.zeros(1, 1, 40, 40)
    dust[..., ::2, ::2] = 1
    assert _sign("fragmented", _refinement(dust, dust)) == 4


@pytest.mark.parametrize(
    ("predicted_iou", "doubted"), [(0.75, 0.25), (1.5, 0.0), (-1.0, 1.0), (math.nan, 1.0)]
)
def test_doubted(predicted_iou: float, doubted: float) -> None:
    refinement = _refinement(_map(_SQUARE), _map(_SQUARE), predicted_iou=predicted_iou)
    assert _sign("doubted", refinement) == doubted


def test_pushed_and_undecided() -> None:
    coarse = _map(_SQUARE, 0.75)  # mass 3
    refinement = _refinement(coarse, _map(_WIDE))  # 4 px rise by 1/4, 4 px by 1
    assert _sign("pushed", refinement) == pytest.approx(5 / 3)
    assert _sign("undecided", refinement) == pytest.approx(0.5)
    nothing = _refinement(_map(_EMPTY), _map(_SQUARE))  # a mass of 0 counts as 1
    assert _sign("pushed", nothing) == 4
    assert _sign("undecided", nothing) == 1
    broken = _refinement(coarse, torch.full_like(coarse, math.nan))
    assert _sign("pushed", broken) == 4


def test_scattered() -> None:
    answers = torch.cat([_map(_WIDE), _map(_SQUARE), _map(_EMPTY)], dim=1)
    same = _map(_WIDE)
    refinement = _refinement(_map(_SQUARE), same, selected=same, answers=answers)
    assert _sign("scattered", refinement) == pytest.approx(1 - (1 + 4 / 8 + 0) / 3)
    single = _refinement(_map(_SQUARE), same, selected=same, answers=_map(_PIXEL))
    assert _sign("scattered", single) == 0


def test_strayed_looks_behind_the_gate() -> None:
    refinement = _refinement(_map(_SQUARE), _map(_SQUARE), refined=_map(_PIXEL))
    assert _sign("strayed", refinement) == pytest.approx(1 - 1 / 4)
    assert _sign("moved", refinement) == 0


def test_unsupported_asks_the_image() -> None:
    """On half black, half white: flush with the edge the contrast is 1 / 0.52, across it none."""
    image = torch.zeros(64, 64)
    image[:, 32:] = 1
    flush, across = torch.zeros(2, 1, 1, 64, 64)
    flush[..., :32] = 1
    across[..., :32, :] = 1
    for coarse, refined, unsupported in (
        (across, flush, 0.0),
        (flush, across, 2.0),
        (flush, flush, 1.0),
        (torch.zeros_like(flush), across, 1.0),
    ):
        refinement = _refinement(coarse, coarse, refined=refined)
        seen = replace(refinement, scene=scene_of(coarse, image))
        assert _sign("unsupported", seen) == pytest.approx(unsupported, abs=1e-3)


def test_what_the_stabiliser_refused_has_no_signs() -> None:
    refinement = _refinement(_map(_SQUARE), _map(_SQUARE))
    refused = replace(refinement, final=Stabilized(probs=_map(_SQUARE), reasons=(AREA_RATIO,)))
    judged = Acceptance(rule_of(threshold=math.inf))(refused)
    assert judged.signs == (None,)
    assert judged.scores == (0.0,)
    assert judged.final.reasons == (AREA_RATIO,)


def test_training_measures_nothing() -> None:
    pipeline = build_pipeline(LesionFinder(64, 64), RefinerConfig())
    assert isinstance(pipeline.acceptance, NoAcceptance)
    refinement = _refinement(_map(_SQUARE), _map(_WIDE))
    assert pipeline.acceptance(refinement) is refinement


_FREE = RefinerConfig(stabilizer=StabilizerConfig(enabled=False))
_SIDE = 64


def _two_lesions() -> tuple[np.ndarray, np.ndarray]:
    """A dark disc and a dark square on grey; the first mask is good, the second far too large."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    disc = (y - 18) ** 2 + (x - 18) ** 2 < 9**2
    square = (abs(y - 46) < 6) & (abs(x - 46) < 6)
    image = np.where(disc | square, 0.1, 0.9).astype(np.float32)
    large = (abs(y - 46) < 10) & (abs(x - 46) < 10)
    return image, (disc | large).astype(np.float32)


def _one_lesion() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    disc = (y - 30) ** 2 + (x - 34) ** 2 < 12**2
    image = np.where(disc, 0.1, 0.9).astype(np.float32)
    return image, ((y - 31) ** 2 + (x - 34) ** 2 < 12**2).astype(np.float32)


def _refine(rule: AcceptanceRule | None) -> list[RefinedImage]:
    refiner = Refiner(LesionFinder(_SIDE, _SIDE), _FREE, device="cpu", bf16=False, rule=rule)
    images, coarse = zip(_two_lesions(), _one_lesion(), strict=True)
    return refiner.refine_batch(images, coarse)


def test_a_rule_that_accepts_all_changes_no_bit() -> None:
    without, accepted = _refine(None), _refine(rule_of(threshold=-math.inf))
    for before, after in zip(without, accepted, strict=True):
        assert np.array_equal(before.probs, after.probs)
        assert np.array_equal(before.mask, after.mask)
        assert np.array_equal(before.gate, after.gate)
        assert before.reason == after.reason == ACCEPTED
        assert before.signs == after.signs != ()
        assert before.score is None
        assert after.score == rule_of().score(after.signs)
    assert any((image.mask != image.coarse_mask).any() for image in without)


def test_a_rule_that_accepts_nothing_keeps_every_given_pixel() -> None:
    given = [_two_lesions()[1], _one_lesion()[1]]
    results = _refine(rule_of(threshold=math.inf))
    for result, coarse in zip(results, given, strict=True):
        assert not result.accepted
        assert np.array_equal(result.probs, coarse)
        assert np.array_equal(result.mask, coarse > 0.5)
        assert not result.gate.any()
        assert result.reason == f"{REFUSED}: {COMPLAINTS['moved']}"
        assert result.signs, "what was refused is known"


def test_the_worst_lesion_decides_for_its_image_alone() -> None:
    both, single = _refine(None)
    bad, good = both.signs  # the largest lesion comes first
    assert good.moved < 0.3 < bad.moved
    assert single.signs[0].moved < 0.3
    refused, accepted = _refine(rule_of(threshold=-0.3))
    assert [lesion.accepted for lesion in refused.lesions] == [False, False]
    assert refused.score == -bad.moved
    assert np.array_equal(refused.mask, refused.coarse_mask)
    assert accepted.accepted
    assert np.array_equal(accepted.probs, single.probs)

"""The tables of empty masks in the documentation are what the code does."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mask_pairs import mask
from monai.metrics import (
    compute_dice,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import METRICS, evaluate_mask
from ultrarefiner.metrics.policy import POLICIES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

EMPTY = np.zeros((3, 4), dtype=bool)
LESION = mask("....", ".##.", "....")
FULL = np.ones((3, 4), dtype=bool)
MASKS = {
    "both empty": (EMPTY, EMPTY),
    "missed": (EMPTY, LESION),
    "false positive": (LESION, EMPTY),
}
SPACING = (2.0, 1.5)
DIAGONAL = math.hypot(6, 6)
BY_FORMULA = {"specificity": 10 / 12}  # two of twelve background pixels are called lesion


def documented(heading: str) -> list[tuple[str, str, str]]:
    """Return metric, column and cell of the table below a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines)
    return [
        (row[0], column, cell)
        for row in rows
        for column, cell in zip(header[1:], row[1:], strict=True)
    ]


def check(cell: str, name: str, policy: str, pair) -> None:
    """Hold one documented cell against what the code gives."""
    if policy == "strict":
        with pytest.raises(InputError) as caught:
            evaluate_mask(*pair, SPACING, policy=policy)
        undefined = caught.value.what.removeprefix("undefined: ").split(", ")
        assert (name in undefined) == (cell == "error")
        return
    found = getattr(evaluate_mask(*pair, SPACING, policy=policy), name)
    meaning = {"–": math.nan, "diagonal": DIAGONAL, "formula": BY_FORMULA.get(name)}
    expected = meaning[cell] if cell in meaning else float(cell)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_metric_and_outcome_is_documented(policy):
    rows = {(metric, column) for metric, column, _ in documented(f"`{policy}`")}
    facts = {"area_error", "diameter_error"}
    assert rows == {(m, column) for m in set(METRICS) - facts for column in MASKS}


@pytest.mark.parametrize(
    ("policy", "metric", "column", "cell"),
    [(policy, *row) for policy in POLICIES for row in documented(f"`{policy}`")],
)
def test_table(policy, metric, column, cell):
    check(cell, metric, policy, MASKS[column])


@pytest.mark.parametrize(("policy", "metric", "cell"), documented("A target that fills the frame"))
@pytest.mark.parametrize("pred", [LESION, FULL], ids=["lesion", "full"])
def test_a_target_that_fills_the_frame(policy, metric, cell, pred):
    check(cell, metric, policy, (pred, FULL))


@pytest.mark.parametrize("policy", ["declared", "metrics-reloaded", "ignore"])
class TestUnderEveryPolicy:
    def test_area_and_diameter_are_facts(self, policy):
        missed = evaluate_mask(EMPTY, LESION, SPACING, policy=policy)
        assert (missed.area_pred, missed.area_target, missed.area_error) == (0.0, 6.0, -6.0)
        assert (missed.diameter_pred, missed.diameter_error) == (0.0, -1.5)

    @pytest.mark.parametrize("column", MASKS)
    def test_further_tolerances_follow_the_nsd(self, policy, column):
        metrics = evaluate_mask(*MASKS[column], SPACING, tolerances=(0.5,), policy=policy)
        assert metrics.nsd_at[0] == pytest.approx((0.5, metrics.nsd), nan_ok=True)

    def test_the_outcome_is_told_and_the_policy(self, policy):
        outcomes = [evaluate_mask(*pair, policy=policy).outcome for pair in MASKS.values()]
        assert outcomes == ["both_empty", "missed", "false_positive"]
        assert evaluate_mask(LESION, LESION, policy=policy).policy == policy

    def test_masks_with_pixels_are_none_of_its_business(self, policy):
        pair = (np.roll(LESION, 1, axis=1), LESION)
        names = [*METRICS, "area_pred", "diameter_pred"]
        found, declared = evaluate_mask(*pair, policy=policy), evaluate_mask(*pair)
        assert [getattr(found, n) for n in names] == [getattr(declared, n) for n in names]


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class 0 is all 0:UserWarning")
@pytest.mark.parametrize("column", MASKS)
def test_ignore_is_monai_but_for_the_overlap_of_a_false_positive(column):
    pred, target = MASKS[column]
    p, t = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (pred, target))
    confusion = get_confusion_matrix(p, t)[0]
    ours = evaluate_mask(pred, target, policy="ignore")
    for name in ("precision", "recall", "specificity"):
        theirs = compute_confusion_matrix_metric(name, confusion).item()
        assert getattr(ours, name) == pytest.approx(theirs, nan_ok=True)
    nsd = compute_surface_dice(p, t, [1.0], include_background=True).item()
    assert ours.nsd == pytest.approx(nsd, nan_ok=True)
    overlaps = compute_dice(p, t).item(), compute_iou(p, t).item()
    if column == "false positive":
        assert np.isnan(overlaps).all()
        assert (ours.dsc, ours.iou) == (0.0, 0.0)
    else:
        assert (ours.dsc, ours.iou) == pytest.approx(overlaps, nan_ok=True)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("both empty", "undefined: dsc, iou, precision, .*found no pixel in either mask"),
        ("missed", "undefined: precision, hd, hd95, assd: .*found no predicted pixel"),
        ("false positive", "undefined: recall, hd, hd95, assd: .*found no target pixel"),
    ],
)
def test_strict_names_what_is_undefined_and_what_is_empty(column, message):
    with pytest.raises(InputError, match=message):
        evaluate_mask(*MASKS[column], policy="strict")


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="unknown policy 'lenient': expected one of declared"):
        evaluate_mask(LESION, LESION, policy="lenient")

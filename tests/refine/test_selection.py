"""Selection by quality: a softmax, with gradients to the masks and to the predicted IoU."""

from __future__ import annotations

import math

import pytest
import torch
from sights import Picture
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.selection import (
    QualitySelection,
    Selected,
    SelectionConfig,
    build_selection,
)

_SIDE = 48


def _distance(radius_px: float, shift_px: float = 0.0) -> Tensor:
    """Distance to a circle's edge, positive inside, ``side side``."""
    centres = torch.arange(_SIDE) + 0.5
    x, y = centres[None] - 24 - shift_px, centres[:, None] - 24
    return radius_px - (x**2 + y**2).sqrt()


def _view(num_lesions: int = 1) -> Picture:
    """An image with a dark disc of radius 12 in it."""
    return Picture(grey=torch.where(_distance(12.0) > 0, 0.2, 0.8), num=num_lesions)


def _select(logits: list[Tensor], iou: list[float], **settings: float) -> Selected:
    defaults = {
        "temperature": 0.1,
        "contrast_weight": 0.0,
        "stability_weight": 0.0,
        "stability_offset": 1.0,
    }
    selection = QualitySelection(SelectionConfig(**defaults | settings))
    proposals = Proposals(logits=torch.stack(logits)[None], iou_predictions=torch.tensor([iou]))
    return selection(proposals, _view())


def test_weights_are_the_softmax_of_the_predicted_iou() -> None:
    logits = [_distance(12.0), _distance(9.0), _distance(15.0)]
    selected = _select(logits, [0.9, 0.8, 0.6])
    raw = [math.exp(q / 0.1) for q in (0.9, 0.8, 0.6)]
    expected = [value / sum(raw) for value in raw]
    assert selected.weights[0].tolist() == pytest.approx(expected, rel=1e-4)
    blend = sum(w * z.sigmoid() for w, z in zip(expected, logits, strict=True))
    torch.testing.assert_close(selected.probs[0, 0], blend)
    mean_iou = sum(w * q for w, q in zip(expected, (0.9, 0.8, 0.6), strict=True))
    assert selected.predicted_iou.item() == pytest.approx(mean_iou, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 10.0])
def test_weights_sum_to_one(temperature: float) -> None:
    proposals = Proposals(
        logits=4 * torch.randn(3, 9, _SIDE, _SIDE), iou_predictions=torch.rand(3, 9)
    )
    config = SelectionConfig(temperature=temperature, contrast_weight=0.3, stability_weight=1.0)
    selected = QualitySelection(config)(proposals, _view(3))
    assert selected.weights.shape == (3, 9)
    assert selected.probs.shape == (3, 1, _SIDE, _SIDE)
    torch.testing.assert_close(selected.weights.sum(dim=-1), torch.ones(3))
    assert (selected.weights >= 0).all()
    assert ((selected.probs >= 0) & (selected.probs <= 1)).all()


def test_without_temperature_the_best_candidate_stands_alone() -> None:
    logits = [_distance(9.0), _distance(12.0), _distance(15.0)]
    selected = _select(logits, [0.7, 0.72, 0.6], temperature=1e-4)
    assert selected.weights[0].tolist() == [0, 1, 0]
    assert torch.equal(selected.probs[0, 0], logits[1].sigmoid())
    assert selected.predicted_iou.item() == pytest.approx(0.72)


def test_equal_candidates_give_the_plain_mean() -> None:
    selected = _select([_distance(12.0)] * 4, [0.8] * 4, contrast_weight=0.5, stability_weight=1.0)
    torch.testing.assert_close(selected.weights, torch.full((1, 4), 0.25))
    torch.testing.assert_close(selected.probs[0, 0], _distance(12.0).sigmoid())


def test_equal_quality_gives_the_mean_of_different_masks() -> None:
    # Mirror images have the same contrast and stability.
    logits = [_distance(10.0, 4.0), _distance(10.0, -4.0)]
    selected = _select(logits, [0.8, 0.8], contrast_weight=0.5, stability_weight=1.0)
    mean = (logits[0].sigmoid() + logits[1].sigmoid()) / 2
    torch.testing.assert_close(selected.probs[0, 0], mean, atol=1e-4, rtol=0)


def test_the_candidate_on_the_edge_of_the_image_weighs_more() -> None:
    on_edge, beside = 5 * _distance(12.0), 5 * _distance(12.0, 5.0)
    selected = _select([beside, on_edge], [0.8, 0.8], contrast_weight=0.3)
    assert selected.weights[0, 1] > 0.9
    blind = _select([beside, on_edge], [0.8, 0.8])
    assert blind.weights[0].tolist() == pytest.approx([0.5, 0.5])


def test_an_outline_is_where_the_logit_is_zero() -> None:
    # The same outline, steep or shallow, has the same contrast.
    selected = _select([0.2 * _distance(12.0), 5 * _distance(12.0)], [0.8] * 2, contrast_weight=1.0)
    assert selected.weights[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_the_stable_candidate_weighs_more() -> None:
    steep, shallow = 5 * _distance(12.0), 0.3 * _distance(12.0)
    selected = _select([shallow, steep], [0.8, 0.8], stability_weight=1.0)
    # log(w1 / w0) = (s1 - s0) / tau, with the stabilities counted in pixels.
    stability = [float((z > 1).sum() / (z > -1).sum()) for z in (shallow, steep)]
    assert stability[1] > stability[0] + 0.2
    log_ratio = (selected.weights[0, 1] / selected.weights[0, 0]).log().item()
    assert log_ratio == pytest.approx((stability[1] - stability[0]) / 0.1, rel=1e-3)


def test_the_stability_offset_is_used() -> None:
    steep, shallow = 5 * _distance(12.0), 0.3 * _distance(12.0)
    near, far = (
        _select([shallow, steep], [0.8, 0.8], stability_weight=1.0, stability_offset=offset)
        for offset in (0.1, 1.0)
    )
    assert far.weights[0, 1] > near.weights[0, 1] > 0.5


def test_gradients_flow_to_logits_and_predicted_iou() -> None:
    logits = torch.stack([_distance(9.0), _distance(12.0)])[None].requires_grad_()
    iou = torch.tensor([[0.75, 0.8]], requires_grad=True)
    config = SelectionConfig(temperature=0.1, contrast_weight=0.1, stability_weight=0.1)
    selected = QualitySelection(config)(Proposals(logits=logits, iou_predictions=iou), _view())
    selected.probs.sum().backward()
    weights = selected.weights.detach()
    areas = logits.detach().sigmoid().sum(dim=(-2, -1))
    # d sum / d z = w p (1 - p), and d sum / d q_k = w_k (A_k - mean A) / tau.
    probs = logits.detach().sigmoid()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, weights[..., None, None] * probs * (1 - probs))
    expected = weights * (areas - (weights * areas).sum()) / 0.1
    assert iou.grad is not None
    torch.testing.assert_close(iou.grad, expected, rtol=1e-3, atol=1e-2)
    assert iou.grad[0, 1] > 0 > iou.grad[0, 0], "a larger mask has the larger sum"


def test_lesions_are_selected_one_by_one() -> None:
    logits = torch.stack(
        [torch.stack([_distance(9.0), _distance(12.0)]), torch.randn(2, _SIDE, _SIDE)]
    )
    iou = torch.tensor([[0.7, 0.8], [0.9, 0.5]])
    selection = QualitySelection(
        SelectionConfig(temperature=0.1, contrast_weight=0.3, stability_weight=1.0)
    )
    together = selection(Proposals(logits=logits, iou_predictions=iou), _view(2))
    for item in range(2):
        part = slice(item, item + 1)
        alone = selection(Proposals(logits=logits[part], iou_predictions=iou[part]), _view())
        torch.testing.assert_close(together.weights[part], alone.weights)
        torch.testing.assert_close(together.probs[part], alone.probs)


def test_empty_and_full_candidates_are_finite() -> None:
    flat = torch.full((_SIDE, _SIDE), 20.0)
    selected = _select([flat, -flat], [0.5, 0.5], contrast_weight=0.3, stability_weight=1.0)
    assert selected.weights.isfinite().all()
    assert selected.probs.isfinite().all()


def test_half_precision_answers_are_weighed_in_float32() -> None:
    proposals = Proposals(
        logits=_distance(12.0)[None, None].bfloat16(),
        iou_predictions=torch.ones(1, 1, dtype=torch.bfloat16),
    )
    config = SelectionConfig(temperature=0.1, contrast_weight=0.3, stability_weight=1.0)
    selected = QualitySelection(config)(proposals, _view())
    assert selected.probs.dtype == selected.predicted_iou.dtype == torch.float32


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature: expected > 0, found 0"):
        SelectionConfig(temperature=0)


def test_the_logits_are_those_of_the_blend() -> None:
    logits = torch.stack([_distance(9.0), _distance(12.0, 3.0), _distance(15.0)])[None].double()
    proposals = Proposals(logits=logits, iou_predictions=torch.rand(1, 3, dtype=torch.float64))
    selected = QualitySelection()(proposals, _view())
    torch.testing.assert_close(selected.logits, selected.probs.logit())
    torch.testing.assert_close(selected.logits.sigmoid(), selected.probs)


@pytest.mark.parametrize("value", [-200.0, -50.0, 20.0, 50.0, 200.0])
def test_the_logits_stay_finite_and_keep_what_the_probability_rounds_away(value: float) -> None:
    flat = torch.full((1, 2, 8, 8), value, requires_grad=True)
    proposals = Proposals(logits=flat, iou_predictions=torch.tensor([[0.6, 0.8]]))
    config = SelectionConfig(contrast_weight=0.0)
    selected = QualitySelection(config)(proposals, Picture(grey=torch.rand(8, 8)))
    selected.logits.sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
    assert selected.logits.isfinite().all()
    if abs(value) <= 50:  # float32 rounds the probability to 1 from 17 on
        torch.testing.assert_close(selected.logits, torch.full((1, 1, 8, 8), value))
        torch.testing.assert_close(flat.grad.sum(dim=1), torch.ones(1, 8, 8))


def test_the_default_is_this_one_with_its_own_temperature() -> None:
    selection = build_selection(SelectionConfig())
    assert isinstance(selection, QualitySelection)
    proposals = Proposals(
        logits=torch.stack([_distance(12.0), _distance(9.0)])[None],
        iou_predictions=torch.tensor([[0.90, 0.87]]),
    )
    blind = SelectionConfig(contrast_weight=0.0, stability_weight=0.0)
    weights = build_selection(blind)(proposals, _view()).weights[0]
    assert (weights[0] / weights[1]).item() == pytest.approx(math.e, rel=1e-4)

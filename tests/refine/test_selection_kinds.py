"""Selections: all keep one contract; soft, hard and single have their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sights import Picture
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.selection import SELECTIONS, Selected, SelectionConfig, build_selection


def _proposals(
    num: int = 2, candidates: int = 3, side: int = 16, dtype: torch.dtype = torch.float32
) -> Proposals:
    return Proposals(
        logits=3 * torch.randn(num, candidates, side, side, dtype=dtype),
        iou_predictions=torch.rand(num, candidates, dtype=dtype),
    )


def _select(proposals: Proposals, kind: str, temperature: float | None = None) -> Selected:
    num, side = len(proposals.logits), proposals.logits.shape[-1]
    picture = Picture(grey=torch.linspace(0, 1, side**2).view(side, side), num=num)
    return build_selection(SelectionConfig(kind=kind, temperature=temperature))(proposals, picture)


@pytest.mark.parametrize("kind", list(SELECTIONS))
@pytest.mark.parametrize("candidates", [1, 3, 9])
def test_every_selection_keeps_the_contract(kind: str, candidates: int) -> None:
    proposals = _proposals(candidates=candidates)
    selected = _select(proposals, kind)
    assert selected.probs.shape == selected.logits.shape == (2, 1, 16, 16)
    assert selected.weights.shape == (2, candidates)
    assert (selected.weights >= 0).all()
    torch.testing.assert_close(selected.weights.sum(dim=-1), torch.ones(2))
    torch.testing.assert_close(selected.logits.sigmoid(), selected.probs)
    mean = (selected.weights * proposals.iou_predictions).sum(dim=-1)
    torch.testing.assert_close(selected.predicted_iou, mean)


@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_one_candidate_is_taken_as_it_is(kind: str) -> None:
    proposals = _proposals(candidates=1)
    selected = _select(proposals, kind)
    torch.testing.assert_close(selected.logits, proposals.logits)
    assert torch.equal(selected.predicted_iou, proposals.iou_predictions[:, 0])


@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_every_selection_treats_lesions_one_by_one(kind: str) -> None:
    proposals = _proposals(num=3)
    together = _select(proposals, kind)
    for item in range(3):
        part = slice(item, item + 1)
        alone = Proposals(
            logits=proposals.logits[part], iou_predictions=proposals.iou_predictions[part]
        )
        torch.testing.assert_close(_select(alone, kind).logits, together.logits[part])


@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_half_precision_answers_are_weighed_in_float32(kind: str) -> None:
    proposals = _proposals(dtype=torch.bfloat16)
    exact = Proposals(
        logits=proposals.logits.float(), iou_predictions=proposals.iou_predictions.float()
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        selected = _select(proposals, kind)
    expected = _select(exact, kind)
    assert selected.logits.dtype == selected.predicted_iou.dtype == torch.float32
    assert torch.equal(selected.logits, expected.logits)


@pytest.mark.parametrize("kind", list(SELECTIONS))
@pytest.mark.parametrize("value", [-80.0, 0.0, 80.0])
def test_constant_candidates_have_finite_gradients(kind: str, value: float) -> None:
    logits = torch.full((1, 3, 8, 8), value, requires_grad=True)
    iou = torch.full((1, 3), 0.8, requires_grad=True)
    selected = _select(Proposals(logits=logits, iou_predictions=iou), kind)
    (selected.logits.sum() + selected.probs.sum() + selected.predicted_iou.sum()).backward()
    for leaf in (logits, iou):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_gradients_are_exact(kind: str) -> None:
    proposals = _proposals(num=1, side=4, dtype=torch.float64)
    inputs = (proposals.logits.requires_grad_(), proposals.iou_predictions.requires_grad_())

    def blend(logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        selected = _select(Proposals(logits=logits, iou_predictions=iou), kind, temperature=0.1)
        return selected.logits, selected.probs, selected.predicted_iou

    assert torch.autograd.gradcheck(blend, inputs)


@pytest.mark.parametrize(
    ("kind", "multimask"), [("quality", False), ("single", False), ("soft", True), ("hard", True)]
)
def test_each_asks_for_the_candidates_that_it_needs(kind: str, multimask: bool) -> None:
    assert build_selection(SelectionConfig(kind=kind)).multimask_output is multimask


@pytest.mark.parametrize("temperature", [None, 0.02, 1.0])
def test_soft_blends_logits_by_the_softmax_of_the_predicted_iou(temperature: float | None) -> None:
    proposals = _proposals()
    selected = _select(proposals, "soft", temperature)
    raw = (proposals.iou_predictions / (temperature or 0.1)).exp()
    weights = raw / raw.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(selected.weights, weights)
    blend = torch.einsum("bk,bkhw->bhw", weights, proposals.logits)
    torch.testing.assert_close(selected.logits[:, 0], blend)


def test_soft_without_temperature_is_hard() -> None:
    proposals = _proposals(num=8)
    soft, hard = _select(proposals, "soft", 1e-5), _select(proposals, "hard")
    assert torch.equal(soft.weights, hard.weights)
    torch.testing.assert_close(soft.logits, hard.logits)


def test_soft_at_low_resolution_is_soft_after_upsampling() -> None:
    proposals = _proposals(dtype=torch.float64)

    def enlarge(maps: Tensor) -> Tensor:
        return F.interpolate(maps, (57, 64), mode="bilinear", align_corners=False)

    before = enlarge(_select(proposals, "soft").logits)
    weights = _select(proposals, "soft").weights[..., None, None]
    after = (weights * enlarge(proposals.logits)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(before, after)


def test_hard_takes_the_candidate_of_greatest_predicted_iou() -> None:
    proposals = Proposals(
        logits=torch.randn(3, 3, 4, 4),
        iou_predictions=torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.4, 0.3], [0.2, 0.7, 0.7]]),
    )
    selected = _select(proposals, "hard")
    for item, best in enumerate((1, 0, 1)):
        assert torch.equal(selected.logits[item, 0], proposals.logits[item, best])
        assert selected.weights[item].tolist() == [float(k == best) for k in range(3)]


def test_hard_passes_gradients_through_the_chosen_logits_alone() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    iou = torch.tensor([[0.1, 0.9, 0.3]], requires_grad=True)
    selected = _select(Proposals(logits=logits, iou_predictions=iou), "hard")
    (through_iou,) = torch.autograd.grad(
        selected.logits.sum() + selected.probs.sum(), iou, retain_graph=True, allow_unused=True
    )
    assert through_iou is None
    selected.logits.sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum(dim=(-2, -1)).tolist() == [[0, 16, 0]]


def test_single_takes_the_first_candidate_whatever_the_scores() -> None:
    proposals = _proposals(num=4)
    selected = _select(proposals, "single")
    assert torch.equal(selected.logits, proposals.logits[:, :1])
    assert torch.equal(selected.predicted_iou, proposals.iou_predictions[:, 0])


@pytest.mark.parametrize("kind", list(SELECTIONS))
def test_every_selection_compiles_to_one_graph(kind: str) -> None:
    proposals = _proposals()
    picture = Picture(grey=torch.rand(16, 16), num=2)
    selection = build_selection(SelectionConfig(kind=kind))

    def select(logits: Tensor, iou: Tensor) -> Tensor:
        return selection(Proposals(logits=logits, iou_predictions=iou), picture).logits

    compiled = torch.compile(select, backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(proposals.logits, proposals.iou_predictions),
        select(proposals.logits, proposals.iou_predictions),
    )


def test_an_unknown_selection_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown selection 'sofd'.*Did you mean 'soft'"):
        build_selection(SelectionConfig(kind="sofd"))

"""Phase 3: logits or a probability, the weights of the parts, and the weight anchor."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import JOINT_LOSSES, BCEDice, JointLoss, weight_anchor, weights_of


def refined(*, soft: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(3, 1, 5, 6, generator=generator, dtype=torch.float64)
    raw = torch.rand(3, 1, 5, 6, generator=generator, dtype=torch.float64)
    return logits, raw if soft else (raw > 0.5).double()


class TestBCEDice:
    def test_by_hand(self) -> None:
        logits = torch.tensor([[[[0.0, math.log(3)]]]])
        target = torch.tensor([[[[0.0, 1.0]]]])
        expected = ((math.log(2) + math.log(4 / 3)) / 2 + 1 - 1.5 / 2.25) / 2
        assert BCEDice()(target, logits=logits).item() == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("soft", [False, True])
    def test_against_torch_and_monai(self, soft: bool) -> None:
        logits, target = refined(soft=soft)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        dice = DiceLoss(sigmoid=True, soft_label=True, reduction="none")
        expected = (entropy.mean((1, 2, 3)) + dice(logits, target)[:, 0, 0, 0]) / 2
        torch.testing.assert_close(BCEDice()(target, logits=logits), expected)

    @pytest.mark.parametrize("soft", [False, True])
    def test_a_probability_gives_what_its_logits_give(self, soft: bool) -> None:
        logits, target = refined(soft=soft)
        loss = BCEDice()
        torch.testing.assert_close(
            loss(target, probs=logits.sigmoid()), loss(target, logits=logits)
        )

    def test_logits_taken_for_a_probability_are_another_loss(self) -> None:
        logits, target = refined()
        loss = BCEDice()
        assert (loss(target, probs=logits.sigmoid()) - loss(target, probs=logits)).abs().min() > 0.1

    @pytest.mark.parametrize("kind", ["logits", "probs"])
    def test_gradient(self, kind: str) -> None:
        logits, target = refined(soft=True)
        values = logits if kind == "logits" else logits.sigmoid()
        loss = BCEDice()
        assert torch.autograd.gradcheck(
            lambda x: loss(target, **{kind: x}), values.requires_grad_()
        )

    @pytest.mark.parametrize("certain", [0.0, 1.0])
    @pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("kind", ["logits", "probs"])
    def test_extremes_stay_finite_and_in_float32(
        self, kind: str, certain: float, truth: float
    ) -> None:
        value = 200 * certain - 100 if kind == "logits" else certain
        maps = torch.full((2, 1, 8, 8), value, dtype=torch.bfloat16, requires_grad=True)
        target = torch.full((2, 1, 8, 8), truth)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = BCEDice()(target, **{kind: maps})
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert maps.grad is not None
        assert maps.grad.isfinite().all()
        assert truth == 0.5 or (loss < 1e-3).all() == (certain == truth)

    def test_a_certain_error_has_a_gradient_through_logits_alone(self) -> None:
        """What the clamp costs, and why logits are taken where there are any."""
        target = torch.ones(1, 1, 4, 4)
        logits = torch.full((1, 1, 4, 4), -20.0, requires_grad=True)
        (direct,) = torch.autograd.grad(BCEDice()(target, logits=logits).sum(), logits)
        probs = BCEDice()(target, probs=logits.sigmoid()).sum()
        (clamped,) = torch.autograd.grad(probs, logits)
        torch.testing.assert_close(direct, torch.full_like(direct, -0.5 / 16))
        assert clamped.abs().max() < 1e-8

    def test_one_of_both(self) -> None:
        logits, target = refined()
        with pytest.raises(AssertionError, match="not both"):
            BCEDice()(target, logits=logits, probs=logits.sigmoid())
        with pytest.raises(AssertionError, match="neither"):
            BCEDice()(target)


class TestJointLoss:
    @pytest.mark.parametrize(
        ("preset", "weights"), [("refine", (0.1, 0.9)), ("protect", (0.5, 0.5))]
    )
    def test_presets(self, preset: str, weights: tuple[float, float]) -> None:
        coarse, refined = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0])
        loss = JOINT_LOSSES[preset]
        terms = loss(coarse, refined)
        torch.testing.assert_close(terms.total, weights[0] * coarse + weights[1] * refined)
        torch.testing.assert_close(dict(terms.parts), {"coarse": coarse, "refined": refined})

    def test_the_anchor_counts_once_whatever_the_batch(self) -> None:
        values = torch.tensor([1.0, 2.0, 3.0])
        loss, anchor = JointLoss(anchor_weight=0.5), torch.tensor(8.0)
        terms = loss(values, values, anchor=anchor)
        assert terms.total.mean().item() == pytest.approx(2 + 4)
        assert terms.parts["anchor"].tolist() == [8, 8, 8]

    def test_gradient_reaches_both_networks_with_its_weights(self) -> None:
        """One logit for each; the anchor holds the coarse one."""
        coarse = torch.tensor([[[[0.5]]]], dtype=torch.float64, requires_grad=True)
        refined = torch.tensor([[[[-0.3]]]], dtype=torch.float64, requires_grad=True)
        target = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        loss = JointLoss(anchor_weight=0.25)
        terms = (loss.coarse(coarse, target), loss.refined(target, logits=refined))
        total = loss(*terms, anchor=(coarse - 0.1).square().sum()).total
        alone = torch.autograd.grad(sum(terms), (coarse, refined), retain_graph=True)
        found = torch.autograd.grad(total, (coarse, refined))
        assert found[0].item() == pytest.approx(0.1 * alone[0].item() + 0.25 * 2 * 0.4)
        assert found[1].item() == pytest.approx(0.9 * alone[1].item())

    @pytest.mark.parametrize(
        "setting",
        [
            {"coarse_weight": -0.1},
            {"refined_weight": math.nan},
            {"anchor_weight": -1.0},
            {"anchor_reduction": "max"},
        ],
    )
    def test_bad_settings(self, setting: dict[str, float]) -> None:
        with pytest.raises(ConfigError):
            JointLoss(**setting)  # type: ignore[arg-type]

    @pytest.mark.parametrize("eps", [0.0, 1e-8, 0.5, math.nan])
    def test_bad_eps(self, eps: float) -> None:
        with pytest.raises(ConfigError, match="eps"):
            BCEDice(eps=eps)


class TestWeightAnchor:
    def network(self) -> nn.Module:
        layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        for value in layers.parameters():
            nn.init.constant_(value, 0.5)
        return layers.double()

    def test_by_hand(self) -> None:
        """19 parameters; two have moved, by 3 and by 4."""
        network = self.network()
        start = weights_of(network)
        assert weight_anchor(network, start).item() == 0
        with torch.no_grad():
            network[0].weight[0, 0] += 3
            network[2].bias[0] -= 4
        assert weight_anchor(network, start, reduction="sum").item() == pytest.approx(25)
        assert weight_anchor(network, start).item() == pytest.approx(25 / 19)

    def test_gradient_is_twice_the_way(self) -> None:
        network = self.network()
        start = weights_of(network)
        with torch.no_grad():
            network[0].weight += 0.25
        weight_anchor(network, start, reduction="sum").backward()
        gradient = network[0].weight.grad
        torch.testing.assert_close(gradient, torch.full_like(gradient, 0.5))
        assert not network[2].weight.grad.any()

    def test_statistics_do_not_count_and_the_start_stays(self) -> None:
        network = self.network()
        start = weights_of(network)
        network(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double())
        assert weight_anchor(network, start).item() == 0
        with torch.no_grad():
            network[0].bias += 1
        assert start["0.bias"].tolist() == [0.5] * 3

    def test_in_float32_under_autocast(self) -> None:
        network = self.network().bfloat16()
        start = weights_of(network)
        with torch.no_grad():
            network[0].bias += 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            anchor = weight_anchor(network, start, reduction="sum")
        assert anchor.dtype == torch.float32
        assert anchor.item() == 3

    def test_of_another_network(self) -> None:
        with pytest.raises(AssertionError, match="another network"):
            weight_anchor(self.network(), weights_of(nn.Linear(2, 3)))

"""Phase 2: each penalty by hand, what the default equals, and several candidates."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import REFINER_LOSSES, ChangePenalty, RefinerLoss, iou_head_loss

VARIANTS = [
    ChangePenalty(norm=norm, target=target, region=region)  # type: ignore[arg-type]
    for norm, target, region in itertools.product(
        [1, 2], ["binary", "soft"], ["correct", "quality"]
    )
]


def batch(num_candidates: int, *, soft: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, truth and a coarse map that is right in most places."""
    generator = torch.Generator().manual_seed(5)

    def draw(channels: int) -> Tensor:
        return torch.randn(3, channels, 6, 5, generator=generator, dtype=torch.float64)

    truth = (draw(1) > 0).double()
    coarse = (2 * (2 * truth - 1) + 1.5 * draw(1)).sigmoid()
    target = 0.9 * truth + 0.05 if soft else truth
    return 2 * draw(num_candidates), target, coarse


class TestChangePenalty:
    """Four pixels: refined 3/4 1/4 1/2 1/4, coarse 0.8 0.4 0.6 0.1, truth 1 1 1 0.

    The coarse mask is 1 0 1 0: right but for the second pixel, so that its Dice is 4/5.
    """

    probs = torch.tensor([[[[0.75, 0.25], [0.5, 0.25]]]])
    coarse = torch.tensor([[[[0.8, 0.4], [0.6, 0.1]]]])
    target = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])

    @pytest.mark.parametrize(
        ("norm", "reference", "region", "expected"),
        [
            (1, "binary", "correct", (0.25 + 0.5 + 0.25) / 4),
            (2, "binary", "correct", (0.0625 + 0.25 + 0.0625) / 4),
            (1, "soft", "correct", (0.05 + 0.1 + 0.15) / 4),
            (2, "soft", "correct", (0.0025 + 0.01 + 0.0225) / 4),
            (1, "binary", "quality", 0.5 * (0.25 + 0.25 + 0.5 + 0.25) / 4),
            (2, "binary", "quality", 0.5 * (0.0625 + 0.0625 + 0.25 + 0.0625) / 4),
            (1, "soft", "quality", 0.5 * (0.05 + 0.15 + 0.1 + 0.15) / 4),
            (2, "soft", "quality", 0.5 * (0.0025 + 0.0225 + 0.01 + 0.0225) / 4),
        ],
    )
    def test_by_hand(self, norm: int, reference: str, region: str, expected: float) -> None:
        penalty = ChangePenalty(norm=norm, target=reference, region=region)  # type: ignore[arg-type]
        found = penalty(self.probs, self.target, self.coarse)
        assert found.tolist() == [[pytest.approx(expected)]]

    def test_the_default_is_an_l1_to_the_truth_where_the_coarse_mask_is_right(self) -> None:
        logits, target, coarse = batch(2)
        right = (coarse > 0.5) == (target > 0.5)
        assert 0 < right.sum() < right.numel()
        expected = ((logits.sigmoid() - target) * right).abs()
        found = ChangePenalty()(logits.sigmoid(), target, coarse)
        torch.testing.assert_close(found, expected.mean(dim=(2, 3)))
        other = torch.where(right, (coarse > 0.5) * 0.4 + 0.3, coarse)  # other values, same mask
        torch.testing.assert_close(ChangePenalty()(logits.sigmoid(), target, other), found)
        soft = ChangePenalty(target="soft")
        assert (
            soft(logits.sigmoid(), target, other) - soft(logits.sigmoid(), target, coarse)
        ).any()

    @pytest.mark.parametrize(
        ("dice", "weight"), [(0.5, 0), (0.6, 0), (0.7, 0.25), (0.8, 0.5), (0.9, 0.75), (1, 1)]
    )
    def test_quality_weighs_as_the_table_says(self, dice: float, weight: float) -> None:
        """Coarse and truth of 10 px each share ``10 dice`` of them."""
        common = round(10 * dice)
        coarse, target = torch.zeros(1, 1, 1, 20), torch.zeros(1, 1, 1, 20)
        coarse[..., :10] = 1
        target[..., 10 - common : 20 - common] = 1
        penalty = ChangePenalty(region="quality")
        found = penalty(1 - coarse, target, coarse)
        assert found.item() == pytest.approx(weight, abs=1e-6)

    @pytest.mark.parametrize("penalty", VARIANTS, ids=str)
    def test_of_an_empty_coarse_mask(self, penalty: ChangePenalty) -> None:
        """Right about an empty truth: any lesion is a change. Else nothing is held back there."""
        nothing, lesion = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        lesion[..., :2, :] = 1
        assert penalty(lesion, nothing, nothing).item() == pytest.approx(0.5)
        assert penalty(lesion, lesion, nothing).item() == 0

    @pytest.mark.parametrize("setting", [{"norm": 3}, {"target": "hard"}, {"region": "all"}])
    def test_bad_settings(self, setting: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="change penalty"):
            ChangePenalty(**setting)  # type: ignore[arg-type]


class TestTerms:
    def test_quality_term_by_term(self) -> None:
        logits, target, coarse = batch(1)
        terms = REFINER_LOSSES["quality"](logits, target, coarse)
        probs = logits.sigmoid()
        overlap, sizes = (probs * target).sum((1, 2, 3)), (probs + target).sum((1, 2, 3))
        expected = {
            "bce": F.binary_cross_entropy(probs, target, reduction="none").mean((1, 2, 3)),
            "dice": 1 - (2 * overlap + 1) / (sizes + 1),
            "change": ChangePenalty()(probs, target, coarse)[:, 0],
        }
        torch.testing.assert_close(dict(terms.parts), expected)
        total = expected["bce"] + expected["dice"] + 0.5 * expected["change"]
        torch.testing.assert_close(terms.total, total)

    def test_advanced_adds_focal_and_the_iou_head(self) -> None:
        logits, target, coarse = batch(3)
        guesses = torch.tensor([[0.9, 0.5, 0.1]] * 3, dtype=torch.float64)
        terms = REFINER_LOSSES["advanced"](logits, target, coarse, iou_predictions=guesses)
        weights = {"bce": 1.0, "dice": 1.0, "focal": 0.5, "change": 0.5, "iou": 0.1}
        assert terms.parts.keys() == weights.keys()
        total = sum(weight * terms.parts[name] for name, weight in weights.items())
        torch.testing.assert_close(terms.total, total)
        truth = target.expand_as(logits)
        theirs = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=2).mean((1, 2, 3))
        torch.testing.assert_close(terms.parts["focal"], theirs)
        penalty = ChangePenalty(norm=2, target="soft", region="quality")
        expected = penalty(logits.sigmoid(), target, coarse).mean(dim=1)
        torch.testing.assert_close(terms.parts["change"], expected)
        assert not any(part.requires_grad for part in terms.parts.values())

    def test_each_candidate_has_its_own_iou(self) -> None:
        """Truth: the upper row. Candidates: that, all, the lower row, the first pixel, nothing."""
        masks = torch.tensor(
            [[[1, 1], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [1, 1]], [[1, 0], [0, 0]], [[0, 0]] * 2]
        )
        logits = (6.0 * masks - 3)[None].requires_grad_()
        target = torch.tensor([[[[0.8, 1.0], [0.2, 0.0]]]])
        guesses = torch.zeros(1, 5, requires_grad=True)
        error = iou_head_loss(guesses, logits=logits, target=target)
        torch.testing.assert_close(error, torch.tensor([[1, 0.5, 0, 0.5, 0]]) ** 2)
        error.sum().backward()
        assert logits.grad is None
        torch.testing.assert_close(guesses.grad, -2 * torch.tensor([[1, 0.5, 0, 0.5, 0]]))

    def test_nothing_predicted_of_nothing_is_an_iou_of_one(self) -> None:
        nothing = torch.zeros(1, 1, 2, 2)
        error = iou_head_loss(torch.ones(1, 1), logits=nothing - 5, target=nothing)
        assert error.item() == 0


class TestCandidates:
    def test_all_is_the_mean_over_them(self) -> None:
        logits, target, coarse = batch(3)
        loss = RefinerLoss(focal_weight=0.5)
        alone = [loss(logits[:, [k]], target, coarse).total for k in range(3)]
        together = loss(logits, target, coarse).total
        torch.testing.assert_close(together, torch.stack(alone).mean(dim=0))

    def test_best_is_the_nearest_and_the_others_feel_nothing(self) -> None:
        logits, target, coarse = batch(3)
        near = 4 * (2 * target[:, 0] - 1)
        logits[[0, 1, 2], [2, 0, 1]] = near
        logits.requires_grad_()
        guesses = torch.full((3, 3), 0.5, dtype=torch.float64, requires_grad=True)
        loss = RefinerLoss(supervise="best", iou_weight=0.1)
        found = loss(logits, target, coarse, iou_predictions=guesses)
        alone = RefinerLoss()(near[:, None], target, coarse)
        torch.testing.assert_close(found.parts["bce"], alone.parts["bce"])
        found.total.sum().backward()
        assert logits.grad is not None
        assert guesses.grad is not None
        assert logits.grad.flatten(2).any(dim=2).nonzero().tolist() == [[0, 2], [1, 0], [2, 1]]
        assert guesses.grad.all()

    def test_each_image_has_its_own_loss(self) -> None:
        logits, target, coarse = batch(2, soft=True)
        loss = RefinerLoss(change=ChangePenalty(region="quality"))
        alone = loss(logits[1:2], target[1:2], coarse[1:2]).total
        torch.testing.assert_close(loss(logits, target, coarse).total[1:2], alone)

    @pytest.mark.parametrize("penalty", VARIANTS, ids=str)
    @pytest.mark.parametrize("soft", [False, True])
    def test_gradient(self, penalty: ChangePenalty, soft: bool) -> None:
        logits, target, coarse = (x[:2, :, :4, :4] for x in batch(2, soft=soft))
        guesses = torch.tensor([[0.3, 0.9], [0.6, 0.2]], dtype=torch.float64, requires_grad=True)
        loss = RefinerLoss(focal_weight=0.5, iou_weight=0.1, change=penalty)

        def total(logits: Tensor, guesses: Tensor) -> Tensor:
            return loss(logits, target, coarse, iou_predictions=guesses).total

        inputs = logits.clone().requires_grad_()
        assert torch.autograd.gradcheck(total, (inputs, guesses))

    def test_the_coarse_map_gets_no_gradient(self) -> None:
        logits, target, coarse = batch(1)
        coarse.requires_grad_()
        for penalty in VARIANTS:
            total = RefinerLoss(change=penalty)(logits.requires_grad_(), target, coarse).total
            (gradient,) = torch.autograd.grad(total.sum(), coarse, allow_unused=True)
            assert gradient is None

    @pytest.mark.parametrize("value", [-100.0, 100.0])
    @pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("preset", sorted(REFINER_LOSSES))
    def test_extremes_stay_finite_and_in_float32(
        self, preset: str, value: float, truth: float
    ) -> None:
        logits = torch.full((2, 3, 8, 8), value, dtype=torch.bfloat16, requires_grad=True)
        target, coarse = (torch.full((2, 1, 8, 8), x) for x in (truth, 1 - truth))
        guesses = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = REFINER_LOSSES[preset](logits, target, coarse, iou_predictions=guesses)
        loss.total.sum().backward()
        assert loss.total.dtype == torch.float32
        assert loss.total.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_training_on_it_keeps_what_was_right(self) -> None:
        """The penalty's use: of pixels that the truth leaves open, those that were right stay."""
        _, target, coarse = batch(1, soft=True)
        target = 0.5 + 0.2 * (target - 0.5)
        reached = {}
        for weight in (0.0, 2.0):
            logits = torch.zeros_like(target).requires_grad_()
            optimizer = torch.optim.Adam([logits], lr=0.1)
            loss = RefinerLoss(change_weight=weight)
            for _ in range(150):
                optimizer.zero_grad()
                loss(logits, target, coarse).total.sum().backward()
                optimizer.step()
            reached[weight] = (logits.sigmoid() - (coarse > 0.5).double()).abs().detach()
        right = (coarse > 0.5) == (target > 0.5)
        assert reached[2.0][right].mean() < 0.7 * reached[0.0][right].mean()
        torch.testing.assert_close(reached[2.0][~right], reached[0.0][~right], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "setting",
    [
        {"focal_weight": -1.0},
        {"change_weight": math.nan},
        {"iou_weight": -0.1},
        {"dice_eps": 0.0},
        {"focal_gamma": 0.5},
        {"supervise": "worst"},
    ],
)
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RefinerLoss(**setting)  # type: ignore[arg-type]

"""Each loss of our own against another library, or solved by hand on 2 x 2 pixels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss
from segmentation_models_pytorch.losses import LovaszLoss
from segmentation_models_pytorch.losses.lovasz import _lovasz_softmax
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ultrarefiner.losses import (
    Combo,
    CrossEntropyDice,
    ExponentialLogarithmic,
    Focal,
    Lovasz,
    TopK,
    bce,
    bce_of_probs,
    dice_loss,
    focal,
)
from ultrarefiner.losses.overlap import hard_dice, hard_iou
from ultrarefiner.losses.ranked import lovasz_extension

LN2, LN3 = math.log(2), math.log(3)


def maps(*, soft: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 1, 9, 8, generator=generator, dtype=torch.float64)
    raw = torch.rand(4, 1, 9, 8, generator=generator, dtype=torch.float64)
    return logits, raw if soft else (raw > 0.6).double()


def classes() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (2, 6, 5), generator=generator)
    return logits, labels, F.one_hot(labels, 3).movedim(-1, 1).double()


class TestPixels:
    @pytest.mark.parametrize("soft", [False, True])
    def test_bce_against_torch(self, soft: bool) -> None:
        logits, target = maps(soft=soft)
        expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        torch.testing.assert_close(bce(logits, target), expected.mean(dim=(2, 3)))
        torch.testing.assert_close(
            bce_of_probs(logits.sigmoid(), target), expected.mean(dim=(2, 3))
        )

    def test_a_certain_probability_is_clamped(self) -> None:
        probs, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
        found = bce_of_probs(probs, target, eps=1e-4)
        torch.testing.assert_close(found, torch.tensor(-math.log(1e-4)), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
    def test_focal_against_torchvision(self, gamma: float, alpha: float | None) -> None:
        logits, target = maps()
        theirs = sigmoid_focal_loss(
            logits, target, alpha=-1 if alpha is None else alpha, gamma=gamma
        )
        found = focal(logits, target, gamma=gamma, alpha=alpha)
        torch.testing.assert_close(found, theirs.mean(dim=(2, 3)))

    def test_focal_is_least_at_a_soft_truth(self) -> None:
        """The usual formula is not: at y = 0.8 it prefers p = 0.9."""
        target = torch.full((1, 1), 0.8, dtype=torch.float64)
        at_truth, beyond = target.logit(), torch.full_like(target, 0.9).logit()
        usual = [
            sigmoid_focal_loss(x, target, alpha=-1, gamma=2).item() for x in (at_truth, beyond)
        ]
        assert usual[1] < usual[0]
        assert focal(at_truth, target).item() == pytest.approx(0, abs=1e-30)
        assert focal(beyond, target).item() > 1e-3

    def test_focal_of_classes_against_monai(self) -> None:
        logits, _, target = classes()
        theirs = FocalLoss(use_softmax=True, gamma=2, alpha=0.25, reduction="none")
        expected = theirs(logits, target).sum(dim=1).mean(dim=(1, 2))
        torch.testing.assert_close(Focal()(logits.float(), target.float()), expected)


class TestDice:
    @pytest.mark.parametrize("eps", [1e-5, 1.0])
    @pytest.mark.parametrize(("squared", "soft"), [(False, False), (True, False), (True, True)])
    def test_the_usual_formula(self, eps: float, squared: bool, soft: bool) -> None:
        logits, target = maps(soft=soft)
        probs, n = logits.sigmoid(), 2 if squared else 1
        sizes = (probs**n + target**n).sum(dim=(2, 3))
        expected = 1 - (2 * (probs * target).sum(dim=(2, 3)) + eps) / (sizes + eps)
        torch.testing.assert_close(dice_loss(probs, target, eps=eps, squared=squared), expected)

    @pytest.mark.parametrize("squared", [False, True])
    @pytest.mark.parametrize("soft", [False, True])
    def test_against_monai(self, squared: bool, soft: bool) -> None:
        logits, target = maps(soft=soft)
        theirs = DiceLoss(
            sigmoid=True,
            squared_pred=squared,
            soft_label=True,
            smooth_nr=1,
            smooth_dr=1,
            reduction="none",
        )
        found = dice_loss(logits.sigmoid(), target, eps=1, squared=squared)
        torch.testing.assert_close(found, theirs(logits, target)[..., 0, 0])

    @pytest.mark.parametrize("squared", [False, True])
    def test_a_soft_truth_is_where_the_loss_is_least(self, squared: bool) -> None:
        _, target = maps(soft=True)
        at_truth = dice_loss(target, target, squared=squared)
        assert (at_truth == 0).all()
        for other in (target.round(), 0.9 * target, (target + 0.05).clamp(max=1)):
            assert (dice_loss(other, target, squared=squared) > at_truth).all()

    def test_empty_and_full(self) -> None:
        empty, full = torch.zeros(8, 8), torch.ones(8, 8)
        assert dice_loss(empty, empty).item() == dice_loss(full, full).item() == 0
        assert dice_loss(full, empty).item() > 0.99
        assert dice_loss(empty, full).item() > 0.99
        assert dice_loss(full[:1, :1], empty[:1, :1], eps=1).item() == 0.5

    def test_of_masks(self) -> None:
        a = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
        b = torch.tensor([[[True, False], [True, True]], [[False, False], [False, False]]])
        assert hard_dice(a, b).tolist() == pytest.approx([2 / 5, 1])
        assert hard_iou(a, b).tolist() == pytest.approx([1 / 4, 1])


class TestTopK:
    @pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
    def test_the_mean_of_the_hardest(self, share: float) -> None:
        logits, target = maps(soft=True)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1)
        number = max(1, round(share * 72))
        expected = [sum(sorted(row, reverse=True)[:number]) / number for row in entropy.tolist()]
        assert TopK(share=share)(logits, target).tolist() == pytest.approx(expected)

    def test_all_pixels_of_classes(self) -> None:
        logits, labels, target = classes()
        expected = F.cross_entropy(logits, labels, reduction="none").mean(dim=(1, 2))
        torch.testing.assert_close(TopK(share=1)(logits, target), expected)


class TestLovasz:
    def test_hinge_against_smp(self) -> None:
        logits, target = (x.float() for x in maps())  # they take nothing else
        theirs = LovaszLoss(mode="binary", per_image=True)
        expected = [theirs(logits[i : i + 1], target[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(Lovasz()(logits, target), torch.stack(expected))

    def test_softmax_against_smp(self) -> None:
        logits, labels, target = classes()
        probs = logits.float().softmax(dim=1)
        expected = [
            _lovasz_softmax(probs[i : i + 1], labels[i : i + 1], classes=[1, 2]) for i in range(2)
        ]
        found = Lovasz()(logits.float(), target.float())
        torch.testing.assert_close(found, torch.stack(expected))

    def test_masks_give_the_jaccard_loss(self) -> None:
        """All 256 pairs of masks of four pixels."""
        masks = torch.tensor(list(itertools.product([False, True], repeat=4)))
        found = masks.repeat_interleave(16, dim=0)[:, None]
        truth = masks.repeat(16, 1)[:, None]
        loss = lovasz_extension((found != truth).double(), truth)[:, 0]
        jaccard = 1 - hard_iou(found, truth)
        torch.testing.assert_close(loss, jaccard.double(), rtol=1e-6, atol=1e-6)

    def test_many_pixels_in_float32(self) -> None:
        generator = torch.Generator().manual_seed(0)
        errors = torch.rand(1, 1, 512 * 512, generator=generator)
        truth = torch.rand(1, 1, 512 * 512, generator=generator) < 0.02
        exact = lovasz_extension(errors.double(), truth).float()
        torch.testing.assert_close(lovasz_extension(errors, truth), exact, rtol=1e-6, atol=0)


class TestCombinations:
    """Probabilities 1/2, 3/4 over 1/4, 1/2; the lesion is the upper row."""

    logits = torch.tensor([[[[0.0, LN3], [-LN3, 0.0]]]], dtype=torch.float64)
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]], dtype=torch.float64)

    def test_combo_by_hand(self) -> None:
        # Lesion: ln 2 + ln 4/3; background: ln 4/3 + ln 2. Dice: 2 * 5/4 of 2 + 2.
        one_row = LN2 + math.log(4 / 3)
        entropy = (0.8 * one_row + 0.2 * one_row) / 4
        dice = 1 - (2.5 + 1) / (4 + 1)
        found = Combo(alpha=0.7, foreground_weight=0.8)(self.logits, self.target)
        assert found.item() == pytest.approx(0.7 * entropy + 0.3 * dice)

    def test_combo_weighs_the_lesion(self) -> None:
        only = Combo(alpha=1, foreground_weight=1)(self.logits, self.target)
        background = Combo(alpha=1, foreground_weight=0)(2 * self.logits, self.target)
        assert only.item() == pytest.approx((LN2 + math.log(4 / 3)) / 4)
        assert background.item() == pytest.approx((LN2 + math.log(10 / 9)) / 4)

    def test_an_even_combo_is_half_the_cross_entropy(self) -> None:
        logits, labels, target = classes()
        expected = F.cross_entropy(logits, labels, reduction="none").mean(dim=(1, 2)) / 2
        torch.testing.assert_close(Combo(alpha=1)(logits, target), expected)

    def test_exponential_logarithmic_by_hand(self) -> None:
        loss = ExponentialLogarithmic(
            dice_weight=0.6, dice_gamma=0.5, entropy_gamma=2, foreground_weight=0.7
        )
        # Both rows hold one pixel of ln 2 and one of ln 4/3; the overlap is (2.5 + 1) / 5.
        row = LN2**2 + math.log(4 / 3) ** 2
        entropy = (0.7 * row + 0.3 * row) / 4
        dice = math.sqrt(-math.log(0.7))
        found = loss(self.logits, self.target)
        assert found.item() == pytest.approx(0.6 * dice + 0.4 * entropy)

    def test_exponents_of_one_are_cross_entropy_and_log_dice(self) -> None:
        logits, target = maps()
        loss = ExponentialLogarithmic(dice_gamma=1, entropy_gamma=1)
        entropy = CrossEntropyDice(ce_weight=1)(logits, target)
        dice = -(1 - dice_loss(logits.sigmoid(), target, eps=1)[:, 0]).log()
        torch.testing.assert_close(
            loss(logits, target), 0.8 * dice + 0.1 * entropy, rtol=1e-5, atol=1e-6
        )

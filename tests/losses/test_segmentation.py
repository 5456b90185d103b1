"""Cross-entropy plus Dice: hand-solved, against MONAI and torch, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import CrossEntropyDice


def pair(channels: int, *, soft: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, channels, 5, 6, generator=generator, dtype=torch.float64)
    raw = torch.randn(3, max(channels, 2), 5, 6, generator=generator, dtype=torch.float64)
    shares = (3 * raw).softmax(dim=1) if soft else torch.zeros_like(raw)
    if not soft:
        shares.scatter_(1, raw.argmax(dim=1, keepdim=True), 1)
    return logits, shares[:, 1:] if channels == 1 else shares


def test_hand_solved() -> None:
    logits = torch.tensor([[[[0.0, math.log(3)]]]])  # probabilities 1/2 and 3/4
    target = torch.tensor([[[[0.0, 1.0]]]])
    entropy = (math.log(2) + math.log(4 / 3)) / 2
    dice = 1 - (2 * 0.75) / (0.25 + 0.5625 + 1)
    loss = CrossEntropyDice(eps=1e-12)
    torch.testing.assert_close(loss(logits, target), torch.tensor([(entropy + dice) / 2]))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("include_background", [False, True])
def test_dice_against_monai(channels: int, include_background: bool) -> None:
    logits, target = pair(channels)
    ours = CrossEntropyDice(ce_weight=0, include_background=include_background)(logits, target)
    if channels == 1 and include_background:
        logits, target = (
            torch.cat([torch.zeros_like(logits), logits], 1),
            torch.cat([1 - target, target], 1),
        )
    is_multi = logits.shape[1] > 1
    monai = DiceLoss(
        include_background=include_background or not is_multi,
        sigmoid=not is_multi,
        softmax=is_multi,
        squared_pred=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
        reduction="none",
    )
    torch.testing.assert_close(ours, monai(logits, target).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_cross_entropy_against_torch(channels: int, soft: bool) -> None:
    logits, target = pair(channels, soft=soft)
    ours = CrossEntropyDice(ce_weight=1)(logits, target)
    both = torch.cat([torch.zeros_like(logits), logits], 1) if channels == 1 else logits
    shares = torch.cat([1 - target, target], 1) if channels == 1 else target
    torch.testing.assert_close(ours, F.cross_entropy(both, shares, reduction="none").mean((1, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_its_own_loss(channels: int) -> None:
    logits, target = pair(channels)
    loss = CrossEntropyDice()
    torch.testing.assert_close(loss(logits, target)[1:2], loss(logits[1:2], target[1:2]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("include_background", [False, True])
def test_gradient(channels: int, include_background: bool) -> None:
    logits, target = pair(channels, soft=True)
    loss = CrossEntropyDice(include_background=include_background)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("value", [-200.0, 200.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_extreme_logits_stay_finite(value: float, truth: float) -> None:
    logits = torch.full((1, 1, 4, 4), value, dtype=torch.bfloat16, requires_grad=True)
    loss = CrossEntropyDice()(logits, torch.full((1, 1, 4, 4), truth))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (loss.item() < 1e-3) == ((value > 0) == (truth > 0))


@pytest.mark.parametrize("setting", [{"ce_weight": 1.5}, {"ce_weight": -0.1}, {"eps": 0.0}])
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CrossEntropyDice(**setting)  # type: ignore[arg-type]

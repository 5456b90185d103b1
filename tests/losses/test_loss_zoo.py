"""Every loss that can be chosen by name keeps the contract; MONAI's adapter says what is wrong."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import BoundaryLoss, DiceFocalLoss, HausdorffDTLoss, TverskyLoss
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import LOSSES, CrossEntropyDice, MonaiLoss, WeightedSum

CHANNELS = pytest.mark.parametrize("channels", [1, 3])
NAMES = pytest.mark.parametrize("name", list(LOSSES))

# MONAI gives an error no weight where truth and map have no boundary, or the lesion no area.
SEES_NOTHING = {
    "boundary": {0.0, 1.0},
    "generalized-dice": {0.0},
    "hausdorff": {0.0, 1.0},
    "log-hausdorff": {0.0, 1.0},
}
FLOAT32_INSIDE = {"dice-focal"}  # whatever it is given


def pair(channels: int, *, soft: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(3, channels, 6, 7, generator=generator, dtype=torch.float64)
    raw = torch.randn(3, max(channels, 2), 6, 7, generator=generator, dtype=torch.float64)
    shares = (3 * raw).softmax(dim=1)
    if not soft:
        shares = torch.zeros_like(raw).scatter_(1, raw.argmax(dim=1, keepdim=True), 1)
    return logits, shares[:, 1:] if channels == 1 else shares


@NAMES
@CHANNELS
@pytest.mark.parametrize("soft", [False, True])
def test_one_number_an_image(name: str, channels: int, soft: bool) -> None:
    logits, target = pair(channels, soft=soft)
    loss = LOSSES[name]()
    together = loss(logits, target)
    assert together.shape == (3,)
    assert together.isfinite().all()
    torch.testing.assert_close(loss(logits[1:2], target[1:2]), together[1:2])
    changed = torch.cat([logits[:2], -logits[2:]])
    torch.testing.assert_close(loss(changed, target)[:2], together[:2])


@NAMES
@CHANNELS
def test_gradient(name: str, channels: int) -> None:
    logits, target = (x[:2, :, :4, :4] for x in pair(channels, soft=True))
    loss = LOSSES[name]()
    coarse = {"eps": 1e-2, "atol": 1e-3, "rtol": 1e-2} if name in FLOAT32_INSIDE else {}
    inputs = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), inputs, **coarse)


@NAMES
def test_a_step_down_the_gradient_helps(name: str) -> None:
    target = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    target[..., 3:9, 4:8] = 1
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    loss = LOSSES[name]()
    before = loss(logits.requires_grad_(), target)
    (gradient,) = torch.autograd.grad(before.sum(), logits)
    step = 1e-3 / gradient.norm()
    assert loss(logits.detach() - step * gradient, target).item() < before.item()
    assert loss(20 * (2 * target - 1), target).item() < before.item()


@NAMES
@pytest.mark.parametrize("value", [-100.0, 100.0])
@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_extremes_stay_finite_and_in_float32(name: str, value: float, truth: float) -> None:
    logits = torch.full((2, 1, 8, 8), value, dtype=torch.bfloat16, requires_grad=True)
    target = torch.full((2, 1, 8, 8), truth, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name]()(logits, target)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if truth != 0.5:
        is_small = (value > 0) == (truth > 0) or truth in SEES_NOTHING.get(name, ())
        assert (loss < 0.02).all() if is_small else (loss > 0.1).all()


@NAMES
@CHANNELS
def test_half_precision_changes_only_the_logits(name: str, channels: int) -> None:
    logits, target = (x.bfloat16() for x in pair(channels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LOSSES[name]()(logits, target)
    expected = LOSSES[name]()(logits.double(), target.double()).float()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)


def _monai_counterparts() -> dict[str, nn.Module]:
    return {
        "tversky": TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7),
        "dice-focal": DiceFocalLoss(sigmoid=True),
        "hausdorff": HausdorffDTLoss(sigmoid=True, include_background=True),
        "boundary": BoundaryLoss(sigmoid=True),
    }


@pytest.mark.parametrize("name", sorted(_monai_counterparts()))
def test_a_batch_averages_to_what_monai_says(name: str) -> None:
    logits, target = pair(1)
    expected = _monai_counterparts()[name](logits, target)
    torch.testing.assert_close(LOSSES[name]()(logits, target).mean(), expected)


def test_tversky_weighs_what_is_missed_above_what_is_added() -> None:
    """2 x 2, certain: one pixel found, one missed against one found, one added."""
    found = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    both = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    tversky = LOSSES["tversky"]()
    torch.testing.assert_close(tversky(100 * (2 * found - 1), both), torch.tensor([1 - 1 / 1.7]))
    torch.testing.assert_close(tversky(100 * (2 * both - 1), found), torch.tensor([1 - 1 / 1.3]))


def test_boundary_is_the_signed_distance_under_the_map() -> None:
    target = torch.tensor([[[[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]]]])
    distance = torch.tensor([1.0, 0.0, -1.0, 0.0, 1.0, 2.0])
    logits = torch.tensor([[[[0.0, 1.0, -1.0, 2.0, 0.5, -3.0]]]])
    expected = (logits[0, 0, 0].sigmoid() * distance).mean()[None]
    torch.testing.assert_close(LOSSES["boundary"]()(logits, target), expected)


def test_a_sum_is_the_sum() -> None:
    logits, target = pair(1)
    terms = ((CrossEntropyDice(), 1.0), (LOSSES["boundary"](), 0.25))
    expected = terms[0][0](logits, target) + 0.25 * terms[1][0](logits, target)
    torch.testing.assert_close(WeightedSum(terms=terms)(logits, target), expected)
    with pytest.raises(ConfigError, match="at least one"):
        WeightedSum(terms=())


def test_options_replace_the_defaults() -> None:
    logits, target = pair(1)
    dice = LOSSES["tversky"](options={"soft_label": True, "alpha": 0.5, "beta": 0.5})
    torch.testing.assert_close(dice(logits, target), LOSSES["dice"]()(logits, target))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("NoSuchLoss", {}, "Install a recent MONAI"),
        ("DiceLoss", {"temperature": 1}, "options of MONAI's DiceLoss"),
        ("BarlowTwinsLoss", {}, "options of MONAI's BarlowTwinsLoss"),
    ],
)
def test_what_monai_does_not_have(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MonaiLoss(name=name, options=options)


def test_a_wrong_name_is_corrected() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tversky'"):
        LOSSES["tverski"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": 0.5}),
        ("focal", {"gamma": math.nan}),
        ("focal", {"alpha": 1.5}),
        ("topk", {"share": 0.0}),
        ("combo", {"alpha": -0.1}),
        ("combo", {"foreground_weight": 2.0}),
        ("combo", {"eps": 0.0}),
        ("exp-log", {"dice_weight": 1.1}),
        ("exp-log", {"dice_gamma": 0.0}),
        ("exp-log", {"entropy_gamma": -1.0}),
    ],
)
def test_bad_settings(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LOSSES[name](**options)

"""Moments: closed forms of simple shapes, gradients checked in float64, floors that do no harm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ultrarefiner.ops.moments import centre_and_spread, sharpen, statistics_box


def _ellipse(side: int, centre_xy: tuple[float, float], axes_xy: tuple[float, float]) -> Tensor:
    """Area coverage of an ellipse by 8 x 8 samples a pixel, ``1 1 side side``."""
    fine = (torch.arange(8 * side, dtype=torch.float64) + 0.5) / 8
    x, y = (fine - centre_xy[0]) / axes_xy[0], (fine - centre_xy[1]) / axes_xy[1]
    inside = (y[:, None] ** 2 + x[None] ** 2 <= 1).double()
    return torch.nn.functional.avg_pool2d(inside[None, None], 8)


def _random_map(*, seed: int, side: int = 7) -> Tensor:
    return torch.rand(2, 1, side, side, dtype=torch.float64, generator=_generator(seed))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("top", "left", "rows", "cols"), [(2, 5, 4, 9), (0, 0, 1, 1), (3, 1, 1, 7)]
)
def test_a_rectangle_has_its_closed_form(top: int, left: int, rows: int, cols: int) -> None:
    weights = torch.zeros(1, 1, 12, 16, dtype=torch.float64)
    weights[..., top : top + rows, left : left + cols] = 0.3
    mean, std, mass = centre_and_spread(weights)
    assert mean[0].tolist() == pytest.approx([left + cols / 2, top + rows / 2], abs=1e-12)
    # A uniform distribution over n px has the variance n^2 / 12.
    assert std[0].square().tolist() == pytest.approx([cols**2 / 12, rows**2 / 12], rel=1e-12)
    assert mass.item() == pytest.approx(0.3 * rows * cols, rel=1e-12)


@pytest.mark.parametrize("axes_xy", [(20.0, 9.0), (6.3, 14.9), (30.0, 30.0)])
def test_an_ellipse_has_its_closed_form(axes_xy: tuple[float, float]) -> None:
    weights = _ellipse(80, (37.3, 41.8), axes_xy)
    mean, std, mass = centre_and_spread(weights)
    assert mean[0].tolist() == pytest.approx([37.3, 41.8], abs=0.02)
    # The semi-axis a of a uniform ellipse is two standard deviations; a pixel adds its own 1/12.
    assert std[0].tolist() == pytest.approx(
        [math.sqrt(a**2 / 4 + 1 / 12) for a in axes_xy], abs=0.02
    )
    assert mass.item() == pytest.approx(math.pi * axes_xy[0] * axes_xy[1], rel=0.005)


@pytest.mark.parametrize("axes_xy", [(20.0, 9.0), (6.3, 14.9), (30.0, 30.0)])
def test_two_standard_deviations_are_the_tight_box_of_an_ellipse(
    axes_xy: tuple[float, float],
) -> None:
    (a, b), (cx, cy) = axes_xy, (37.3, 41.8)
    box, _ = statistics_box(_ellipse(80, (cx, cy), axes_xy), num_stds=2.0)
    assert box[0].tolist() == pytest.approx([cx - a, cy - b, cx + a, cy + b], abs=0.5)


def test_the_box_is_mean_and_k_standard_deviations() -> None:
    weights = _random_map(seed=3)
    mean, std, mass = centre_and_spread(weights)
    box, box_mass = statistics_box(weights, num_stds=1.7)
    torch.testing.assert_close((box[:, :2] + box[:, 2:]) / 2, mean)
    torch.testing.assert_close((box[:, 2:] - box[:, :2]) / 2, 1.7 * std)
    assert torch.equal(box_mass, mass)


def test_moments_agree_with_direct_sums() -> None:
    weights = _random_map(seed=4)
    mean, std, mass = centre_and_spread(weights)
    for item in range(2):
        total = sum_x = sum_y = sum_xx = sum_yy = 0.0
        for row in range(7):
            for col in range(7):
                w, x, y = weights[item, 0, row, col].item(), col + 0.5, row + 0.5
                total, sum_x, sum_y = total + w, sum_x + w * x, sum_y + w * y
                sum_xx, sum_yy = sum_xx + w * (x * x + 1 / 12), sum_yy + w * (y * y + 1 / 12)
        mx, my = sum_x / total, sum_y / total
        expected_std = [math.sqrt(sum_xx / total - mx**2), math.sqrt(sum_yy / total - my**2)]
        assert mass[item].item() == pytest.approx(total)
        assert mean[item].tolist() == pytest.approx([mx, my])
        assert std[item].tolist() == pytest.approx(expected_std)


def test_sharpen_by_hand() -> None:
    probs = torch.tensor([0.1, 0.4, 0.6, 0.8], dtype=torch.float64).view(1, 1, 2, 2)
    # t = max(0.05, 0.5 * 0.8) = 0.4, then ((P - t) / 0.6)^2.
    sharp = sharpen(probs, floor=0.05, relative=0.5, temperature=0.5)
    assert sharp.flatten().tolist() == pytest.approx([0, 0, 1 / 9, 4 / 9])
    # t = max(0.6, 0.4) = 0.6 and no exponent.
    sharp = sharpen(probs, floor=0.6, relative=0.5, temperature=1.0)
    assert sharp.flatten().tolist() == pytest.approx([0, 0, 0, 0.5])


def test_sharpen_looks_at_each_map_alone() -> None:
    faint, strong = torch.full((1, 1, 3, 3), 0.1), torch.full((1, 1, 3, 3), 0.9)
    faint[..., 1, 1] = 0.2
    settings = {"floor": 0.05, "relative": 0.6, "temperature": 1.0}
    together = sharpen(torch.cat([faint, strong]), **settings)
    assert torch.equal(together[:1], sharpen(faint, **settings))
    assert together[0].count_nonzero() == 1


def test_without_threshold_and_temperature_sharpening_is_the_identity() -> None:
    probs = _random_map(seed=5)
    assert torch.equal(sharpen(probs, floor=0.0, relative=0.0, temperature=1.0), probs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gradient_of_sharpen(temperature: float) -> None:
    probs = _random_map(seed=6).requires_grad_()
    # The threshold's own gradient is detached by design, so a fixed one (the floor) is checked;
    # no pixel may lie so near to it that the finite difference crosses it.
    assert (probs - 0.3).abs().min() > 1e-4
    assert torch.autograd.gradcheck(
        lambda p: sharpen(p, floor=0.3, relative=0.0, temperature=temperature), probs
    )


def test_the_relative_threshold_has_no_gradient() -> None:
    probs = torch.tensor([0.5, 0.8], dtype=torch.float64).view(1, 1, 1, 2).requires_grad_()
    sharpen(probs, floor=0.0, relative=0.5, temperature=1.0).sum().backward()
    # w = (P - 0.4) / 0.6 with 0.4 a constant: the peak has the same slope as the rest.
    assert probs.grad is not None
    assert probs.grad.flatten().tolist() == pytest.approx([1 / 0.6, 1 / 0.6])


def test_gradients_of_moments_and_box() -> None:
    weights = _random_map(seed=8).requires_grad_()
    assert torch.autograd.gradcheck(centre_and_spread, weights)
    assert torch.autograd.gradcheck(lambda w: statistics_box(w, num_stds=2.0), weights)


def test_gradient_of_the_box_of_one_pixel() -> None:
    weights = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    weights[..., 2, 3] = 0.8
    weights.requires_grad_()
    box, _ = statistics_box(weights, num_stds=2.0)
    box.sum().backward()
    assert weights.grad is not None
    # The box's sum is 2 (mean x + mean y): a pixel at (dx, dy) pulls by 2 (dx + dy) / mass.
    offsets = torch.arange(5.0, dtype=torch.float64)
    expected = 2 * ((offsets[None] - 3) + (offsets[:, None] - 2)) / 0.8
    torch.testing.assert_close(weights.grad[0, 0], expected)


@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_an_empty_map_has_finite_values_and_gradients(value: float) -> None:
    weights = torch.full((1, 1, 6, 10), value, requires_grad=True)
    mean, std, mass = centre_and_spread(weights)
    box, _ = statistics_box(weights, num_stds=2.0)
    (mean.sum() + std.sum() + mass.sum() + box.sum()).backward()
    assert mean.tolist() == [[5.0, 3.0]]
    assert std.flatten().tolist() == pytest.approx([12**-0.5] * 2)
    assert mass.item() < 1e-37
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_an_empty_map_leaves_its_neighbours_alone() -> None:
    weights = _random_map(seed=9)
    alone, _ = statistics_box(weights[:1], num_stds=2.0)
    weights[1] = 0
    together, mass = statistics_box(weights, num_stds=2.0)
    assert torch.equal(together[:1], alone)
    assert mass[1] == 0


@pytest.mark.parametrize("temperature", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("value", [0.0, 0.03])
def test_sharpening_an_empty_map_has_finite_gradients(value: float, temperature: float) -> None:
    probs = torch.full((1, 1, 6, 10), value, requires_grad=True)
    weights = sharpen(probs, floor=0.05, relative=0.4, temperature=temperature)
    box, mass = statistics_box(weights, num_stds=2.35)
    (box.sum() + mass.sum()).backward()
    assert weights.count_nonzero() == 0
    assert probs.grad is not None
    assert probs.grad.isfinite().all()


def _noisy_lesion(floor: float, radius_px: float) -> Tensor:
    """Probability 0.97 in a disc of the 256 grid, a floor of noise around it."""
    disc = _ellipse(256, (120.0, 131.0), (radius_px, radius_px)).float()
    noise = floor * (0.5 + torch.rand(1, 1, 256, 256, generator=_generator(1)))
    return torch.maximum(0.97 * disc, noise)


@pytest.mark.parametrize("floor", [0.001, 0.005, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("radius_px", [8.0, 15.0, 40.0])
def test_a_noisy_floor_does_not_blow_up_the_sharpened_box(floor: float, radius_px: float) -> None:
    weights = sharpen(_noisy_lesion(floor, radius_px), floor=0.05, relative=0.4, temperature=0.5)
    box, _ = statistics_box(weights, num_stds=2.35)
    sides = box[0, 2:] - box[0, :2]
    assert (sides <= 1.5 * 2 * radius_px).all()
    assert (sides >= 2 * radius_px).all()


@pytest.mark.parametrize(("floor", "least"), [(0.001, 2.0), (0.005, 4.0), (0.05, 5.0)])
def test_the_literal_box_explodes_on_the_same_floor(floor: float, least: float) -> None:
    weights = sharpen(_noisy_lesion(floor, 15.0), floor=0.0, relative=0.0, temperature=1.0)
    box, _ = statistics_box(weights, num_stds=2.35)
    sides = box[0, 2:] - box[0, :2]
    # By hand: background mass 256^2 * floor against pi 15^2 * 0.97, spread 256 / sqrt(12).
    background, lesion = (256**2 - math.pi * 15**2) * floor, math.pi * 15**2 * 0.97
    variance = (lesion * 15**2 / 4 + background * 256**2 / 12) / (lesion + background)
    assert sides.tolist() == pytest.approx([2 * 2.35 * math.sqrt(variance)] * 2, rel=0.05)
    assert (sides >= least * 30).all()


def test_bfloat16_maps_are_summed_in_float32() -> None:
    # 300 rows of ones: bfloat16 cannot count beyond 256.
    weights = torch.zeros(1, 1, 400, 64, dtype=torch.bfloat16)
    weights[..., 50:350, 10:40] = 1
    box, mass = statistics_box(weights, num_stds=math.sqrt(3))
    assert box.dtype == mass.dtype == torch.float32
    assert mass.item() == 9000
    assert box[0].tolist() == pytest.approx([10, 50, 40, 350], abs=1e-3)


def test_autocast_does_not_round_the_moments() -> None:
    """A bfloat16 between 128 and 256 is a whole pixel; moments are not products to be hurried."""
    weights = torch.zeros(1, 1, 256, 256)
    weights[..., 130:161, 140:183] = 0.7
    exact = centre_and_spread(weights)
    with torch.autocast("cpu", torch.bfloat16):
        hurried = centre_and_spread(weights)
    for expected, found in zip(exact, hurried, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)

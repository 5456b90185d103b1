"""The refiner on native images with real LiteMedSAM: it helps, does no harm, never crashes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.foundation import LiteMedSAM
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.localization import LocalizerConfig
from ultrarefiner.refine.predictor import LesionOutcome, RefinedImage, Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.softening import SofteningConfig
from ultrarefiner.refine.stabilization import ACCEPTED, NO_LESION, StabilizerConfig

_CONFIG = RefinerConfig(
    softening=SofteningConfig(width=0.12, max_lesions=16),
    localizer=LocalizerConfig(num_stds=2.35, floor=0.05, relative=0.4, temperature=0.5),
    prompts=PromptConfig(jitter=0.0),
    gate=GateConfig(kind="constant", minimum=0.5, maximum=0.5),
    stabilizer=StabilizerConfig(
        min_iou=0.5, min_area_ratio=0.3, max_area_ratio=3.0, max_components=5, min_predicted_iou=1.5
    ),
)
"""One box a lesion; a mask where the coarse one is empty is never believed."""

_REFUSING = replace(_CONFIG, stabilizer=replace(_CONFIG.stabilizer, min_iou=1.0))
_ACCEPTING = replace(
    _CONFIG,
    stabilizer=StabilizerConfig(
        min_iou=0.0, min_area_ratio=0.0, max_area_ratio=1e9, max_components=10**6
    ),
)


def _dsc(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def _float(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.float32)


@pytest.fixture(scope="session")
def refined(examples, lite_medsam_model: LiteMedSAM) -> list[RefinedImage]:
    """The six phantoms refined by default settings in float32."""
    refiner = Refiner(lite_medsam_model, device="cpu", bf16=False)
    return [refiner(example.image, _float(example.rough)) for example in examples]


@pytest.fixture(scope="session")
def remembering(lite_medsam_model: LiteMedSAM) -> RememberingModel:
    """LiteMedSAM that encodes the image of the edge cases once."""
    return RememberingModel(lite_medsam_model)


@pytest.fixture(scope="session")
def example(examples):
    """The image of all edge cases."""
    return examples[4]


def _refiner(model: RememberingModel, config: RefinerConfig = _CONFIG) -> Refiner:
    return Refiner(model, config, device="cpu", bf16=False)


def test_with_flips_left_and_right_are_the_same(
    examples, lite_medsam_model: LiteMedSAM, refined: list[RefinedImage]
) -> None:
    wide = [i for i, each in enumerate(examples) if each.image.shape[0] <= each.image.shape[1]]
    number = wide[0]
    image, rough = examples[number].image, _float(examples[number].rough)
    refiner = Refiner(lite_medsam_model, RefinerConfig(flips=True), device="cpu", bf16=False)
    found, mirrored = refiner(image, rough), refiner(image[:, ::-1], rough[:, ::-1])
    assert np.abs(found.probs - mirrored.probs[:, ::-1]).max() < 0.02
    once = refined[number]  # asked about one side alone
    assert 0.9 < _dsc(found.mask, once.mask) < 1


def test_refinement_helps_on_average(examples, refined: list[RefinedImage]) -> None:
    before = [_dsc(example.rough, example.truth) for example in examples]
    after = [
        _dsc(result.mask, example.truth) for example, result in zip(examples, refined, strict=True)
    ]
    assert np.mean(after) >= np.mean(before) + 0.02


def test_results_are_on_the_native_grid(examples, refined: list[RefinedImage]) -> None:
    for example, result in zip(examples, refined, strict=True):
        assert result.mask.shape == result.probs.shape == example.image.shape
        assert result.mask.dtype == np.bool_
        assert result.probs.dtype == np.float32
        assert ((result.probs >= 0) & (result.probs <= 1)).all()
        assert np.array_equal(result.mask, result.probs > 0.5)
        assert np.array_equal(result.coarse_mask, example.rough)
        rows, cols = example.image.shape
        for lesion in result.lesions:
            assert (lesion.boxes_xyxy >= 0).all()
            assert (lesion.boxes_xyxy <= np.array([cols, rows, cols, rows]) + 1e-3).all()


def test_boxes_surround_the_coarse_lesion(examples, refined: list[RefinedImage]) -> None:
    for example, result in zip(examples, refined, strict=True):
        largest = result.lesions[0].boxes_xyxy[0]
        ys, xs = np.nonzero(example.rough)
        x0, y0, x1, y1 = largest
        assert x0 < xs.mean() + 0.5 < x1
        assert y0 < ys.mean() + 0.5 < y1


def test_bfloat16_costs_no_quality(
    examples,
    refined: list[RefinedImage],
    lite_medsam_model: LiteMedSAM,
) -> None:
    refiner = Refiner(lite_medsam_model, device="cpu", bf16=True)
    exact, fast = [], []
    for example, result in zip(examples, refined, strict=True):
        exact.append(_dsc(result.mask, example.truth))
        fast.append(_dsc(refiner(example.image, _float(example.rough)).mask, example.truth))
    assert fast != exact, "bfloat16 must have been used at all"
    assert abs(np.mean(fast) - np.mean(exact)) <= 0.002


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_a_refused_lesion_keeps_its_coarse_pixels_bit_for_bit(
    example,
    remembering: RememberingModel,
    kind: str,
) -> None:
    coarse = _float(example.rough)
    if kind == "probability":
        noise = np.random.default_rng(0).random(coarse.shape, dtype=np.float32)
        coarse = np.where(example.rough, 0.6 + 0.4 * noise, 0.2 * noise).astype(np.float32)
    result = _refiner(remembering, _REFUSING)(example.image, coarse)
    assert not result.accepted
    assert np.array_equal(result.probs, coarse)
    assert np.array_equal(result.mask, example.rough)
    assert result.iou_with_coarse == 1.0


def _with_speck(example) -> tuple[np.ndarray, np.ndarray]:
    """The rough mask with a small square in the corner farthest from it, and that square."""
    rows, cols = example.image.shape
    ys, xs = np.nonzero(example.rough)
    top = 8 if ys.mean() > rows / 2 else rows - 20
    left = 8 if xs.mean() > cols / 2 else cols - 20
    speck = np.zeros_like(example.rough)
    speck[top : top + 12, left : left + 12] = True
    assert not (speck & example.rough).any()
    return example.rough | speck, speck


@pytest.mark.parametrize("config", [_CONFIG, _REFUSING, _ACCEPTING], ids=["mixed", "no", "yes"])
def test_two_components_give_two_outcomes_and_both_remain(
    example,
    remembering: RememberingModel,
    config: RefinerConfig,
) -> None:
    coarse, speck = _with_speck(example)
    result = _refiner(remembering, config)(example.image, _float(coarse))
    assert len(result.lesions) == 2
    assert (result.mask & example.rough).any()
    assert (result.mask & speck).any()
    if config is _ACCEPTING:
        assert result.reason == ACCEPTED
    if not result.lesions[1].accepted:
        assert result.mask[speck].all()
        assert (result.probs[speck] == 1).all()


def test_a_refused_lesion_stays_beside_an_accepted_one(
    example,
    remembering: RememberingModel,
) -> None:
    coarse, speck = _with_speck(example)
    result = _refiner(remembering)(example.image, _float(coarse))
    alone = _refiner(remembering)(example.image, _float(example.rough))
    assert [lesion.accepted for lesion in result.lesions] == [True, False]
    assert result.accepted
    assert result.reason.startswith(f"{ACCEPTED}; ")
    # The speck is exactly as given, and the rest as if it were not there.
    np.testing.assert_allclose(result.probs[~speck], alone.probs[~speck], atol=1e-4)
    assert (result.probs[speck] == 1).all()


def test_components_beyond_the_limit_stay_as_they_are(
    example,
    remembering: RememberingModel,
) -> None:
    coarse, speck = _with_speck(example)
    config = replace(_ACCEPTING, softening=SofteningConfig(width=0.12, max_lesions=1))
    result = _refiner(remembering, config)(example.image, _float(coarse))
    assert len(result.lesions) == 1
    assert result.mask[speck].all()


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_an_empty_coarse_map_is_named(
    example,
    remembering: RememberingModel,
    level: float,
) -> None:
    coarse = np.full(example.image.shape, level, dtype=np.float32)
    coarse[5, 5] = 0.0
    # 0.3 is below a half but above the floor: no lesion in the mask, yet something to look at.
    result = _refiner(remembering)(example.image, coarse)
    assert len(result.lesions) == 1
    assert not result.coarse_mask.any()
    assert np.isfinite(result.probs).all()
    if level == 0:
        assert result.reason == NO_LESION
        assert not result.mask.any()
        assert result.iou_with_coarse == 1.0


def test_a_full_coarse_mask_does_not_crash(
    example,
    remembering: RememberingModel,
) -> None:
    coarse = np.ones(example.image.shape, dtype=np.float32)
    result = _refiner(remembering, _REFUSING)(example.image, coarse)
    assert result.mask.all()
    assert np.array_equal(result.probs, coarse)
    rows, cols = example.image.shape
    np.testing.assert_allclose(result.lesions[0].boxes_xyxy[0], [0, 0, cols, rows], atol=1e-3)


def test_one_pixel_does_not_crash(
    example,
    remembering: RememberingModel,
) -> None:
    coarse = np.zeros(example.image.shape, dtype=np.float32)
    coarse[60, 70] = 1
    result = _refiner(remembering)(example.image, coarse)
    assert len(result.lesions) == 1
    assert np.isfinite(result.probs).all()
    assert result.mask[60, 70] or result.accepted


def test_a_batch_equals_image_by_image(
    example,
    remembering: RememberingModel,
    lite_medsam_model: LiteMedSAM,
) -> None:
    coarse, _ = _with_speck(example)
    # The second image has another size and one lesion instead of two.
    images = [example.image, np.ascontiguousarray(example.image[::-1, :-30])]
    masks = [_float(coarse), np.ascontiguousarray(_float(example.rough)[::-1, :-30])]
    together = Refiner(lite_medsam_model, _CONFIG, device="cpu", bf16=False).refine_batch(
        images, masks
    )
    assert [len(result.lesions) for result in together] == [2, 1]
    for result, image, mask in zip(together, images, masks, strict=True):
        alone = _refiner(remembering)(image, mask)
        np.testing.assert_allclose(result.probs, alone.probs, atol=1e-3)
        assert np.array_equal(result.coarse_mask, alone.coarse_mask)
        for lesion, other in zip(result.lesions, alone.lesions, strict=True):
            assert lesion.reason == other.reason
            np.testing.assert_allclose(lesion.boxes_xyxy, other.boxes_xyxy, atol=1e-3)
            assert lesion.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-3)


@pytest.mark.parametrize("hw", [(97, 131), (1, 35)])
def test_odd_sizes_come_back_at_their_size(
    example,
    lite_medsam_model: LiteMedSAM,
    hw: tuple[int, int],
) -> None:
    image = example.image[40 : 40 + hw[0], 60 : 60 + hw[1]]
    coarse = np.zeros(hw, dtype=np.float32)
    coarse[hw[0] // 3 : 2 * hw[0] // 3 + 1, 10:30] = 1
    refiner = Refiner(lite_medsam_model, _ACCEPTING, device="cpu", bf16=False)
    result = refiner(image, coarse)
    assert result.mask.shape == result.probs.shape == hw
    assert np.isfinite(result.probs).all()
    assert result.reason == ACCEPTED


def test_a_size_mismatch_is_an_input_error(
    example,
    remembering: RememberingModel,
) -> None:
    rows, cols = example.image.shape
    with pytest.raises(InputError, match=f"expected {rows}x{cols} px.*found {rows}x{cols - 1} px"):
        _refiner(remembering)(example.image, _float(example.rough[:, 1:]))


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("coarse map", 1, np.nan), ("coarse map", 1, 255.0), ("image", 0, np.inf), ("image", 0, -0.1)],
)
def test_values_out_of_range_are_an_input_error(
    example, remembering: RememberingModel, name: str, index: int, value: float
) -> None:
    arrays = [example.image.copy(), _float(example.rough)]
    arrays[index][0, 0] = value
    with pytest.raises(InputError, match=f"{name} has the wrong range.*finite values in"):
        _refiner(remembering)(*arrays)


def test_a_channel_axis_is_an_input_error(example, remembering: RememberingModel) -> None:
    with pytest.raises(InputError, match=r"image has the wrong shape.*rows x columns"):
        _refiner(remembering)(example.image[..., None], _float(example.rough))


def test_an_empty_boolean_mask_is_taken(example, remembering: RememberingModel) -> None:
    result = _refiner(remembering)(example.image, np.zeros(example.image.shape, dtype=bool))
    assert result.coarse_mask.sum() == 0
    assert result.probs.dtype == np.float32


def test_being_hard_is_found_out_or_told(
    example,
    remembering: RememberingModel,
) -> None:
    coarse = _float(example.rough)
    refiner = _refiner(remembering, _ACCEPTING)
    found, told = refiner(example.image, coarse), refiner(example.image, coarse, is_hard=True)
    as_probability = refiner(example.image, coarse, is_hard=False)
    np.testing.assert_allclose(found.probs, told.probs, atol=1e-3)
    assert np.abs(found.probs - as_probability.probs).max() > 0.05


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown foundation model 'lite-medsan'.*'lite-medsam'"):
        Refiner("lite-medsan")


def _image(reasons: list[str], mask: np.ndarray, coarse: np.ndarray) -> RefinedImage:
    lesions = tuple(
        LesionOutcome(
            reason=reason,
            boxes_xyxy=np.zeros((1, 4)),
            points_xy=np.zeros((0, 2)),
            point_labels=np.zeros(0, dtype=int),
            predicted_iou=0.9 - 0.1 * i,
        )
        for i, reason in enumerate(reasons)
    )
    return RefinedImage(
        mask=mask,
        probs=mask.astype(np.float32),
        coarse_mask=coarse,
        gate=np.zeros(mask.shape, dtype=np.float32),
        lesions=lesions,
    )


def test_the_summary_of_an_image() -> None:
    mask, coarse = np.zeros((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    mask[0, :3], coarse[0, 1:] = True, True
    result = _image(["refused", ACCEPTED, "refused"], mask, coarse)
    assert result.accepted
    assert result.reason == f"refused; {ACCEPTED}"
    assert result.predicted_iou == pytest.approx(0.7)
    assert result.iou_with_coarse == pytest.approx(2 / 4)
    nothing = np.zeros((2, 4), dtype=bool)
    assert not _image(["refused"], nothing, nothing).accepted
    assert _image(["refused"], nothing, nothing).iou_with_coarse == 1.0

"""Coarse maps of two opinions: the network's, and the foundation model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from models import LesionFinder
from torch import Tensor

from ultrarefiner.coarse import CoarseConfig, CoarsePredictor, build_coarse
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.job import FolderOptions
from ultrarefiner.refine.opinion import CoarseOpinions
from ultrarefiner.refine.predict import predict_images
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

CONFIG = RefinerConfig(prompts=PromptConfig(jitter=0.0), gate=GateConfig(kind="none"))


class Counting(LesionFinder):
    """Knows how many images it was asked to encode."""

    num_encoded = 0

    def encode(self, images: Tensor) -> Tensor:
        self.num_encoded += len(images)
        return super().encode(images)


class Blind(CoarsePredictor):
    """A network that sees nothing."""

    def __init__(self) -> None: ...

    def predict_batch(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return [np.zeros(image.shape, np.float32) for image in images]


def refiner_of(model: LesionFinder, config: RefinerConfig = CONFIG) -> Refiner:
    return Refiner(model, config, device="cpu", bf16=False)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """A bright image with a dark lesion on the right, and a smaller one with it on the left."""
    wide, high = np.full((200, 320), 0.9, np.float32), np.full((180, 120), 0.8, np.float32)
    wide[60:120, 200:280] = 0.1
    high[90:150, 20:60] = 0.05
    return [wide, high]


@pytest.fixture(scope="module")
def network() -> CoarsePredictor:
    torch.manual_seed(0)
    config = CoarseConfig(name="unet", encoder_weights="none", side=64)
    return CoarsePredictor([build_coarse(config)], device="cpu", bf16=False)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def same(one: RefinedImage, two: RefinedImage) -> bool:
    return np.array_equal(one.probs, two.probs) and one.reason == two.reason


def test_unasked_the_model_looks_at_the_whole_image(images: list[np.ndarray]) -> None:
    for image, probs in zip(images, refiner_of(Counting()).segment_batch(images), strict=True):
        assert probs.shape == image.shape
        assert 0 <= probs.min() <= probs.max() <= 1
        assert dice(probs > 0.5, image < 0.5) > 0.97


def test_the_coarse_map_is_the_weighted_mean_of_both(
    images: list[np.ndarray], network: CoarsePredictor
) -> None:
    model = Counting()
    own, other = network.predict_batch(images), refiner_of(model).segment_batch(images)
    for share in (0.0, 0.3, 1.0):
        refiner = refiner_of(model, replace(CONFIG, second_opinion=share))
        found = CoarseOpinions(network, refiner).predict_batch(images)
        for index, probs in enumerate(found):
            expected = (1 - share) * own[index].astype(float) + share * other[index]
            np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_without_a_share_the_model_is_not_asked(
    images: list[np.ndarray], network: CoarsePredictor
) -> None:
    model = Counting()
    CoarseOpinions(network, refiner_of(model))(images[0])
    assert model.num_encoded == 0


def test_a_lesion_that_the_network_missed_is_found(images: list[np.ndarray]) -> None:
    never = StabilizerConfig(min_predicted_iou=1.5)  # a mask where the coarse one is empty
    for share, lowest, highest in ((0.6, 0.95, 1.0), (0.0, 0.0, 0.0)):
        config = replace(CONFIG, stabilizer=never, second_opinion=share)
        refiner = refiner_of(Counting(), config)
        coarse = CoarseOpinions(Blind(), refiner)(images[0])
        refined = refiner(images[0], coarse, is_hard=False)
        assert lowest <= dice(refined.mask, images[0] < 0.5) <= highest


@pytest.mark.parametrize("flips", [False, True])
def test_what_was_just_looked_at_is_not_encoded_again(
    images: list[np.ndarray], flips: bool
) -> None:
    model, config = Counting(), replace(CONFIG, flips=flips)
    refiner, views = refiner_of(model, config), 1 + flips
    coarse = refiner.segment_batch(images)
    assert model.num_encoded == 2 * views
    reused = refiner.refine_batch(images, coarse)
    assert model.num_encoded == 2 * views
    anew = refiner.refine_batch(images, coarse)
    assert model.num_encoded == 4 * views
    assert all(same(one, two) for one, two in zip(reused, anew, strict=True))


def test_other_images_are_encoded(images: list[np.ndarray]) -> None:
    """In another order, too few, put in the place of one, or painted over."""
    refiner = refiner_of(model := Counting())

    def swapped(asked: list[np.ndarray]) -> list[np.ndarray]:
        asked[0] = 1 - asked[0]
        return asked

    def painted(asked: list[np.ndarray]) -> list[np.ndarray]:
        asked[0][:20] = 0.0
        return asked

    for change in (lambda asked: asked[::-1], lambda asked: asked[:1], swapped, painted):
        asked = [image.copy() for image in images]
        refiner.segment_batch(asked)
        before, asked = model.num_encoded, change(asked)
        masks = [(image < 0.5).astype(np.float32) for image in asked]
        found = refiner.refine_batch(asked, masks)
        assert model.num_encoded == before + len(asked)
        expected = refiner_of(Counting()).refine_batch(asked, masks)
        assert all(same(one, two) for one, two in zip(found, expected, strict=True))


def test_equal_images_are_the_same(images: list[np.ndarray]) -> None:
    refiner = refiner_of(model := Counting())
    coarse = refiner.segment_batch(images)
    refiner.refine_batch([image.copy() for image in images], coarse)
    assert model.num_encoded == len(images)


@pytest.mark.parametrize(
    ("image", "found"),
    [(np.zeros((8, 8, 3)), "wrong shape"), (np.full((8, 8), 200.0), "wrong range")],
)
def test_only_grey_images_are_looked_at(image: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=f"image has the {found}"):
        refiner_of(Counting()).segment_batch([image])


def test_a_close_look_is_not_the_look_at_the_whole(images: list[np.ndarray]) -> None:
    config = replace(CONFIG, roi=RoiConfig(crop=True))
    refiner, fresh = (refiner_of(Counting(), config) for _ in range(2))
    coarse = refiner.segment_batch(images)
    for image, probs in zip(images, coarse, strict=True):
        assert dice(probs > 0.5, image < 0.5) > 0.97
    found, expected = refiner.refine_batch(images, coarse), fresh.refine_batch(images, coarse)
    assert all(same(one, two) for one, two in zip(found, expected, strict=True))


def test_a_given_mask_stands_as_it_is(images: list[np.ndarray]) -> None:
    given = np.zeros_like(images[0])
    given[70:110, 210:260] = 1
    one, two = (
        refiner_of(Counting(), replace(CONFIG, second_opinion=share))(images[0], given)
        for share in (0.0, 0.9)
    )
    assert same(one, two)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_the_share_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match=r"second_opinion: expected 0 to 1"):
        RefinerConfig(second_opinion=share)


def test_a_folder_is_predicted_with_both(
    images: list[np.ndarray], network: CoarsePredictor, tmp_path: Path
) -> None:
    """Each image is encoded once; a file that cannot be read changes nothing for the others."""
    files = [tmp_path / f"{name}.png" for name in ("a", "broken", "c")]
    for file, image in zip((files[0], files[2]), images, strict=True):
        assert cv2.imwrite(str(file), (255 * image).round().astype(np.uint8))
    files[1].write_bytes(b"no image")
    refiner = refiner_of(model := Counting(), replace(CONFIG, second_opinion=0.7))
    opinions, out = CoarseOpinions(network, refiner), tmp_path / "out"
    options = FolderOptions(batch_size=3, save_probabilities=True)
    result = predict_images(files, out, opinions, options=options)
    assert result.num_refined == model.num_encoded == 2
    assert [name for name, _ in result.failures] == ["broken"]
    for file in (files[0], files[2]):
        expected = opinions(read_image(file))
        written = np.load(out / "coarse_probabilities" / f"{file.stem}.npy")
        np.testing.assert_allclose(written, expected, atol=1e-5)
        mask = read_coarse(out / "coarse" / f"{file.stem}.png").values > 0.5
        assert np.array_equal(mask, written > 0.5)

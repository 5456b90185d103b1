"""Items of phases 2 and 3: replayable, moved as one, and never outside the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ultrarefiner.data.augmentation import AugmentationConfig
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.training.embedding_cache import FLIP, IDENTITY
from ultrarefiner.training.material import Material
from ultrarefiner.training.out_of_fold import OutOfFold
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.refinement_data import (
    Collate,
    Mixture,
    RefinementDataset,
    scene_of,
)
from ultrarefiner.training.split import split_for_training

SIDE = 96


@dataclass(frozen=True)
class LeftHalf:
    """Predictions that say: the lesion is the left half of the image."""

    side: int = SIDE

    def probs(self, record: Record) -> np.ndarray:
        shape = read_image(record.image).shape
        rows, cols = Letterbox(shape, self.side).content_hw
        probs = np.zeros((self.side, self.side), np.float32)
        probs[:rows, : cols // 2] = 0.75
        return probs


@pytest.fixture(scope="module")
def records(manifest: Path) -> tuple[Record, ...]:
    return read_manifest(manifest)[:6]


def write_png(path: Path, values: np.ndarray) -> None:
    assert cv2.imwrite(str(path), values)


def dataset(records: tuple[Record, ...], mixture: Mixture, **settings: Any) -> RefinementDataset:
    defaults: dict[str, Any] = {"out_of_fold": LeftHalf(), "digests": None, "seed": 3}
    return RefinementDataset(records, mixture, SIDE, **(defaults | settings))


def material_of(recipe: TrainingRecipe, manifest: Path) -> Material:
    """Return what later phases learn from, without predictions and embeddings."""
    return Material(
        recipe=recipe,
        split=split_for_training(manifest, recipe, fold="3"),
        side=SIDE,
        out_of_fold=OutOfFold(side=SIDE, cards={}, places={}),
        cache=None,
        digests={},
    )


def test_an_item_is_a_pure_function_of_seed_epoch_and_index(records: tuple[Record, ...]) -> None:
    mixture = Mixture(given_share=0.7, real_share=0.5, flip_share=0.5)
    first, second = dataset(records, mixture), dataset(records, mixture)
    other = dataset(records, mixture, seed=4)
    keys = [(epoch, index) for epoch in range(4) for index in range(len(records))]
    num_other = 0
    for key in reversed(keys):  # in another order
        second[key]
    for key in keys:
        one, two = first[key], second[key]
        assert one.keys() == two.keys()
        for name, value in one.items():
            same = value == two[name]
            assert same.all() if isinstance(same, torch.Tensor) else same, name
        num_other += not torch.equal(one["prompt"], other[key]["prompt"])
    assert num_other > len(keys) // 2


def test_phase_3_does_not_repeat_the_corruptions_of_phase_2(
    manifest: Path, nano: TrainingRecipe
) -> None:
    own = {"kept_share": 1.0, "real_share": 0.0, "flips": False}
    recipe = replace(
        nano,
        phase2=replace(nano.phase2, real_share=0.0, flips=False),
        phase3=replace(nano.phase3, **own),
    )
    material = material_of(recipe, manifest)
    second, third, again = (
        material.data(config, network=network).train
        for config, network in (
            (recipe.phase2, None),
            (recipe.phase3, recipe.network),
            (recipe.phase3, recipe.network),
        )
    )
    num_same = 0
    for key in [(epoch, index) for epoch in range(2) for index in range(len(second))]:
        assert torch.equal(second[key]["truth"], third[key]["truth"])
        assert torch.equal(third[key]["prompt"], again[key]["prompt"])
        num_same += torch.equal(second[key]["prompt"], third[key]["prompt"])
    assert num_same <= len(second) // 2  # two may miss the lesion


def test_shares_are_those_that_are_asked_for(records: tuple[Record, ...]) -> None:
    mixture = Mixture(given_share=0.6, real_share=0.25, flip_share=0.5)
    digests = [str(index) for index in range(len(records))]
    items = dataset(records, mixture, digests=digests)
    found = [items[epoch, index] for epoch in range(50) for index in range(len(records))]
    num = len(found)
    given = sum(item["is_given"] for item in found) / num
    real = sum(item["is_real"] for item in found) / num
    flipped = sum(item["view"].view == FLIP for item in found) / num
    assert given == pytest.approx(0.6, abs=0.09)  # 3 standard deviations of 300 draws
    assert real == pytest.approx(0.15, abs=0.065)
    assert flipped == pytest.approx(0.5, abs=0.09)


def test_image_truth_and_mask_are_mirrored_together(records: tuple[Record, ...]) -> None:
    """Within the content: the padding of an upright image stays on its right."""
    plain = dataset(records, Mixture(), digests=["d"] * len(records))
    mirrored = dataset(records, Mixture(flip_share=1.0), digests=["d"] * len(records))
    for index in range(len(records)):
        before, after = plain[0, index], mirrored[0, index]
        assert (before["view"].view, after["view"].view) == (IDENTITY, FLIP)
        cols = int(before["content_hw"][1])
        for name in ("images", "truth", "prompt"):
            assert torch.equal(after[name][..., :cols], before[name][..., :cols].flip(-1)), name
            assert not after[name][..., cols:].any(), name
        assert not torch.equal(before["images"], after["images"])


def test_truth_is_the_share_of_each_pixel_that_is_lesion(records: tuple[Record, ...]) -> None:
    items = dataset(records, Mixture())
    for index, record in enumerate(records):
        assert record.mask is not None
        truth = read_coarse(record.mask).values.astype(np.float32)
        expected = Letterbox(truth.shape, SIDE).shrink(truth)
        np.testing.assert_allclose(items[0, index]["truth"][0], expected, atol=0.5 / 255 + 1e-6)
        assert tuple(items[0, index]["native_hw"]) == truth.shape


def test_corrupted_masks_stay_in_the_image_and_differ(records: tuple[Record, ...]) -> None:
    items = dataset(records, Mixture(real_share=0.0))
    seen = set()
    for epoch in range(8):
        for index in range(len(records)):
            item = items[epoch, index]
            rows, cols = item["content_hw"]
            prompt = item["prompt"][0]
            assert item["is_given"]
            assert not item["is_real"]
            assert 0 <= prompt.min() <= prompt.max() <= 1
            assert not prompt[rows:].any()
            assert not prompt[:, cols:].any()
            seen.add(prompt.numpy().tobytes())
    assert len(seen) > 0.9 * 8 * len(records)


def test_real_masks_are_the_out_of_fold_ones(records: tuple[Record, ...]) -> None:
    items = dataset(records, Mixture(real_share=1.0))
    for index, record in enumerate(records):
        np.testing.assert_array_equal(items[0, index]["prompt"][0], LeftHalf().probs(record))
    alone = dataset(records, Mixture(given_share=0.0))[0, 0]
    assert not alone["is_given"]
    assert not alone["prompt"].any()


def test_a_network_of_its_own_grid_gets_its_own_images(records: tuple[Record, ...]) -> None:
    items = dataset(records, Mixture(flip_share=1.0), network_frame=(64, 1))
    same = dataset(records, Mixture(flip_share=1.0), network_frame=(SIDE, 1))
    assert items[0, 0]["network_images"].shape == items[0, 0]["classes"].shape == (1, 64, 64)
    assert torch.equal(same[0, 0]["network_images"], same[0, 0]["images"])
    assert torch.equal(same[0, 0]["classes"], same[0, 0]["truth"])


def test_a_batch_is_a_scene_on_one_grid(records: tuple[Record, ...]) -> None:
    """The letterboxed images lie on the coarse grid as they are, and where they end it ends."""
    items = dataset(records, Mixture())
    batch = Collate(None)([items[0, index] for index in range(4)])
    assert batch["names"] == [record.image.name for record in records[:4]]
    scene = scene_of(batch, batch["prompt"])
    grey, valid = scene.grid_images()
    content = scene.content()
    assert torch.equal(valid.bool(), content)
    for index in range(4):
        rows, cols = batch["content_hw"][index]
        assert content[index].sum() == rows * cols
        image = batch["images"][index, 0, :rows, :cols]
        stretched = (image - image.min()) / (image.max() - image.min())
        torch.testing.assert_close(grey[index, 0, :rows, :cols], stretched, atol=2e-3, rtol=0)


def test_every_class_but_the_background_is_lesion(tmp_path: Path) -> None:
    """A map of three labels, for a network that tells two kinds of lesion apart."""
    labels = np.zeros((50, 70), np.uint8)
    labels[10:30, 10:30], labels[20:40, 40:60] = 1, 2
    write_png(tmp_path / "image.png", labels * 100)
    write_png(tmp_path / "mask.png", labels)
    record = Record(image=tmp_path / "image.png", mask=tmp_path / "mask.png")
    mixture = Mixture(real_share=0.0)
    items = dataset((record,), mixture, out_of_fold=None, network_frame=(64, 3), num_classes=3)
    item = items[0, 0]
    expected = Letterbox(labels.shape, SIDE).shrink((labels > 0).astype(np.float32))
    np.testing.assert_allclose(item["truth"][0], expected, atol=1 / 255)
    assert item["classes"].shape == (3, 64, 64)
    assert any(items[epoch, 0]["prompt"].any() for epoch in range(3))
    same = dataset((record,), mixture, out_of_fold=None, network_frame=(SIDE, 3), num_classes=3)
    assert torch.equal(same[0, 0]["truth"], item["truth"])
    assert same[0, 0]["classes"].shape == (3, SIDE, SIDE)


def test_a_closer_look_sees_native_pixels(records: tuple[Record, ...]) -> None:
    """As in prediction: mirrored with the rest, and padded where the batch has a larger image."""
    for share in (0.0, 1.0):
        items = dataset(records, Mixture(flip_share=share), natives=True)
        batch = Collate(None)([items[0, index] for index in range(len(records))])
        scene = scene_of(batch, batch["prompt"])
        assert len({tuple(size) for size in scene.native_hw.tolist()}) > 1
        for index, record in enumerate(records):
            image = torch.from_numpy(read_image(record.image))
            rows, cols = image.shape
            found = scene.images[index, 0]
            assert torch.equal(found[:rows, :cols], image.flip(-1) if share else image)
            assert found.sum() == pytest.approx(float(image.sum()), rel=1e-5)
        content = Frames.letterboxed(batch["content_hw"], SIDE).content()
        assert torch.equal(scene.content(), content)


def test_grey_levels_of_native_images_vary_with_nothing_else(records: tuple[Record, ...]) -> None:
    """Masks, truths and mirroring are those of the same item without it."""
    mixture = Mixture(real_share=0.5, flip_share=0.5)
    plain = dataset(records, mixture, natives=True)
    varied, again = (
        dataset(records, replace(mixture, grey_share=0.7), natives=True) for _ in range(2)
    )
    keys = [(epoch, index) for epoch in range(40) for index in range(len(records))]
    num_varied = 0
    for key in keys:
        one, two, three = plain[key], varied[key], again[key]
        assert torch.equal(two["natives"], three["natives"])
        for name in ("images", "truth", "prompt", "native_hw", "content_hw"):
            assert torch.equal(one[name], two[name]), name
        assert two["natives"].shape == one["natives"].shape
        assert 0 <= two["natives"].min() <= two["natives"].max() <= 1
        num_varied += not torch.equal(one["natives"], two["natives"])
    assert num_varied / len(keys) == pytest.approx(0.7, abs=0.09)  # 3 standard deviations


def test_grey_levels_vary_as_the_recipe_says(records: tuple[Record, ...]) -> None:
    """With a gamma alone, every item is its image to some power within the range."""
    only_gamma = AugmentationConfig(
        log_gamma=0.5, contrast=0, brightness=0, speckle_probability=0, blur_probability=0
    )
    items = dataset(records, Mixture(grey_share=1.0, augmentation=only_gamma), natives=True)
    gammas = []
    for epoch in range(5):
        for index, record in enumerate(records):
            image, found = read_image(record.image), items[epoch, index]["natives"][0].numpy()
            is_inside = (image > 0.2) & (image < 0.8)
            gamma = np.log(found[is_inside]) / np.log(image[is_inside])
            assert np.ptp(gamma) < 1e-3
            gammas.append(float(gamma.mean()))
    assert all(np.exp(-0.5) - 1e-3 <= gamma <= np.exp(0.5) + 1e-3 for gamma in gammas)
    assert min(gammas) < 0.8
    assert max(gammas) > 1.2


@dataclass(frozen=True)
class TheImage:
    """Predictions that are the image: what is bright is lesion."""

    def probs(self, record: Record) -> np.ndarray:
        return letterbox(read_image(record.image))


def letterbox(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    frame = Letterbox(image.shape, side)
    rows, cols = frame.content_hw
    on_grid = np.zeros((side, side), np.float32)
    on_grid[:rows, :cols] = cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA)
    return on_grid


@pytest.fixture(scope="module")
def bright_lesions(
    records: tuple[Record, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Record, ...]:
    """The records, whose images are their true masks."""
    folder = tmp_path_factory.mktemp("bright")
    bright = []
    for record in records:
        assert record.mask is not None
        image = folder / record.image.name
        write_png(image, 255 * (read_image(record.mask) > 0).astype(np.uint8))
        bright.append(replace(record, image=image))
    return tuple(bright)


def test_a_varied_shape_moves_every_map_of_an_item_alike(
    bright_lesions: tuple[Record, ...],
) -> None:
    """Image on three grids, truth, classes and mask are one picture before, and one after."""
    mixture = Mixture(flip_share=0.5, shape_share=1.0)
    items = dataset(
        bright_lesions,
        mixture,
        natives=True,
        network_frame=(64, 1),
        out_of_fold=TheImage(),
    )
    still = dataset(bright_lesions, replace(mixture, shape_share=0.0))
    overlaps, num_shapes = [], 0
    for epoch in range(4):
        for index in range(len(bright_lesions)):
            item = items[epoch, index]
            truth = item["truth"][0].numpy()
            native = item["natives"][0].numpy()
            num_shapes += native.shape[0] != native.shape[1]
            others = [item["images"][0].numpy(), item["prompt"][0].numpy(), letterbox(native)]
            for other in others:
                assert dice(other, truth) > 0.97
            own, classes = item["network_images"][0].numpy(), item["classes"][0].numpy()
            assert dice(own, classes) > 0.97
            assert dice(letterbox(native, 64), classes) > 0.95
            overlaps.append(dice(still[epoch, index]["truth"][0].numpy(), truth))
    assert num_shapes > 0
    assert np.mean(overlaps) < 0.85


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Return the soft Dice of two maps of shares."""
    return float(2 * np.minimum(one, two).sum() / (one.sum() + two.sum()))


def test_shapes_vary_by_themselves(records: tuple[Record, ...]) -> None:
    """In the share that is asked for; which mask is given and the grey levels stay."""
    plain = dataset(records, Mixture(real_share=0.5), natives=True)
    varied, again = (
        dataset(records, Mixture(real_share=0.5, shape_share=0.7), natives=True) for _ in range(2)
    )
    keys = [(epoch, index) for epoch in range(40) for index in range(len(records))]
    num_varied = 0
    for key in keys:
        one, two, three = plain[key], varied[key], again[key]
        assert torch.equal(two["natives"], three["natives"])
        assert one["is_real"] == two["is_real"]
        assert two["natives"].shape == one["natives"].shape
        rows, cols = two["content_hw"].tolist()
        for name in ("images", "truth", "prompt"):
            assert two[name].shape == one[name].shape
            assert two[name][:, rows:].abs().sum() + two[name][:, :, cols:].abs().sum() == 0
        is_moved = not torch.equal(one["truth"], two["truth"])
        assert is_moved == (not torch.equal(one["natives"], two["natives"]))
        num_varied += is_moved
    assert num_varied / len(keys) == pytest.approx(0.7, abs=0.09)  # 3 standard deviations


def test_shapes_are_not_mirrored(records: tuple[Record, ...]) -> None:
    """Whether an item is mirrored is asked for by itself."""
    still = AugmentationConfig(
        rotation_deg=0, log_scale=0, log_aspect=0, shift=0, elastic_probability=0
    )
    plain = dataset(records, Mixture(), natives=True)
    varied = dataset(records, Mixture(shape_share=1.0, augmentation=still), natives=True)
    for epoch in range(3):
        for index in range(len(records)):
            one, two = plain[epoch, index], varied[epoch, index]
            for name in ("images", "truth", "prompt", "natives"):
                torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=0)


def test_beyond_a_moved_image_is_background(records: tuple[Record, ...], tmp_path: Path) -> None:
    """Of several classes, one is everywhere."""
    labelled = []
    for record in records[:2]:
        assert record.mask is not None
        mask = tmp_path / record.mask.name
        labels = (read_image(record.mask) > 0).astype(np.uint8)
        labels[: len(labels) // 2] *= 2
        write_png(mask, labels)
        labelled.append(replace(record, mask=mask))
    items = dataset(tuple(labelled), Mixture(shape_share=1.0), network_frame=(64, 3), num_classes=3)
    for epoch in range(4):
        for index in range(len(labelled)):
            classes = items[epoch, index]["classes"]
            assert classes.min() >= -1e-6
            torch.testing.assert_close(classes.sum(dim=0), torch.ones(64, 64))


def test_some_items_are_asked_about_without_a_mask(records: tuple[Record, ...]) -> None:
    """An empty mask is a given one; of the others nothing changes."""
    mixture = Mixture(given_share=0.8, real_share=0.5)
    plain, some = (dataset(records, replace(mixture, unasked_share=share)) for share in (0, 0.3))
    num_given = num_empty = 0
    for epoch in range(50):
        for index in range(len(records)):
            one, two = plain[epoch, index], some[epoch, index]
            assert one["is_given"] == two["is_given"]
            assert torch.equal(one["truth"], two["truth"])
            if torch.equal(one["prompt"], two["prompt"]):
                assert one["is_real"] == two["is_real"]
            else:
                assert two["prompt"].count_nonzero() == 0
                assert two["is_given"]
                assert not two["is_real"]
                num_empty += 1
            num_given += bool(one["is_given"] and one["prompt"].any())
    assert num_empty / num_given == pytest.approx(0.3, abs=0.09)  # 3 standard deviations


def test_a_phase_takes_its_share_and_validates_without(
    manifest: Path, nano: TrainingRecipe
) -> None:
    recipe = replace(
        nano,
        trainable="decoder+prompt+tail",
        augmentation=replace(nano.augmentation, log_gamma=0.3),
        phase2=replace(nano.phase2, grey_share=0.6, shape_share=0.3, unasked_share=0.4),
        phase3=replace(nano.phase3, grey_share=0.2, shape_share=0.1),
    )
    material = material_of(recipe, manifest)
    for config, grey, shapes, unasked in (
        (recipe.phase2, 0.6, 0.3, 0.4),
        (recipe.phase3, 0.2, 0.1, 0.0),
    ):
        data = material.data(config)
        assert data.train.mixture.grey_share == grey
        assert data.train.mixture.shape_share == shapes
        assert data.train.mixture.unasked_share == unasked
        assert data.train.mixture.augmentation == recipe.augmentation
        assert data.val.mixture.grey_share == 0
        assert data.val.mixture.shape_share == 0
        assert data.val.mixture.unasked_share == 0

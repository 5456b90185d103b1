"""Cases as tensors: aligned, replayable, and refused with their names where they cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ultrarefiner.data import dataset as module
from ultrarefiner.data.augmentation import AugmentationConfig
from ultrarefiner.data.dataset import SegmentationDataset
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError


def write(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Bright squares of which the mask is the square, on frames of several shapes."""
    found = []
    for index, (height, width) in enumerate([(60, 90), (90, 60), (64, 64)]):
        image = np.full((height, width), 40)
        image[20:40, 10:40] = 220
        image_path = write(tmp_path / f"{index}.png", image)
        mask_path = write(tmp_path / f"{index}-mask.png", (image > 100) * 255)
        found.append(Record(image=image_path, mask=mask_path, patient=str(index)))
    return found


def test_image_and_target_lie_on_each_other(records: list[Record]) -> None:
    for sample in (SegmentationDataset(records, 64)[index] for index in range(3)):
        image, target = sample["image"], sample["target"]
        assert image.shape == target.shape == (1, 64, 64)
        assert image.dtype == target.dtype == torch.float32
        assert image.min() == 0
        assert image.max() == 1
        inside = target > 0.99
        assert inside.sum() > 100
        assert image[inside].min() > 0.95
        assert image[target < 0.01].max() < 0.05


def test_shares_keep_the_area(records: list[Record]) -> None:
    target = SegmentationDataset(records, 32)[0]["target"]
    assert target.sum().item() == pytest.approx(20 * 30 * (32 / 90) ** 2, rel=0.02)


def test_a_sample_is_a_function_of_epoch_and_index(records: list[Record]) -> None:
    def make() -> SegmentationDataset:
        return SegmentationDataset(records, 64, augmentation=AugmentationConfig(), seed=7)

    first, second = make(), make()
    late = second[3, 1]
    assert torch.equal(first[3, 1]["image"], late["image"])
    assert torch.equal(first[3, 1]["target"], late["target"])
    assert not torch.equal(first[4, 1]["image"], late["image"])
    assert torch.equal(first[0, 1]["image"], first[1]["image"])


def test_workers_give_the_same(records: list[Record]) -> None:
    data = SegmentationDataset(records, 64, augmentation=AugmentationConfig())
    alone, together = (
        [batch["image"] for batch in DataLoader(data, batch_size=2, num_workers=num)]
        for num in (0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_memory_is_bounded(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CACHED_BYTES", 2 * 2 * 64 * 64)
    data = SegmentationDataset(records, 64)
    expected = [SegmentationDataset(records, 64)[index]["image"] for index in range(3)]
    for _ in range(2):
        assert all(torch.equal(data[index]["image"], expected[index]) for index in range(3))
    assert len(data._frames) == 2


def test_classes_share_every_pixel(tmp_path: Path) -> None:
    labels = np.zeros((50, 70))
    labels[10:30, 10:30], labels[20:40, 40:60] = 1, 2
    record = Record(
        image=write(tmp_path / "a.png", labels * 100), mask=write(tmp_path / "m.png", labels)
    )
    data = SegmentationDataset([record], 64, num_classes=3, augmentation=None)
    target = data[0]["target"]
    assert target.shape == (3, 64, 64)
    torch.testing.assert_close(target.sum(dim=0), torch.ones(64, 64), rtol=0, atol=0.01)
    assert target[1].sum().item() == pytest.approx(400 * (64 / 70) ** 2, rel=0.03)
    with pytest.raises(InputError, match=r"m\.png.*labels 0 to 1.*labels up to 2"):
        SegmentationDataset([record], 64, num_classes=2)[0]


def test_a_missing_mask_is_named(records: list[Record]) -> None:
    with pytest.raises(InputError, match=r"bare\.png has no mask"):
        SegmentationDataset([*records, Record(image=Path("bare.png"))], 64)


def test_a_mask_of_another_size_is_named(records: list[Record]) -> None:
    mixed = Record(image=records[0].image, mask=records[1].mask)
    with pytest.raises(InputError, match=r"1-mask\.png.*0\.png.*90x60 px.*60x90 px"):
        SegmentationDataset([mixed], 64)[0]

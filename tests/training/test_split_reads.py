"""Masks that are held out are not opened, and what is in them changes nothing."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from fakes.opened_files import opened_files
from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.data.formats import DECODERS
from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.errors import InputError
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase1 import train_coarse
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import split_for_training

FOLD = "3"


def masks(records: tuple[Record, ...], *, held_out: bool) -> set[Path]:
    return {
        record.mask.resolve()
        for record in records
        if record.mask is not None and (record.fold == FOLD) == held_out
    }


def train(manifest: Path, recipe: TrainingRecipe, folder: Path) -> Path:
    """Train phase 1 with one fold held out, as a run does."""
    split = split_for_training(manifest, recipe, fold=FOLD)
    return train_coarse(recipe, split, folder, RunOptions(hardware=Hardware(device="cpu")))


@pytest.fixture
def copied(manifest: Path, tmp_path: Path) -> Path:
    """The phantoms once more, to be changed."""
    shutil.copytree(manifest.parent, tmp_path / "data")
    return tmp_path / "data" / manifest.name


def write_mask(path: Path, extension: str) -> Path:
    """Write a square in a format; DICOM needs a package and has its own tests."""
    values = np.zeros((32, 40), np.uint8)
    values[8:20, 10:30] = 255
    path = path.with_name(path.name + extension)
    if extension == ".npy":
        np.save(path, values > 0)
    elif extension in (".nii", ".nii.gz"):
        content = nib.Nifti1Image(values.T, np.eye(4)).to_bytes()  # type: ignore[no-untyped-call]
        path.write_bytes(gzip.compress(content) if extension.endswith("gz") else content)
    else:
        Image.fromarray(values).save(path)
    return path


class TestRecorder:
    """The recorder sees the readers of every format, and nothing when it is over."""

    @pytest.mark.parametrize("extension", [name for name in DECODERS if "d" not in name])
    def test_every_reader_is_seen(self, extension: str, tmp_path: Path) -> None:
        path = write_mask(tmp_path / "mask", extension)
        with opened_files() as files:
            assert read_coarse(path).values.any()
        assert path.resolve() in files

    def test_dicom_is_seen(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        path = tmp_path / "mask.dcm"
        path.write_bytes(b"no DICOM")
        with opened_files() as files, pytest.raises(InputError):
            read_coarse(path)
        assert path.resolve() in files

    def test_nested_and_over(self, tmp_path: Path) -> None:
        one, two, three = (tmp_path / name for name in ("1", "2", "3"))
        for path in (one, two, three):
            path.touch()
        (tmp_path / "link").symlink_to(two)
        with opened_files() as outer:
            one.read_bytes()
            with opened_files() as inner:
                (tmp_path / "link").read_bytes()
            three.read_bytes()
        assert {one, two, three} <= outer
        assert two in inner
        assert not {one, three} & inner
        one.read_bytes()
        assert len(inner) <= len(outer)


def test_no_held_out_mask_is_opened(manifest: Path, nano: TrainingRecipe, tmp_path: Path) -> None:
    records = read_manifest(manifest)
    with opened_files() as files:
        train(manifest, nano, tmp_path)
    assert len(masks(records, held_out=True)) == 4
    assert not files & masks(records, held_out=True)
    assert files >= masks(records, held_out=False)
    assert files >= {record.image.resolve() for record in records}  # compared with each other


def test_what_is_in_held_out_masks_changes_nothing(
    manifest: Path, copied: Path, nano: TrainingRecipe, tmp_path: Path
) -> None:
    """With garbage in their place the weights come out the same to the last bit."""
    for path in masks(read_manifest(copied), held_out=True):
        path.write_bytes(b"garbage")
    states = []
    for name, source in (("as it was", manifest), ("garbage", copied)):
        checkpoint = train(source, nano, tmp_path / name)
        states.append(load_checkpoint(checkpoint).network.state_dict())
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize("fold", [FOLD, None])
def test_masks_of_the_test_split_are_not_opened_either(
    copied: Path, nano: TrainingRecipe, fold: str | None
) -> None:
    records = list(read_manifest(copied))
    records[0] = replace(records[0], fold="", split="test")
    write_manifest(copied, tuple(records))
    assert records[0].mask is not None
    records[0].mask.write_bytes(b"garbage")
    split = split_for_training(copied, nano, fold=fold)
    assert records[0].image not in {record.image for record in (*split.train, *split.val)}


def test_a_bad_mask_of_the_training_folds_is_still_met(copied: Path, nano: TrainingRecipe) -> None:
    wrong = min(masks(read_manifest(copied), held_out=False))
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(wrong)
    with pytest.raises(InputError, match=f"1 of 8 masks have another size.*{wrong.name}"):
        split_for_training(copied, nano, fold=FOLD)

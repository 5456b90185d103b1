"""The cache gives what the pipeline's encoder gives, computes it once, and notices damage."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ultrarefiner.data.phantom import PhantomConfig, draw_phantom
from ultrarefiner.data.readers import read_image
from ultrarefiner.data.rough import roughen_mask
from ultrarefiner.errors import ConfigError, InputError, OutputError
from ultrarefiner.foundation import Decoded, FoundationModel, LiteMedSAM, Prompts, lite_medsam
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.intensity import stretch_content
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.scene import Scene
from ultrarefiner.shapes import GreyImage
from ultrarefiner.training.embedding_cache import (
    EmbeddingCache,
    ImageView,
    encode_whole,
    pixels_sha256,
)

SIZES = ((24, 32), (40, 20), (16, 16), (30, 31))
BF16_ROUNDING = 2.0**-8


class TinyModel(FoundationModel):
    """An encoder of one convolution and a decoder that nothing here asks."""

    input_size, mask_size, multimask_trained = 16, 16, False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.image_encoder = nn.Conv2d(3, 6, 2, stride=2)
        self.mask_decoder = nn.Linear(2, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.num_encoded = 0
        self.eval()

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        return stretch_content(images, valid).expand(-1, 3, -1, -1)

    def encode(self, images: Tensor) -> Tensor:
        self.num_encoded += len(images)
        encoded: Tensor = self.image_encoder(images)
        return encoded

    def decode(
        self, embeddings: Tensor, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        raise NotImplementedError


def write_image(path: Path, hw: tuple[int, int], seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, hw, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [write_image(tmp_path / f"{i}.png", hw, seed=i) for i, hw in enumerate(SIZES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def expected(model: FoundationModel, path: Path, view: str) -> Tensor:
    image = read_image(path)
    image = image[:, ::-1].copy() if view == "flip" else image
    with torch.no_grad():
        return encode_whole(model, torch.from_numpy(image)).bfloat16()


def files_of(cache: EmbeddingCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.folder.iterdir()}


def test_it_gives_what_the_encoder_gives_for_every_image_and_view(images, folder):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    built = cache.build(model, images)
    assert (built.num_encoded, built.num_kept, built.num_damaged, built.num_others) == (8, 0, 0, 0)
    assert built.images == tuple(pixels_sha256(read_image(path)) for path in images)
    keys = [ImageView(digest, view) for view in ("flip", "identity") for digest in built.images]
    wanted = [expected(model, path, view) for view in ("flip", "identity") for path in images]
    for reader in (cache, EmbeddingCache.open(folder, model)):
        assert reader.missing(keys) == []
        got = reader.get(keys)
        assert got.dtype == torch.bfloat16
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(got, torch.stack(wanted))
        for key, embedding in zip(keys, wanted, strict=True):
            assert torch.equal(reader.get([key])[0], embedding)


def test_a_single_embedding_is_not_copied(images, folder):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    key = ImageView(cache.build(model, images).images[1])
    assert cache.get([key]).data_ptr() == cache.get([key]).data_ptr()


def test_the_size_on_the_disk_is_that_of_the_values(images, folder):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    cache.build(model, images)
    assert (cache.folder / "records").stat().st_size == len(images) * 2 * (8 * 8 * 6 * 2)


def test_only_what_is_not_there_is_encoded(images, folder):
    model = TinyModel()
    EmbeddingCache.open(folder, model, views=["flip"]).build(model, images[:2])
    assert model.num_encoded == 1 + 2  # the first asks how large an embedding is
    reader = EmbeddingCache.open(folder, model)
    identity = ImageView(pixels_sha256(read_image(images[0])))
    assert reader.missing([identity]) == [identity]
    cache = EmbeddingCache.open(folder, model)
    built = cache.build(model, [*images[:3], images[0]])
    assert (built.num_encoded, built.num_kept, built.num_others) == (4, 2, 0)
    assert len(built.images) == 4
    assert model.num_encoded == 3 + 4
    assert reader.missing([identity]) == []
    write_image(images[0], SIZES[0], seed=99)  # another picture under the same name
    built = cache.build(model, images[:2])
    assert (built.num_encoded, built.num_kept, built.num_others) == (2, 2, 4)
    assert torch.equal(
        cache.get([ImageView(built.images[0])])[0], expected(model, images[0], "identity")
    )
    assert "2 encoded (0 of them were damaged), 2 kept, 4 of other images" in built.describe()


def test_images_of_the_same_bytes_in_another_shape_are_others():
    black = np.zeros((10, 20), np.float32)
    assert pixels_sha256(black) != pixels_sha256(black.reshape(20, 10))
    assert pixels_sha256(black) == pixels_sha256(np.zeros((20, 20), np.float32)[::2])


class _StopError(Exception):
    pass


def stop_after(num: int) -> Any:
    """Return a ``track`` that lets the second loop, over what is missing, run ``num`` times."""
    loops = iter((None, num))

    def track(items: Iterable[Any], total: int) -> Iterator[Any]:
        items, limit = list(items), next(loops)
        assert len(items) == total
        yield from items[:limit]
        if limit is not None:
            raise _StopError

    return track


@pytest.mark.parametrize("num_done", [0, 1, 5])
def test_stopped_and_gone_on_with_the_files_are_the_same(images, folder, num_done):
    model = TinyModel()
    whole = EmbeddingCache.open(folder / "whole", model)
    whole.build(model, images)
    cache = EmbeddingCache.open(folder / "stopped", model)
    with pytest.raises(_StopError):
        cache.build(model, images, track=stop_after(num_done))
    built = cache.build(model, images)
    assert (built.num_kept, built.num_encoded) == (num_done, 8 - num_done)
    assert files_of(cache) == files_of(whole)


def test_damage_is_reported_and_repaired(images, folder, caplog):
    model = TinyModel()
    built = EmbeddingCache.open(folder, model).build(model, images)
    cache = EmbeddingCache.open(folder, model)
    records = cache.folder / "records"
    content = bytearray(records.read_bytes())
    content[3 * 768 + 5] ^= 4  # the second image's flip
    records.write_bytes(content)
    struck = ImageView(built.images[1], "flip")
    assert cache.missing(ImageView(i, v) for i in built.images for v in cache.views) == [struck]
    with pytest.raises(InputError, match=r"found a damaged one. Build it again"):
        cache.get([struck])
    with caplog.at_level(logging.WARNING):
        again = cache.build(model, images)
    assert (again.num_encoded, again.num_damaged, again.num_kept) == (1, 1, 7)
    assert "1 damaged, encoded again" in caplog.text
    assert torch.equal(cache.get([struck])[0], expected(model, images[1], "flip"))


def test_another_encoder_or_precision_is_another_cache_and_another_decoder_is_not(images, folder):
    model, other = TinyModel(), TinyModel(seed=1)
    cache = EmbeddingCache.open(folder, model)
    key = ImageView(cache.build(model, images[:1]).images[0])
    with torch.no_grad():
        model.mask_decoder.weight += 1
    assert EmbeddingCache.open(folder, model).missing([key]) == []
    assert EmbeddingCache.open(folder, model, bf16=True).missing([key]) == [key]
    changed = EmbeddingCache.open(folder, other)
    assert changed.missing([key]) == [key]
    changed.build(other, images[:1])
    assert torch.equal(changed.get([key])[0], expected(other, images[0], "identity"))
    assert torch.equal(cache.get([key])[0], expected(model, images[0], "identity"))
    with pytest.raises(AssertionError, match="another encoder"):
        cache.build(other, images)
    with pytest.raises(AssertionError, match="training mode"):
        EmbeddingCache.open(folder, model.train())


class _Embeddings(Dataset[Tensor]):
    def __init__(self, cache: EmbeddingCache, keys: list[ImageView]) -> None:
        self.cache, self.keys = cache, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor:
        return self.cache.get([self.keys[index]])[0]


def test_worker_processes_read_it(images, folder):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    keys = [ImageView(digest) for digest in cache.build(model, images).images]
    wanted = cache.get(keys)
    parcel = pickle.dumps(cache)
    assert wanted[0].permute(1, 2, 0).contiguous().view(torch.uint8).numpy().tobytes() not in parcel
    assert torch.equal(pickle.loads(parcel).get(keys), wanted)
    loader = DataLoader(_Embeddings(cache, keys), batch_size=2, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), wanted)


def test_what_cannot_be_built_says_why_and_leaves_nothing_wrong(images, folder, tmp_path):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    with pytest.raises(InputError, match=r"no embeddings in .* Build the cache before"):
        cache.get([ImageView("0" * 64)])
    with pytest.raises(InputError, match=r"absent\.png"):
        cache.build(model, [*images, tmp_path / "absent.png"])
    assert model.num_encoded == 0
    assert not folder.exists()
    for views in ([], ["identity", "upside down"]):
        with pytest.raises(ConfigError, match="views: expected some of identity, flip"):
            EmbeddingCache.open(folder, model, views=views)
    model.image_encoder.weight.data[:] = torch.inf
    broken = EmbeddingCache.open(folder, model)
    with pytest.raises(InputError, match=r"0\.png has no usable embedding: .*found NaN"):
        broken.build(model, images)
    assert (broken.folder / "index").read_bytes() == b""


def test_a_picture_that_changes_meanwhile_is_not_stored_under_its_old_name(images, folder):
    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)

    def change_after_reading(items: Iterable[Any], total: int) -> Iterator[Any]:
        yield from items
        write_image(images[0], SIZES[0], seed=99)

    with pytest.raises(InputError, match=r"0\.png has changed while it was being encoded"):
        cache.build(model, images, track=change_after_reading)


def test_a_disk_that_is_too_small_is_found_out_first(images, folder, monkeypatch):
    class Usage(NamedTuple):
        free: int

    model = TinyModel()
    cache = EmbeddingCache.open(folder, model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(8 * 768))
    with pytest.raises(OutputError, match=r"not enough space in .* for 8 records"):
        cache.build(model, images)
    assert (cache.folder / "records").stat().st_size == 0
    assert cache.build(model, images[:3]).num_encoded == 6


# The real model


@pytest.fixture(scope="module")
def real() -> LiteMedSAM:
    return lite_medsam().requires_grad_(False)


def scene_of(image: GreyImage, coarse: np.ndarray) -> Scene:
    native_hw = torch.tensor([image.shape])
    frames = Frames.letterboxed(native_hw, 256)
    native = Frames.native(native_hw, image.shape)
    prob = torch.from_numpy(coarse)[None, None].float()
    scene = Scene(
        images=prob,
        native_hw=native_hw,
        coarse=torch.zeros(1, 1, 256, 256),
        frames=native,
        image_index=torch.tensor([0]),
    )
    on_grid, _ = scene.images_on(frames, scene.image_index)
    return replace(scene, images=torch.from_numpy(image)[None, None], coarse=on_grid, frames=frames)


def test_refining_from_the_cache_is_refining_afresh(real, tmp_path, folder):
    """Both views of a phantom wider than high: the mirrored image has its padding where it was."""
    config = PhantomConfig(height_px=(180, 180), width_px=(240, 240))
    phantom = draw_phantom(seed=3, index=1, config=config)
    coarse = roughen_mask(phantom.mask, np.random.default_rng(0)).astype(np.float32)
    path = tmp_path / "phantom.png"
    Image.fromarray(phantom.image).save(path)
    cache = EmbeddingCache.open(folder, real)
    (digest,) = cache.build(real, [path]).images
    pipeline = build_pipeline(real, RefinerConfig()).eval()
    fresh: list[Tensor] = []
    remember = real.image_encoder.register_forward_hook(lambda *seen: fresh.append(seen[-1]))
    with remember, torch.no_grad():
        for view in ("identity", "flip"):
            image, prob = read_image(path), coarse
            if view == "flip":
                image, prob = image[:, ::-1].copy(), prob[:, ::-1].copy()
            scene = scene_of(image, prob)
            cached = cache.get([ImageView(digest, view)])
            afresh = pipeline(scene)
            from_cache = pipeline(replace(scene, embeddings=cached.float()))
            error = (cached - fresh[-1]).abs()
            assert (error <= BF16_ROUNDING * fresh[-1].abs()).all()
            masks = [result.refined > 0.5 for result in (afresh, from_cache)]
            assert masks[0].sum() > 500
            assert (masks[0] ^ masks[1]).sum() <= 0.005 * masks[0].sum()
    assert len(fresh) == 2
    assert (fresh[0] - fresh[1]).abs().max() > 0.1


def test_the_weights_are_recognised_when_they_are_loaded_again(real, folder):
    assert EmbeddingCache.open(folder, lite_medsam()).encoder == (
        EmbeddingCache.open(folder, real).encoder
    )


class _Input(TinyModel):
    """A model whose embedding is what it is given to encode."""

    input_size = 4

    def encode(self, images: Tensor) -> Tensor:
        return images


def test_what_is_encoded_has_not_changed() -> None:
    """If this fails, raise ``_ENCODING``: caches of the old encoding are not to be read.

    Six columns become four, each the mean of one px and half of another: 10, 50, 100, 140 / 300.
    They are stretched to [0, 1]; two rows become one, and below it the padding is 0.
    """
    image = np.array([[0, 10, 20, 30, 40, 50], [0, 10, 20, 30, 40, 50]], np.float32) / 100
    found = encode_whole(_Input(), torch.from_numpy(image))
    assert found.shape == (3, 4, 4)
    assert found[0, 0].tolist() == pytest.approx([0, 4 / 13, 9 / 13, 1], abs=1e-5)
    assert not found[:, 1:].any()

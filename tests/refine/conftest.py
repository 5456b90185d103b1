"""The real foundation model and a few phantoms, shared by all tests of the refine room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from encoded_once import encoding_once
from ultrarefiner.data.phantom import PhantomConfig, draw_phantom
from ultrarefiner.data.rough import roughen_mask
from ultrarefiner.foundation import LiteMedSAM, lite_medsam

_PHANTOMS = PhantomConfig(
    height_px=(200, 260), width_px=(220, 300), lesion_count_probs=(1.0, 0.0, 0.0)
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One phantom: image in [0, 1], its true mask and a rough one."""

    image: np.ndarray
    truth: np.ndarray
    rough: np.ndarray


@cache
def _example(index: int) -> Example:
    phantom = draw_phantom(seed=3, index=index, config=_PHANTOMS)
    return Example(
        image=phantom.image / np.float32(255),
        truth=phantom.mask,
        rough=roughen_mask(phantom.mask, np.random.default_rng(index)),
    )


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    """Six phantoms of one lesion each."""
    return tuple(_example(index) for index in range(6))


@pytest.fixture(scope="session")
def lite_medsam_model() -> LiteMedSAM:
    """Pretrained LiteMedSAM; its parameters need no gradient here."""
    return lite_medsam().requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def _encoding_once() -> Iterator[None]:
    with encoding_once():
        yield


@pytest.fixture(autouse=True)
def _one_stream_of_random_numbers() -> None:
    torch.manual_seed(0)

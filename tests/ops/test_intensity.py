"""Stretching of grey levels: the content counts, the padding does not."""

from __future__ import annotations

import numpy as np
import torch

from ultrarefiner.ops.intensity import stretch, stretch_content


def test_a_native_image_is_stretched_and_a_constant_one_is_zero() -> None:
    image = np.array([[2.0, 3.0], [4.0, 6.0]], dtype=np.float32)
    assert stretch(image).tolist() == [[0.0, 0.25], [0.5, 1.0]]
    assert stretch(image).dtype == np.float32
    assert not stretch(np.full((3, 2), 0.4, dtype=np.float32)).any()


def test_stretch_uses_the_content_alone() -> None:
    images = torch.full((2, 1, 2, 3), 9.0)
    images[0, 0, :, :2] = torch.tensor([[2.0, 3.0], [4.0, 6.0]])
    images[1] = 5.0
    valid = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    valid[0, :, :, :2], valid[1, :, :1] = True, True
    stretched = stretch_content(images, valid)
    assert stretched[0, 0].tolist() == [[0.0, 0.25, 0.0], [0.5, 1.0, 0.0]]
    assert stretched[1].count_nonzero() == 0, "a constant image has nothing to stretch"


def test_stretch_takes_all_channels_together() -> None:
    images = torch.tensor([0.0, 1.0, 2.0, 4.0]).view(1, 2, 1, 2)
    valid = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    assert stretch_content(images, valid).flatten().tolist() == [0.0, 0.25, 0.5, 1.0]


def test_an_image_of_nothing_but_padding_is_zero() -> None:
    nothing = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    assert not stretch_content(torch.rand(1, 1, 2, 3), nothing).any()

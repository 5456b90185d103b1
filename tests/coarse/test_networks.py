"""The contract of every registered network: shapes, gradients, any number of classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ultrarefiner.coarse import COARSE_NETWORKS, CoarseConfig, build_coarse, class_probs
from ultrarefiner.errors import ConfigError


@pytest.mark.parametrize("name", list(COARSE_NETWORKS))
@pytest.mark.parametrize("num_classes", [1, 3])
def test_logits_are_on_the_grid_of_the_images(
    small_config: CoarseConfig, name: str, num_classes: int
) -> None:
    network = build_coarse(replace(small_config, name=name, num_classes=num_classes)).eval()
    with torch.no_grad():
        for hw in ((64, 64), (32, 96)):
            assert network(torch.rand(2, 1, *hw)).shape == (2, num_classes, *hw)


@pytest.mark.parametrize("name", list(COARSE_NETWORKS))
def test_every_parameter_that_is_used_learns(small_config: CoarseConfig, name: str) -> None:
    network = build_coarse(replace(small_config, name=name)).train()
    network(torch.rand(2, 1, 64, 64)).square().mean().backward()
    silent = [key for key, value in network.named_parameters() if value.grad is None]
    # timm's head of convolutions before the classifier is part of the weights, not of the features.
    assert [key for key in silent if "conv_head" not in key and ".bn2." not in key] == []
    assert all(
        value.grad.isfinite().all() for value in network.parameters() if value.grad is not None
    )


@pytest.mark.parametrize("name", list(COARSE_NETWORKS))
def test_padding_does_not_reach_across_images(small_config: CoarseConfig, name: str) -> None:
    """An image's logits do not depend on the others of its batch, in evaluation mode."""
    network = build_coarse(replace(small_config, name=name)).eval()
    images = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_class_probabilities(channels: int) -> None:
    logits = torch.randn(2, channels, 3, 4, dtype=torch.bfloat16)
    probs = class_probs(logits)
    assert probs.dtype == torch.float32
    assert probs.shape == (2, max(channels, 2), 3, 4)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(2, 3, 4))
    two = torch.cat([torch.zeros_like(logits), logits], dim=1) if channels == 1 else logits
    torch.testing.assert_close(probs, two.float().softmax(dim=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"side": 100}, "multiple of 32"),
        ({"num_classes": 0}, "num_classes"),
        ({"decoder_channels": ()}, "decoder_channels"),
        ({"name": "smp-unett"}, "Did you mean 'smp-unet'"),
        ({"encoder_name": "resnet19"}, "no such one"),
        ({"encoder_name": "tu-resnet19"}, "an encoder that smp can build"),
        ({"decoder_channels": (16, 8)}, "five decoder_channels"),
    ],
)
def test_bad_settings(small_config: CoarseConfig, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_coarse(replace(small_config, **settings))

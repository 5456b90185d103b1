"""The contract of every registered network: shapes, gradients, any number of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ultrarefiner.coarse import (
    COARSE_NETWORKS,
    CoarseConfig,
    CoarseNetwork,
    build_coarse,
    class_probs,
    encode_checkpoint,
    load_checkpoint,
)
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


class TestUnet:
    """What tells the plain U-Net from the others."""

    @pytest.fixture
    def network(self, small_config: CoarseConfig) -> CoarseNetwork:
        torch.manual_seed(0)
        return build_coarse(replace(small_config, name="unet"))

    def test_images_of_a_batch_are_apart_in_training_too(self, network: CoarseNetwork) -> None:
        images = torch.rand(3, 1, 64, 64)
        alone = torch.cat([network.train()(image[None]) for image in images])
        torch.testing.assert_close(network(images), alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(network.eval()(images), alone, rtol=0, atol=1e-5)

    def test_widths_are_those_of_the_levels(self, small_config: CoarseConfig) -> None:
        """As many weights as the levels have by hand: two 3 x 3 convolutions each way, 2 x 2 up."""
        widths = (20, 15, 9, 8, 5)
        network = build_coarse(replace(small_config, name="unet", decoder_channels=widths))

        def pair(first: int, last: int) -> int:  # with bias, scale and shift
            return 9 * (first * last + last * last) + 6 * last

        def up(deep: int, middle: int) -> int:
            return 4 * deep * middle + middle

        down = pair(1, 5) + pair(5, 8) + pair(8, 9) + pair(9, 15) + pair(15, 20)
        back = (
            *(up(20, 10) + pair(15 + 10, 15), up(15, 7) + pair(9 + 7, 9)),
            *(up(9, 4) + pair(8 + 4, 8), up(8, 8) + pair(5 + 8, 5)),
        )
        head = 5 + 1
        assert sum(value.numel() for value in network.parameters()) == down + sum(back) + head

    def test_its_first_weights_are_those_of_the_global_seed(
        self, network: CoarseNetwork, small_config: CoarseConfig
    ) -> None:
        torch.manual_seed(0)
        same = build_coarse(replace(small_config, name="unet")).state_dict()
        assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())

    def test_bfloat16_with_channels_last(self, network: CoarseNetwork) -> None:
        """How it is trained where bfloat16 is fast: within that format's rounding."""
        images, target = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)

        def step(bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
            network.zero_grad()
            batch = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                logits = network(batch)
            torch.nn.functional.mse_loss(logits.float(), target).backward()
            grads = [value.grad.flatten() for value in network.parameters()]
            return logits.detach().float(), torch.cat(grads)

        exact, exact_grad = step(bf16=False)
        network.to(memory_format=torch.channels_last)
        coarse, coarse_grad = step(bf16=True)
        assert (coarse - exact).norm() < 0.03 * exact.norm()
        assert (coarse_grad - exact_grad).norm() < 0.1 * exact_grad.norm()

    def test_it_comes_back_out_of_a_checkpoint(
        self, network: CoarseNetwork, tmp_path: Path
    ) -> None:
        path = tmp_path / "coarse.safetensors"
        path.write_bytes(encode_checkpoint(network, {}, half=False))
        stored = load_checkpoint(path).network
        assert stored.config == network.config
        images = torch.rand(1, 1, 64, 64)
        assert torch.equal(stored(images), network.eval()(images))


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
        ({"name": "unet", "decoder_channels": (16, 8)}, "five decoder_channels, found 2"),
        ({"name": "unet", "encoder_weights": "imagenet"}, "has no encoder of its own"),
        ({"name": "unet", "encoder_name": "resnet34"}, "name: smp-unet for a pretrained encoder"),
    ],
)
def test_bad_settings(small_config: CoarseConfig, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_coarse(replace(small_config, **settings))

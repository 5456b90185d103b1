"""Checkpoints of refiners: what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ultrarefiner.coarse import CoarseConfig, build_coarse, encode_checkpoint
from ultrarefiner.errors import ConfigError, WeightsError
from ultrarefiner.foundation import FOUNDATION_MODELS, Mirrored
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.checkpoint import (
    JOINT,
    REFINER,
    encode_refiner,
    is_refiner,
    load_refiner,
    with_settings,
)
from ultrarefiner.refine.gates import GateConfig, NoGate
from ultrarefiner.refine.localization import LocalizerConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.refine.softening import SofteningConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

NETWORK = CoarseConfig(side=64, encoder_weights="none", decoder_channels=(32, 16, 16, 8, 8))
CONFIG = RefinerConfig(
    prompts=PromptConfig(jitter=0.0, mask="direct"), gate=GateConfig(kind="learned", width=4)
)


@pytest.fixture(scope="module")
def pipeline() -> RefinementPipeline:
    """A pipeline whose decoder and gate were changed."""
    model = FOUNDATION_MODELS["lite-medsam"]()
    pipeline = build_pipeline(model, CONFIG).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in (model.mask_decoder, pipeline.gate):
            for value in part.parameters():
                value += 1e-3 * torch.randn(value.shape, generator=generator)
    return pipeline


@pytest.fixture(scope="module")
def content(pipeline: RefinementPipeline) -> bytes:
    torch.manual_seed(0)
    return encode_refiner(
        build_coarse(NETWORK).eval(),
        pipeline,
        foundation="lite-medsam",
        config=CONFIG,
        card={"phase": 2},
    )


@pytest.fixture
def path(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / REFINER
    path.write_bytes(content)
    return path


def test_what_is_stored_comes_back(
    path: Path, pipeline: RefinementPipeline, content: bytes
) -> None:
    """Changes are rounded: matrices relative to the row's largest, vectors each to itself."""
    found = load_refiner(path)
    assert found.config == CONFIG
    assert found.card == {"phase": 2}
    assert found.network.config == replace(NETWORK, encoder_weights="none")
    stored, wanted = found.foundation.state_dict(), pipeline.foundation.state_dict()
    published = FOUNDATION_MODELS["lite-medsam"]().state_dict()
    for name, value in wanted.items():
        change = (value - published[name]).abs()
        if value.ndim < 2:
            allowed = change / 256
        else:
            allowed = change.flatten(1).amax(1).view(-1, *[1] * (value.ndim - 1)) / 254
        assert ((stored[name] - value).abs() <= 1.01 * allowed + 1e-7).all(), name
        if not name.startswith("mask_decoder"):
            assert torch.equal(stored[name], value), name
    for name, value in pipeline.gate.state_dict().items():
        assert torch.equal(found.gate[name], value), name
    num_weights = sum(value.numel() for value in pipeline.foundation.mask_decoder.parameters())
    num_network = sum(value.numel() for value in found.network.parameters())
    assert len(content) < 1.1 * num_weights + 4 * num_network + 5e5


def test_the_same_content_for_the_same_network(
    pipeline: RefinementPipeline, content: bytes
) -> None:
    torch.manual_seed(0)
    network = build_coarse(NETWORK).eval()
    again = encode_refiner(
        network, pipeline, foundation="lite-medsam", config=CONFIG, card={"phase": 2}
    )
    assert again == content


def test_small_steps_of_the_coarse_network_are_kept(pipeline: RefinementPipeline) -> None:
    """Those of phase 3 are below what bfloat16 tells apart; what phase 1 stored takes half."""
    network = build_coarse(NETWORK).eval()

    def stored() -> tuple[int, dict[str, torch.Tensor]]:
        content = encode_refiner(
            network, pipeline, foundation="lite-medsam", config=CONFIG, card={}
        )
        state = safetensors.torch.load(content)
        names = [name for name in state if name.startswith("network.")]
        return len(content), {name.removeprefix("network."): state[name] for name in names}

    with torch.no_grad():
        for value in network.parameters():
            value.copy_(value.bfloat16())
    small, before = stored()
    with torch.no_grad():
        for value in network.parameters():
            value *= 1 + 2**-12
    large, after = stored()
    num_weights = sum(value.numel() for value in network.parameters())
    assert large - small == pytest.approx(2 * num_weights, rel=0.02)
    for name, value in network.named_parameters():
        assert before[name].dtype == torch.bfloat16
        assert torch.equal(after[name].float(), value), name


def test_storing_what_was_loaded_loses_no_more(path: Path) -> None:
    """Rounding a second time changes nothing that matters."""
    found = load_refiner(path)
    pipeline = build_pipeline(found.foundation, found.config)
    pipeline.gate.load_state_dict(found.gate)
    again = path.with_name("again.safetensors")
    again.write_bytes(
        encode_refiner(
            found.network, pipeline, foundation="lite-medsam", config=found.config, card=found.card
        )
    )
    before, after = found.foundation.state_dict(), load_refiner(again).foundation.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0, msg=name)


def test_a_folder_gives_its_last_phase(path: Path) -> None:
    assert load_refiner(path.parent).card["phase"] == 2
    assert is_refiner(path.parent)
    (path.parent / JOINT).write_bytes(path.read_bytes().replace(b'"phase\\": 2', b'"phase\\": 3'))
    (path.parent / JOINT).write_bytes(path.read_bytes().replace(b'phase\\": 2', b'phase\\": 3'))
    assert load_refiner(path.parent).card["phase"] == 3


def test_its_refiner_uses_the_trained_weights(path: Path, pipeline: RefinementPipeline) -> None:
    found = load_refiner(path)
    refiner = found.refiner(device="cpu", bf16=False)
    assert refiner.config == CONFIG
    for name, value in pipeline.gate.state_dict().items():
        assert torch.equal(refiner.pipeline.gate.state_dict()[name], value), name
    image = np.random.default_rng(0).random((60, 80), dtype=np.float32)
    coarse = np.zeros((60, 80), np.float32)
    coarse[20:40, 30:50] = 1
    assert refiner(image, coarse).probs.shape == (60, 80)


@pytest.mark.parametrize(
    "asked",
    [
        RefinerConfig(prompts=PromptConfig(jitter=0.0, mask="gaussian")),
        RefinerConfig(roi=RoiConfig(crop=True)),
        RefinerConfig(gate=GateConfig(kind="uncertainty")),
        RefinerConfig(localizer=LocalizerConfig(box="statistics")),
    ],
    ids=["prompts", "roi", "gate", "localizer"],
)
def test_settings_that_it_was_not_trained_with_are_refused(
    asked: RefinerConfig, path: Path
) -> None:
    default = RefinerConfig()
    name = next(name for name in asdict(asked) if getattr(asked, name) != getattr(default, name))
    with pytest.raises(ConfigError, match=f"setting {name} of checkpoint .*trained with.*found"):
        load_refiner(path).refiner(asked)


def test_what_training_does_not_depend_on_is_free(path: Path) -> None:
    free: dict[str, Any] = {
        "stabilizer": StabilizerConfig(band_px=5.0),
        "softening": SofteningConfig(width=0.2),
        "flips": True,
        "second_opinion": 0.4,
    }
    found = load_refiner(path)
    settings = found.settings(RefinerConfig(**free))
    assert settings == replace(CONFIG, **free)
    assert isinstance(found.refiner(settings).pipeline.foundation, Mirrored)
    path.write_bytes(with_settings(path, settings))
    again = load_refiner(path)
    assert again.config == settings
    assert again.binding != found.binding
    assert again.settings(RefinerConfig()) == settings
    assert again.settings(RefinerConfig(second_opinion=0.0)).second_opinion == 0


def test_a_gate_without_weights_is_free_where_none_was_trained(tmp_path: Path) -> None:
    config = replace(CONFIG, gate=GateConfig(kind="evidence", minimum=0.3, maximum=1.0))
    model = FOUNDATION_MODELS["lite-medsam"]()
    path = tmp_path / REFINER
    path.write_bytes(
        encode_refiner(
            build_coarse(NETWORK).eval(),
            build_pipeline(model, config),
            foundation="lite-medsam",
            config=config,
            card={},
        )
    )
    found = load_refiner(path)
    opened = found.refiner(RefinerConfig(gate=GateConfig(kind="none")))
    assert isinstance(opened.pipeline.gate, NoGate)
    assert opened.config == replace(config, gate=GateConfig(kind="none"))
    with pytest.raises(ConfigError, match=r"setting gate of checkpoint .*found .*hybrid"):
        found.refiner(RefinerConfig(gate=GateConfig(kind="hybrid")))


@pytest.mark.parametrize("setting", ["flips", "second_opinion"])
def test_a_checkpoint_from_before_there_was_a_setting(path: Path, setting: str) -> None:
    with safetensors.safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["ultrarefiner"])
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    del header["refiner"][setting]
    safetensors.torch.save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    assert load_refiner(path).config == CONFIG


def test_other_published_weights_are_refused(path: Path) -> None:
    model = FOUNDATION_MODELS["lite-medsam"]()
    changed = path.read_bytes().replace(
        model.weights_sha256.encode(), b"0" * len(model.weights_sha256)
    )
    path.write_bytes(changed)
    with pytest.raises(WeightsError, match=r"changes other weights of 'lite-medsam'.*000000000000"):
        load_refiner(path)


def test_a_gate_of_other_settings_is_refused(path: Path) -> None:
    content = path.read_bytes()
    changed = content.replace(b'width\\": 4}', b'width\\": 5}')
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(WeightsError, match=rf"cannot use checkpoint .*{REFINER}.*fit each other"):
        load_refiner(path)


def test_what_is_no_refiner_is_named(path: Path, tmp_path: Path) -> None:
    coarse = tmp_path / "coarse.safetensors"
    coarse.write_bytes(encode_checkpoint(build_coarse(NETWORK), {}))
    assert not is_refiner(coarse)
    with pytest.raises(WeightsError, match=r"coarse.safetensors: expected a refiner.*'coarse-1'"):
        load_refiner(coarse)
    path.write_bytes(path.read_bytes()[:5000])
    assert not is_refiner(path)
    with pytest.raises(WeightsError, match=f"cannot read checkpoint .*{REFINER}"):
        load_refiner(path)
    with pytest.raises(WeightsError, match="no checkpoint 'nowhere'"):
        load_refiner("nowhere")
    assert not is_refiner("nowhere")

"""Pretrained encoders: every tensor accounted for, whatever the source."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ultrarefiner.coarse import CoarseConfig, SmpUnet, encoder_weights
from ultrarefiner.coarse.efficientnet_lite0 import EFFICIENTNET_LITE0_WEIGHTS, rename_lite0
from ultrarefiner.coarse.encoder_weights import load_encoder_weights
from ultrarefiner.coarse.smp_unet import IMAGENET_MEAN, IMAGENET_STD
from ultrarefiner.data.phantom import draw_phantom
from ultrarefiner.errors import WeightsError
from ultrarefiner.ops.letterbox import Letterbox
from ultrarefiner.weights import load_weights

LITE0 = "timm-tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def packaged() -> dict[str, Tensor]:
    return load_weights(EFFICIENTNET_LITE0_WEIGHTS)


@pytest.fixture(scope="module")
def pretrained() -> SmpUnet:
    return SmpUnet(CoarseConfig()).eval()


def random_encoder(name: str = "resnet18") -> nn.Module:
    return smp.encoders.get_encoder(name, weights=None)


def classifier() -> dict[str, Tensor]:
    """Torchvision's own ResNet-18, whose names smp's encoder shares."""
    return torchvision.models.resnet18(weights=None).state_dict()


def test_the_key_map_is_one_to_one(packaged: dict[str, Tensor], pretrained: SmpUnet) -> None:
    renamed = rename_lite0(packaged)
    wanted = pretrained.unet.encoder.state_dict()
    assert renamed.keys() == wanted.keys()
    assert {key: value.shape for key, value in renamed.items()} == {
        key: value.shape for key, value in wanted.items()
    }
    assert len(packaged) - len(renamed) == 2  # weight and bias of the classifier


def test_the_key_map_agrees_with_timm(packaged: dict[str, Tensor]) -> None:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    missing, surplus = network.load_state_dict(rename_lite0(packaged), strict=False)
    assert (missing, surplus) == (["classifier.weight", "classifier.bias"], [])


def test_every_tensor_arrives(packaged: dict[str, Tensor], pretrained: SmpUnet) -> None:
    found = pretrained.unet.encoder.state_dict()
    for key, value in rename_lite0(packaged).items():
        assert torch.equal(found[key], value), key


def test_statistics_fit_what_flows_through_the_network(pretrained: SmpUnet) -> None:
    """An oracle from within: batch norm knows the mean of every channel that reaches it.

    A layer in the wrong place, or the wrong normalisation, would break the agreement.
    """
    agreement: dict[str, float] = {}

    def watch(name: str, norm: nn.BatchNorm2d) -> None:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            means = torch.stack([inputs[0].mean(dim=(0, 2, 3)), norm.running_mean])
            agreement[name] = float(torch.corrcoef(means)[0, 1])

        hooks.append(norm.register_forward_hook(note))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in pretrained.unet.encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.endswith(("bn2", "bn3")):
            watch(name, module)
    frames = [
        Letterbox(phantom.image.shape, 256).shrink(phantom.image / np.float32(255))
        for phantom in (draw_phantom(0, index) for index in range(2))
    ]
    with torch.no_grad():
        pretrained(torch.from_numpy(np.stack(frames))[:, None])
    for hook in hooks:
        hook.remove()
    assert len(agreement) == 31
    assert min(agreement.values()) > 0.7
    assert np.mean(list(agreement.values())) > 0.9


def test_images_are_normalised_as_imagenet(pretrained: SmpUnet) -> None:
    seen: list[Tensor] = []
    hook = pretrained.unet.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(*inputs))
    with torch.no_grad():
        pretrained(torch.full((1, 1, 32, 32), 0.3))
    hook.remove()
    expected = [(0.3 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor(expected))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_torchvision_weights_from_a_file(tmp_path: Path, ending: str, wrapped: bool) -> None:
    path, state = tmp_path / f"weights{ending}", classifier()
    if ending == ".pth":
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    else:
        save_file(state, path)
    encoder = random_encoder()
    load_encoder_weights(encoder, "resnet18", str(path))
    assert torch.equal(
        encoder.state_dict()["layer3.1.conv2.weight"], state["layer3.1.conv2.weight"]
    )


@pytest.mark.parametrize("name", ["resnet18.pth", "pytorch_model.bin"])
def test_weights_from_a_folder(tmp_path: Path, name: str) -> None:
    torch.save(classifier(), tmp_path / name)
    encoder = random_encoder()
    before = encoder.state_dict()["conv1.weight"].clone()
    load_encoder_weights(encoder, "resnet18", str(tmp_path))
    assert not torch.equal(before, encoder.state_dict()["conv1.weight"])


def test_timm_weights_from_a_file(tmp_path: Path) -> None:
    name = "tu-mobilenetv3_small_050"
    state = timm.create_model(name[3:], pretrained=False).state_dict()
    torch.save(state, tmp_path / "w.pt")
    encoder = random_encoder(name)
    load_encoder_weights(encoder, name, str(tmp_path / "w.pt"))
    assert torch.equal(encoder.state_dict()["model.conv_stem.weight"], state["conv_stem.weight"])


@pytest.mark.parametrize("change", ["missing", "surplus", "misfits"])
def test_a_partial_match_is_refused(tmp_path: Path, change: str) -> None:
    state = classifier()
    if change == "missing":
        del state["layer1.0.conv1.weight"]
    elif change == "surplus":
        state["layer9.weight"] = torch.zeros(3)
    else:
        state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "w.pth")
    encoder = random_encoder()
    before = encoder.state_dict()["layer2.0.conv1.weight"].clone()
    with pytest.raises(WeightsError, match=f"1 {change}"):
        load_encoder_weights(encoder, "resnet18", str(tmp_path / "w.pth"))
    assert torch.equal(before, encoder.state_dict()["layer2.0.conv1.weight"])


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot read weights"),
        (b"not weights", "cannot read weights"),
        (pickle.dumps(Bomb()), "cannot read weights"),
    ],
)
def test_files_that_are_no_weights(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            load_encoder_weights(random_encoder(), "resnet18", str(tmp_path / name))
    assert capsys.readouterr().out == ""


def test_nothing_there(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "no"):
        with pytest.raises(WeightsError, match="no weights of encoder 'resnet18'"):
            load_encoder_weights(random_encoder(), "resnet18", str(source))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """The hub's two functions over a local file: the network is all that is left out."""
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in classifier().items() if not k.startswith("fc")}, path)
    asked: dict[str, object] = {"etag": encoder_weights.file_sha256(path)}

    def download(repository: str, name: str, *, revision: str | None) -> str:
        asked["what"] = (repository, name, revision)
        return str(path)

    class Metadata:
        @property
        def etag(self) -> object:
            return asked["etag"]

    monkeypatch.setattr(encoder_weights, "hf_hub_download", download)
    monkeypatch.setattr(encoder_weights, "get_hf_file_metadata", lambda _: Metadata())
    return asked


def test_the_hub_is_asked_for_the_pinned_revision(hub: dict[str, object]) -> None:
    load_encoder_weights(random_encoder(), "resnet18", "imagenet")
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    assert hub["what"] == (settings["repo_id"], "model.safetensors", settings["revision"])


def test_a_damaged_download_is_refused(hub: dict[str, object]) -> None:
    hub["etag"] = "0" * 64
    with pytest.raises(WeightsError, match="is damaged"):
        load_encoder_weights(random_encoder(), "resnet18", "imagenet")


def test_without_the_hub_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(encoder_weights, "hf_hub_download", refuse)
    with pytest.raises(WeightsError, match="give its file or folder as encoder_weights"):
        load_encoder_weights(random_encoder(), "resnet18", "imagenet")


def test_the_network_takes_a_folder(tmp_path: Path, small_config: CoarseConfig) -> None:
    torch.save(classifier(), tmp_path / "resnet18.pth")
    config = replace(small_config, encoder_name="resnet18", encoder_weights=str(tmp_path))
    state = SmpUnet(config).unet.encoder.state_dict()
    assert torch.equal(state["conv1.weight"], torch.load(tmp_path / "resnet18.pth")["conv1.weight"])

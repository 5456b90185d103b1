"""What of a foundation model is trained, and what stays as it was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FoundationModel
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.training.engine.freezing import freeze, unfreeze

TUNINGS: Mapping[str, Callable[[FoundationModel], tuple[nn.Module, ...]]] = MappingProxyType(
    {
        "decoder": lambda model: (model.mask_decoder,),
        "decoder+prompt": lambda model: (model.mask_decoder, model.prompt_encoder),
        "decoder+prompt+tail": lambda model: (
            model.mask_decoder,
            model.prompt_encoder,
            *model.encoder_tail(),
        ),
        "all": lambda model: (model.mask_decoder, model.prompt_encoder, model.image_encoder),
    }
)
"""Name to the parts that are trained; adapters and LoRA would be further rows."""


def tune(model: FoundationModel, trainable: str) -> None:
    """Freeze a model but for the named parts.

    Raises:
        ConfigError: no such choice.
    """
    if trainable not in TUNINGS:
        raise ConfigError("trainable", expected="one of " + ", ".join(TUNINGS), found=trainable)
    freeze(model)
    for part in TUNINGS[trainable](model):
        unfreeze(part)


def tuned_parameters(model: FoundationModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that are trained: the image encoder's, and all others."""
    encoder = [value for value in model.image_encoder.parameters() if value.requires_grad]
    apart = set(map(id, encoder))
    others = [v for v in model.parameters() if v.requires_grad and id(v) not in apart]
    return encoder, others


def training_pipeline(
    foundation: FoundationModel, config: RefinerConfig, *, gated: bool = True
) -> RefinementPipeline:
    """Return the pipeline of a config without its stabiliser, which would hide what went wrong.

    Args:
        foundation: to be trained.
        config: of every stage.
        gated: whether its gate takes part; one that learns has to.
    """
    stages = replace(config, stabilizer=replace(config.stabilizer, enabled=False))
    if not gated:
        stages = replace(stages, gate=GateConfig(kind="none"))
    return build_pipeline(foundation, stages)


def drop_encoder(model: FoundationModel) -> None:
    """Free the memory of an image encoder whose embeddings are all cached.

    The model can decode still, and what it has in common with its published weights is known.
    """
    model.image_encoder = _CachedEncoder()


class _CachedEncoder(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("embeddings are cached, and the encoder is gone")

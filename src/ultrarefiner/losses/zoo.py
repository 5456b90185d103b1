"""The losses of segmentation by name: of pixels, regions, boundaries, and combinations.

Source: the taxonomy of Azad et al., "Loss Functions in the Era of Semantic Segmentation", 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ultrarefiner.losses.compound import Combo, ExponentialLogarithmic, Loss
from ultrarefiner.losses.monai_losses import MonaiLoss
from ultrarefiner.losses.pixels import Focal
from ultrarefiner.losses.ranked import Lovasz, TopK
from ultrarefiner.losses.segmentation import CrossEntropyDice
from ultrarefiner.registry import Registry

LOSSES = Registry[Callable[..., Loss]]("loss")

LOSSES.register("cross-entropy")(partial(CrossEntropyDice, ce_weight=1.0))
LOSSES.register("ce-dice")(CrossEntropyDice)
LOSSES.register("focal")(Focal)
LOSSES.register("topk")(TopK)
LOSSES.register("lovasz")(Lovasz)
LOSSES.register("combo")(Combo)
LOSSES.register("exp-log")(ExponentialLogarithmic)

_SOFT: dict[str, float] = {"soft_label": True}
_MONAI: dict[str, tuple[str, dict[str, float]]] = {
    "dice": ("DiceLoss", _SOFT),
    "jaccard": ("DiceLoss", {**_SOFT, "jaccard": True}),
    "generalized-dice": ("GeneralizedDiceLoss", _SOFT),
    "tversky": ("TverskyLoss", {**_SOFT, "alpha": 0.3, "beta": 0.7}),
    "dice-focal": ("DiceFocalLoss", {}),
    "hausdorff": ("HausdorffDTLoss", {}),
    "log-hausdorff": ("LogHausdorffDTLoss", {}),
    "boundary": ("BoundaryLoss", {}),
}
for _name, (_loss, _options) in _MONAI.items():
    LOSSES.register(_name)(partial(MonaiLoss, name=_loss, options=_options))

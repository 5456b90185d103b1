"""Parts of a model that do not change: neither by gradients nor by what they see."""

from __future__ import annotations

from types import MethodType

from torch import nn


def freeze(module: nn.Module) -> None:
    """Keep parameters and buffers of a module bitwise as they are, until :func:`unfreeze`.

    Its parameters ask for no gradient, and it is and stays in evaluation mode, whatever ``train()``
    is called around it: else batch statistics would go on, and dropout would act.

    Under DDP, what is to be trained later must not be frozen before the training starts: which
    parameters are kept equal between processes is settled then.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> freeze(model[0])
        >>> model.train()[0].training, model[1].training
        (False, True)
    """
    module.requires_grad_(False)
    for part in module.modules():
        part.training = False
        part.train = MethodType(_stay_in_evaluation, part)  # type: ignore[method-assign]


def unfreeze(module: nn.Module) -> None:
    """Let a module, or a part of a frozen one, be trained; it is in training mode then."""
    module.requires_grad_(True)
    for part in module.modules():
        vars(part).pop("train", None)
    module.train()


def _stay_in_evaluation(self: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for ``train``; parts that are not frozen follow the mode."""
    self.training = False
    for child in self.children():
        child.train(mode)
    return self

"""How good a pipeline in training is: Dice of the prompted lesions on the inner validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.losses import LossTerms, hard_dice
from ultrarefiner.precision import autocast, choose_device
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.shapes import ProbMaps
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.refinement_data import RefinementBatch
from ultrarefiner.training.targets import truth_of_lesions


class Refining(Protocol):
    """The modules of phases 2 and 3."""

    def refine(self, batch: RefinementBatch) -> Refinement:
        """Refine the masks that the phase is judged on."""
        ...

    def log_dict(self, dictionary: Any, *, on_step: bool, on_epoch: bool, batch_size: int) -> Any:
        """Log numbers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Mean Dice over images, on the pipeline's grid, of the lesion that was asked about in each.

    Attributes:
        coarse_dsc: of the masks before; other lesions of a map do not count.
        dsc: of the refined masks.
        num_images: how many.
    """

    coarse_dsc: float
    dsc: float
    num_images: int

    def describe(self) -> str:
        """Return it as part of a line."""
        return (
            f"DSC {self.coarse_dsc:.4f} -> {self.dsc:.4f} on {self.num_images} images of the inner "
            "validation"
        )


def log_loss(module: Refining, terms: LossTerms) -> Tensor:
    """Log the mean loss of a batch with its terms, and return it."""
    total = terms.total.mean()
    means = {f"train_{name}": values.mean() for name, values in terms.parts.items()}
    _log(module, means | {"train_loss": total}, len(terms.total))
    return total


def log_dice(module: Refining, batch: RefinementBatch) -> None:
    """Log the mean Dice of a batch's masks before and after, each image counted once."""
    before, after = _dice(module.refine(batch), batch)
    _log(module, {"val_dsc": after.mean(), "val_coarse_dsc": before.mean()}, len(after))


def judge(
    module: torch.nn.Module, batches: Iterable[RefinementBatch], options: RunOptions
) -> Judged:
    """Return the Dice of a module as it is, outside a training, for which it is left ready."""
    device = choose_device(options.hardware.device)
    module.to(device).eval()
    before, after = [], []
    with torch.inference_mode(), autocast(device):
        for batch in batches:
            placed: Any = {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            pair = _dice(module.refine(placed), placed)  # type: ignore[operator]
            before.append(pair[0])
            after.append(pair[1])
    module.train()  # Lightning would leave it in evaluation mode; what is frozen stays in it
    return Judged(
        coarse_dsc=float(torch.cat(before).mean()),
        dsc=float(torch.cat(after).mean()),
        num_images=sum(map(len, after)),
    )


def mask_dice(probs: ProbMaps, truth: ProbMaps) -> Float[Tensor, "B"]:
    """Return the Dice of each mask above 0.5 on its grid; 1 if both are empty."""
    return hard_dice(probs[:, 0] > 0.5, truth[:, 0] > 0.5)


def _log(module: Refining, means: dict[str, Tensor], batch_size: int) -> None:
    module.log_dict(means, on_step=False, on_epoch=True, batch_size=batch_size)


def _dice(
    refinement: Refinement, batch: RefinementBatch
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    truth = truth_of_lesions(batch["truth"], refinement.lesions)
    return mask_dice(refinement.lesions.probs, truth), mask_dice(refinement.probs, truth)

"""Moving points to pixels of a certain kind, with the gradient of where they were."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.shapes import Points


def snap(
    points: Points,
    allowed: Bool[Tensor, "B h w"] | Bool[Tensor, "B N h w"],
    *,
    centres: tuple[Float[Tensor, "B w"], Float[Tensor, "B h"]] | None = None,
) -> tuple[Points, Bool[Tensor, "B N"]]:
    r"""Move each point to the centre of the nearest allowed pixel, straight through.

    .. math:: \tilde p = p + \operatorname{stopgrad}(q - p), \quad
              q = \arg\min_{q'\ \text{allowed}} \lVert q' - p \rVert

    A point inside an allowed pixel stays where it is; on an edge it is in none. Of several nearest
    pixels the first in reading order is taken.

    Args:
        points: ``B N 2`` xy [px of the grid].
        allowed: the pixels for all points of an item, or for each point its own.
        centres: x of every column and y of every row [px], if they are a selection of the grid's
            lines; by default i + 0.5.

    Returns:
        The points, with the gradient of those given; and which found a pixel. The others stay.

    Example:
        >>> allowed = torch.tensor([[[True, False, False, False]]])
        >>> snap(torch.tensor([[[2.9, 0.5]]]), allowed)
        (tensor([[[0.5000, 0.5000]]]), tensor([[True]]))
    """
    held = points.detach()
    xs, ys = pixel_centres(held, allowed) if centres is None else centres
    away_x, away_y = (xs[:, None] - held[..., :1]) ** 2, (ys[:, None] - held[..., 1:]) ** 2
    barred = torch.where(allowed, held.new_zeros(()), torch.inf)
    barred = barred.view(len(held), -1, *allowed.shape[-2:]).expand(-1, held.shape[1], -1, -1)
    # The nearest row first, then its nearest pixel: so the maps are read once.
    away, row = ((barred + away_x[:, :, None]).amin(dim=-1) + away_y).min(dim=-1)
    chosen = row[..., None, None].expand(-1, -1, 1, barred.shape[-1])
    col = (barred.gather(2, chosen)[:, :, 0] + away_x).min(dim=-1).indices
    moves = torch.stack([xs.gather(1, col), ys.gather(1, row)], dim=-1) - held
    found = away < torch.inf
    stays = (moves.abs().amax(dim=-1) < 0.5) | ~found
    return points + moves.masked_fill(stays[..., None], 0), found


def pixel_centres(
    points: Points, maps: Tensor
) -> tuple[Float[Tensor, "B w"], Float[Tensor, "B h"]]:
    """Return x of the columns and y of the rows of some maps, once for each item.

    Args:
        points: ``B N 2``, of which device and type are taken.
        maps: ``* h w``, of which rows and columns are counted.
    """
    xs, ys = (
        torch.arange(length, device=points.device, dtype=points.dtype).expand(len(points), -1) + 0.5
        for length in (maps.shape[-1], maps.shape[-2])
    )
    return xs, ys

"""What a stage may ask of whatever shows it the image, be it a scene or a view of one."""

from __future__ import annotations

from typing import Protocol

from ultrarefiner.shapes import Images


class Sight(Protocol):
    """Something through which the image is seen on the grid of a map."""

    def grid_images(self) -> tuple[Images, Images]:
        """Return the image on the grid of each map, and where the grid holds image.

        Grey levels ``B 1 h w`` are stretched to [0, 1] over the image and 0 in the padding; the
        second, of the same shape, is 1 on the image and 0 in the padding.
        """
        ...

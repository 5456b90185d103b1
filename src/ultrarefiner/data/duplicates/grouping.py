"""From pairs of alike images to scenes, without chains of doubtful links."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Link", "Scene", "join_links"]


@dataclass(frozen=True, order=True)
class Link:
    """Images number ``first`` and ``second`` are alike to the degree ``score``, in [0, 1]."""

    first: int
    second: int
    score: float


@dataclass(frozen=True)
class Scene:
    """Numbers of the images of one scene, ascending, and the weakest score that joined them."""

    images: tuple[int, ...]
    score: float


def join_links(links: Iterable[Link], *, sure_score: float) -> tuple[Scene, ...]:
    """Join images into scenes, the strongest links first.

    A link of at least ``sure_score`` joins whatever its two ends belong to. A weaker one does so
    only if at least half of all pairs between the two are links as well: one mistake cannot chain
    strangers together.

    Args:
        links: pairs of alike images, in any order; the result does not depend on it.
        sure_score: score from which a link is beyond doubt.

    Returns:
        Disjoint scenes of at least two images, sorted.
    """
    ordered = sorted(links, key=lambda link: (-link.score, link.first, link.second))
    linked = {frozenset((link.first, link.second)) for link in ordered}
    scene_of: dict[int, Scene] = {}
    for link in ordered:
        one, other = (
            scene_of.get(image, Scene((image,), 1.0)) for image in (link.first, link.second)
        )
        if one == other:
            continue
        num_linked = sum(frozenset((a, b)) in linked for a in one.images for b in other.images)
        num_pairs = len(one.images) * len(other.images)
        if link.score >= sure_score or 2 * num_linked >= num_pairs:
            images = tuple(sorted(one.images + other.images))
            joined = Scene(images, min(one.score, other.score, link.score))
            scene_of.update(dict.fromkeys(images, joined))
    return tuple(sorted(set(scene_of.values()), key=lambda scene: scene.images))

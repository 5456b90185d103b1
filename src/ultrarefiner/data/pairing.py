"""Match images with coarse masks by their file names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.data.formats import DECODERS, split_name
from ultrarefiner.errors import InputError

_NNUNET_CHANNEL = re.compile(r"_0000$")
_MASK_AFFIX = re.compile(r"^mask_|_(?:mask|seg|segmentation|coarse|pred)$")
_BUSBRA_IMAGE = re.compile(r"^bus_")


@dataclass(frozen=True)
class Pair:
    """An image and its coarse mask; ``stem`` is the image's and names the results."""

    stem: str
    image: Path
    coarse: Path


@dataclass(frozen=True)
class Ambiguous:
    """Files that share one name, so that none of them can be paired."""

    stem: str
    images: tuple[Path, ...]
    coarse: tuple[Path, ...]


@dataclass(frozen=True)
class Pairing:
    """Outcome of matching two folders. Every file found is in exactly one of the fields.

    Attributes:
        pairs: what to work on, sorted by stem; stems are unique.
        unmatched_images: images without a mask, sorted.
        unmatched_coarse: masks without an image, sorted.
        ambiguous: groups of files with one name, sorted by it.
    """

    pairs: tuple[Pair, ...]
    unmatched_images: tuple[Path, ...]
    unmatched_coarse: tuple[Path, ...]
    ambiguous: tuple[Ambiguous, ...]


def find_images(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder that have a supported ending, sorted by name.

    Hidden files, subfolders and other endings are passed over.

    Raises:
        InputError: no such folder, or nothing in it that could be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as cause:
        raise InputError(
            f"cannot list {folder}",
            expected="a folder of images",
            found=cause.strerror or type(cause).__name__,
            fix="Check the spelling of the path.",
        ) from cause
    files = [path for path in entries if not path.name.startswith(".") and not path.is_dir()]
    images = tuple(path for path in files if split_name(path)[1] in DECODERS)
    if not images:
        seen = Counter(split_name(path)[1] or "no ending" for path in files)
        raise InputError(
            f"no images in {folder}",
            expected="files ending in " + ", ".join(DECODERS),
            found=", ".join(f"{num} x {ending}" for ending, num in sorted(seen.items()))
            or "no files",
            fix="Subfolders are not searched: give the folder that holds the files.",
        )
    return images


def pair_by_stem(images_dir: Path, coarse_dir: Path) -> Pairing:
    """Match the images of one folder with the coarse masks of another.

    The rules are those of :func:`pair_files`.

    Raises:
        InputError: a folder is missing, holds no images or is given twice, or nothing matches.
    """
    images, coarse = find_images(images_dir), find_images(coarse_dir)
    if images_dir.resolve() == coarse_dir.resolve():
        raise InputError(
            f"images and masks are both in {images_dir}",
            expected="two folders",
            fix="Move the masks into a folder of their own: names alone cannot tell them apart.",
        )
    pairing = pair_files(images, coarse)
    if not pairing.pairs:
        raise InputError(
            f"no image in {images_dir} has a mask in {coarse_dir}",
            expected="equal file names up to the ending",
            found=f"images {_examples(images)} and masks {_examples(coarse)}",
            fix="Name each mask like its image, one file each.",
        )
    return pairing


def pair_files(images: Iterable[Path], coarse: Iterable[Path]) -> Pairing:
    """Match images with masks by their file names.

    Stems are compared with their case. Rules from strict to loose, each for what the ones before
    left over: equal stems; nnU-Net's image suffix ``_0000`` dropped; a mask affix dropped
    (``mask_X``, ``X_mask``, ``X_seg``, ``X_segmentation``, ``X_coarse``, ``X_pred``); BUS-BRA's
    image prefix ``bus_`` dropped as well. A rule that fits several files pairs none of them.
    """
    matcher = _Matcher(images, coarse)
    for image_key, coarse_key in _RULES:
        matcher.apply(image_key, coarse_key)
    return Pairing(
        pairs=tuple(sorted(matcher.pairs, key=lambda pair: pair.stem)),
        unmatched_images=tuple(sorted(matcher.images)),
        unmatched_coarse=tuple(sorted(matcher.coarse)),
        ambiguous=tuple(sorted(matcher.ambiguous, key=lambda group: group.stem)),
    )


Key = Callable[[Path], str]


def _stem(path: Path) -> str:
    return split_name(path)[0]


def _case(path: Path) -> str:
    return _NNUNET_CHANNEL.sub("", _stem(path))


def _bare_mask(path: Path) -> str:
    return _NNUNET_CHANNEL.sub("", _MASK_AFFIX.sub("", _stem(path)))


def _bare_image(path: Path) -> str:
    return _BUSBRA_IMAGE.sub("", _case(path))


_RULES: tuple[tuple[Key, Key], ...] = (
    (_stem, _stem),
    (_case, _stem),
    (_case, _bare_mask),
    (_bare_image, _bare_mask),
)


def _grouped(paths: Iterable[Path], key: Key) -> dict[str, list[Path]]:
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups


def _doubles(groups: dict[str, list[Path]]) -> set[str]:
    return {key for key, paths in groups.items() if len(paths) > 1}


def _flat(groups: dict[str, list[Path]]) -> list[Path]:
    return [path for group in groups.values() for path in group]


def _examples(paths: tuple[Path, ...]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")


class _Matcher:
    """Files that are still without a partner, and what has been decided so far."""

    def __init__(self, images: Iterable[Path], coarse: Iterable[Path]) -> None:
        self.pairs: list[Pair] = []
        self.ambiguous: list[Ambiguous] = []
        by_stem, coarse_by_stem = _grouped(images, _stem), _grouped(coarse, _stem)
        for stem in _doubles(by_stem) | _doubles(coarse_by_stem):
            self._settle(stem, by_stem.pop(stem, []), coarse_by_stem.pop(stem, []))
        self.images = _flat(by_stem)
        self.coarse = _flat(coarse_by_stem)

    def apply(self, image_key: Key, coarse_key: Key) -> None:
        """Pair the files whose keys agree, as far as they are unique on both sides."""
        images, coarse = _grouped(self.images, image_key), _grouped(self.coarse, coarse_key)
        for key in images.keys() & coarse.keys():
            self._settle(key, images.pop(key), coarse.pop(key))
        self.images, self.coarse = _flat(images), _flat(coarse)

    def _settle(self, key: str, images: list[Path], coarse: list[Path]) -> None:
        if len(images) == len(coarse) == 1:
            self.pairs.append(Pair(_stem(images[0]), images[0], coarse[0]))
        else:
            self.ambiguous.append(Ambiguous(key, tuple(images), tuple(coarse)))

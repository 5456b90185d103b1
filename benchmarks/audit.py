"""Duplicates among 2,000 image files: ours against a 64-bit perceptual hash (pHash).

Run: ``python benchmarks/audit.py`` (about seven minutes on 2 cores, of which the phantoms take
one). Planted copies of phantoms, ten kinds, among different phantoms, two images a patient; where
BUS-BRA is there (``ULTRAREFINER_DATA``, default ``../shared/data``), copies of its folds 1 and 2 as
well, untimed. The hash: area-resized to 32 x 32, DCT, the 64 lowest frequencies against their
median; all pairs of at most a Hamming distance of 10 are reported, the usual choice. Both sides
read the files themselves. A pair is found if it is in one group; false pairs are counted per 1,000
images. Both must find the exact copies, ours at least 98 % of the changed ones.
"""

from __future__ import annotations

import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from _timing import measure, print_result, print_table, versions
from ultrarefiner.data.duplicates import find_duplicates
from ultrarefiner.data.phantom import PhantomConfig, draw_phantom
from ultrarefiner.data.readers import read_image
from ultrarefiner.data.sources import read_busbra

NUM_ORIGINALS, NUM_COPIES = 1600, 400
NUM_BUSBRA_COPIES = 400
REPEATS = 3
DISTANCES = (2, 4, 6, 8, 10)
BUDGET_S = 120.0
LEAST_RECALL = 0.98
# One scene under two numbers, seen by eye: calipers, text and crop differ, the speckle does not.
KNOWN = (
    ("bus_0044-l", "bus_0065-l"),
    ("bus_0044-r", "bus_0065-r"),
    ("bus_0056-l", "bus_0091-l"),
    ("bus_0056-r", "bus_0091-r"),
)
CONFIG = PhantomConfig(height_px=(300, 440), width_px=(300, 440), images_per_patient=2)

Image = np.ndarray
Pairs = set[frozenset[Path]]


def exact(image: Image, rng: np.random.Generator) -> Image:
    return image


def resaved(image: Image, rng: np.random.Generator) -> Image:
    quality = int(rng.integers(50, 96))
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def resized(image: Image, rng: np.random.Generator) -> Image:
    factor, aspect = np.exp(rng.uniform(np.log(0.4), np.log(2.0))), rng.uniform(0.95, 1.05)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor * aspect, fy=factor / aspect, interpolation=method)


def cropped(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape
    top, bottom = (rng.uniform(0, 0.12, 2) * height).astype(int)
    left, right = (rng.uniform(0, 0.12, 2) * width).astype(int)
    return image[top : height - bottom, left : width - right].copy()


def toned(image: Image, rng: np.random.Generator) -> Image:
    gamma = np.exp(rng.uniform(np.log(0.6), np.log(1.6)))
    grey = (image / 255) ** gamma * rng.uniform(0.7, 1.3) + rng.uniform(-0.12, 0.12)
    return (255 * np.clip(grey, 0, 1)).astype(np.uint8)


def annotated(image: Image, rng: np.random.Generator) -> Image:
    marked = image.copy()
    height, width = image.shape
    corners = rng.uniform(0.2, 0.8, (4, 2)) * (width, height)
    for start, end in zip(corners[::2], corners[1::2], strict=True):
        for x, y in np.linspace(start, end, 30).astype(int):
            cv2.circle(marked, (int(x), int(y)), 1, 255, -1)
        for x, y in np.stack([start, end]).astype(int):
            cv2.drawMarker(marked, (int(x), int(y)), 255, cv2.MARKER_CROSS, 14, 1)
    x, y = (int(part) for part in corners[0])
    cv2.arrowedLine(marked, (x + 40, y + 40), (x + 8, y + 8), 255, 2)
    cv2.rectangle(marked, (width - 70, height - 70), (width - 8, height - 8), 0, -1)
    cv2.circle(marked, (width - 39, height - 39), 26, 220, 1)
    text = f"D1 1.{rng.integers(10, 99)} cm"
    cv2.putText(marked, text, (8, height - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    return marked


def framed(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape
    sides = (rng.uniform(0.05, 0.4, 4) * (height, height, width, width)).astype(int)
    framed = cv2.copyMakeBorder(image, *map(int, sides), cv2.BORDER_CONSTANT, value=0)
    cv2.putText(framed, "MI 0.9 GEN", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 200, 1)
    return framed


def flipped(image: Image, rng: np.random.Generator) -> Image:
    return np.ascontiguousarray(image[:, ::-1])


def zoomed(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape
    rows, columns = (round(rng.uniform(0.6, 0.75) * side) for side in (height, width))
    top, left = rng.integers(0, height - rows), rng.integers(0, width - columns)
    part = image[top : top + rows, left : left + columns]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)


def everything(image: Image, rng: np.random.Generator) -> Image:
    changes = (cropped, toned, annotated, resized)
    for number in rng.permutation(len(changes)):
        image = changes[number](image, rng)
    return resaved(flipped(image, rng) if rng.random() < 0.2 else image, rng)


CHANGES: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    change.__name__: change
    for change in (
        exact,
        resaved,
        resized,
        cropped,
        toned,
        annotated,
        framed,
        flipped,
        zoomed,
        everything,
    )
}


@dataclass
class Collection:
    """Image files, and the pairs of them that show one scene, by kind of change."""

    paths: list[Path]
    planted: dict[str, Pairs] = field(default_factory=dict)
    known: Pairs = field(default_factory=set)

    def plant(self, originals: Sequence[Path], folder: Path, seed: int) -> None:
        """Write a changed copy of each of these originals, the kinds in turn."""
        for number, path in enumerate(originals):
            kind = list(CHANGES)[number % len(CHANGES)]
            image = np.rint(read_image(path) * 255).astype(np.uint8)
            changed = CHANGES[kind](image, np.random.default_rng([seed, number]))
            copy = folder / f"copy-{number:04d}.png"
            cv2.imwrite(str(copy), changed)
            self.paths.append(copy)
            self.planted.setdefault(kind, set()).add(frozenset((path, copy)))

    def recall(self, found: Pairs) -> dict[str, float]:
        return {kind: len(pairs & found) / len(pairs) for kind, pairs in self.planted.items()}

    def overall_recall(self, found: Pairs) -> float:
        planted: Pairs = set().union(*self.planted.values())
        return len(planted & found) / len(planted)

    def false_per_1000(self, found: Pairs) -> float:
        """Count pairs that are neither planted nor known, nor follow from two that are."""
        originals = {copy: path for pair in self._planted() for copy, path in [_ordered(pair)]}
        own = {frozenset(originals.get(path, path) for path in pair) for pair in found}
        return 1000 * len({p for p in own if len(p) == 2} - self.known) / len(self.paths)

    def _planted(self) -> Iterable[frozenset[Path]]:
        return (pair for pairs in self.planted.values() for pair in pairs)


def _ordered(pair: frozenset[Path]) -> tuple[Path, Path]:
    one, other = sorted(pair, key=lambda path: path.name.startswith("copy-"), reverse=True)
    return one, other


def ours(paths: Sequence[Path]) -> Pairs:
    groups = find_duplicates(paths)
    return {frozenset(pair) for group in groups for pair in combinations(group.images, 2)}


def hashed(path: Path) -> Image:
    """Return the 64 bits of a perceptual hash as eight bytes."""
    small = cv2.resize(read_image(path), (32, 32), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small)[:8, :8].ravel()
    return np.packbits(lowest > np.median(lowest))


def hash_pairs(paths: Sequence[Path], most: int = DISTANCES[-1]) -> dict[int, Pairs]:
    """Return the pairs at most so many bits apart, for every number of bits in question."""
    bits = np.unpackbits(np.stack([hashed(path) for path in paths]), axis=1).astype(np.float32)
    distance = (1 - bits) @ bits.T
    distance += distance.T
    found = {}
    for bound in (d for d in DISTANCES if d <= most):
        rows, columns = np.nonzero(np.triu(distance <= bound, k=1))
        found[bound] = {frozenset((paths[a], paths[b])) for a, b in zip(rows, columns, strict=True)}
    return found


def write_phantom(index: int, folder: Path) -> Path:
    path = folder / f"phantom-{index:04d}.png"
    cv2.imwrite(str(path), draw_phantom(0, index, CONFIG).image)
    return path


def phantoms(folder: Path) -> Collection:
    with ProcessPoolExecutor() as pool:
        indices = range(NUM_ORIGINALS)
        paths = list(pool.map(write_phantom, indices, [folder] * NUM_ORIGINALS, chunksize=25))
    collection = Collection(paths)
    collection.plant(paths[:NUM_COPIES], folder, seed=1)
    return collection


def busbra(folder: Path) -> Collection | None:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("ULTRAREFINER_DATA", default)) / "BUSBRA"
    if not root.is_dir():
        return None
    paths = [record.image for record in read_busbra(root) if record.fold in {"1", "2"}]
    known = {frozenset(root / "Images" / f"{name}.png" for name in pair) for pair in KNOWN}
    collection = Collection(paths, known=known)
    chosen = np.random.default_rng(17).permutation(len(paths))[:NUM_BUSBRA_COPIES]
    collection.plant([paths[i] for i in chosen], folder, seed=2)
    return collection


def print_recall(name: str, collection: Collection, sides: Mapping[str, Pairs]) -> None:
    print(f"\n{name}: {len(collection.paths)} images, share of the planted pairs found")
    print(f"{'':12}" + "".join(f"{side:>14}" for side in sides))
    recalls = [collection.recall(found) for found in sides.values()]
    for kind in collection.planted:
        print(f"{kind:12}" + "".join(f"{recall[kind]:14.3f}" for recall in recalls))
    overall = (collection.overall_recall(found) for found in sides.values())
    print(f"{'all':12}" + "".join(f"{recall:14.3f}" for recall in overall))
    false = (collection.false_per_1000(found) for found in sides.values())
    print(f"{'false / 1000':12}" + "".join(f"{number:14.2f}" for number in false), flush=True)


def examine(name: str, collection: Collection) -> dict[str, float]:
    """Print and return how much both sides find and how much of it is wrong."""
    alternative = hash_pairs(collection.paths)
    found = ours(collection.paths)
    sides = {"ultrarefiner": found} | {f"pHash <= {d}": p for d, p in alternative.items()}
    print_recall(name, collection, sides)
    usual = alternative[DISTANCES[-1]]
    return {
        f"{name}_recall": round(collection.overall_recall(found), 4),
        f"{name}_false_per_1000": round(collection.false_per_1000(found), 2),
        f"{name}_exact_agree": collection.recall(found)["exact"]
        == collection.recall(usual)["exact"]
        == 1.0,
        f"{name}_phash_recall": round(collection.overall_recall(usual), 4),
        f"{name}_phash_false_per_1000": round(collection.false_per_1000(usual), 2),
    }


def peak_mib(call: Callable[[], object]) -> float:
    """Return the peak of the memory that Python and NumPy allocate during one call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("phantoms", "busbra"):
            (folder / name).mkdir()
        real = busbra(folder / "busbra")
        checks: dict[str, object] = dict(examine("busbra", real)) if real else {}
        drawn = phantoms(folder / "phantoms")
        checks |= examine("phantoms", drawn)
        sides = {
            "ultrarefiner": lambda: ours(drawn.paths),
            "pHash": lambda: hash_pairs(drawn.paths),
        }
        timings = measure(sides, repeats=REPEATS, warmup=0)
        print(f"\n{len(drawn.paths)} files a call, {REPEATS} repeats, {os.cpu_count()} cores")
        print_table(timings, reference="ultrarefiner")
        part = drawn.paths[-NUM_COPIES:]
        memory = {"ultrarefiner": lambda: ours(part), "pHash": lambda: hash_pairs(part)}
        for name, call in memory.items():
            print(
                f"peak of memory that tracemalloc sees, {len(part)} files, {name}: "
                f"{peak_mib(call):.0f} MiB"
            )
    seconds = timings["ultrarefiner"].median_s
    names = ("busbra", "phantoms") if real else ("phantoms",)
    passed = seconds <= BUDGET_S and all(
        checks[f"{name}_exact_agree"]
        and checks[f"{name}_recall"] >= LEAST_RECALL
        and checks[f"{name}_false_per_1000"] <= 1
        for name in names
    )
    print_result(
        "audit",
        ratios={"vs_phash": timings["pHash"].median_s / seconds},
        checks=checks | {"seconds_2000": round(seconds, 1), "passed": passed},
        versions=versions("ultrarefiner", "numpy", "opencv-python-headless"),
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

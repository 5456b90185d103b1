"""`ultrarefiner refine` on bad input, full disks and signals: named, and nothing done is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Run, read_rows, refine_args
from PIL import Image

STEMS = [f"phantom-7-000{i}" for i in range(3)]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def one(phantoms: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folders of images and masks with one good pair, and a folder to write."""
    for kind in ("images", "coarse"):
        (tmp_path / kind).mkdir()
        shutil.copy(phantoms / kind / f"{STEMS[0]}.png", tmp_path / kind / "good.png")
    return tmp_path / "images", tmp_path / "coarse", tmp_path / "out"


def add_pair(folders: tuple[Path, ...], stem: str, source: str = "good") -> tuple[Path, Path]:
    image, coarse = (folder / f"{stem}.png" for folder in folders[:2])
    for path in (image, coarse):
        shutil.copy(path.with_name(f"{source}.png"), path)
    return image, coarse


def leftovers(out: Path) -> list[Path]:
    """Files that are neither results nor part of them."""
    return [path for path in out.rglob(".*") if path.is_file()]


def assert_whole(out: Path, phantoms: Path, stem: str, source: str) -> None:
    mask = pixels(out / "masks" / f"{stem}.png")
    assert mask.shape == pixels(phantoms / "images" / f"{source}.png").shape
    assert set(np.unique(mask)) <= {0, 255}
    assert str(np.count_nonzero(mask)) == read_rows(out)[stem]["area_refined_px"]


class TestFolders:
    """Exit code 2, one line that says what to do, and nothing written."""

    def refuse(self, refine: Command, images: Path, coarse: Path, out: Path) -> str:
        existed = out.exists()
        outcome = refine(images, coarse, out)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert "Traceback" not in outcome.err
        assert out.exists() == existed
        return outcome.err

    def test_missing(self, one, refine: Command, tmp_path: Path) -> None:
        message = self.refuse(refine, tmp_path / "nowhere", one[1], one[2])
        assert f"cannot list {tmp_path / 'nowhere'}" in message
        assert "Check the spelling" in message

    def test_empty(self, one, refine: Command, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        message = self.refuse(refine, one[0], tmp_path / "empty", one[2])
        assert f"no images in {tmp_path / 'empty'}" in message
        assert ".png" in message

    def test_a_file(self, one, refine: Command) -> None:
        assert "cannot list" in self.refuse(refine, one[0] / "good.png", one[1], one[2])

    def test_no_common_stem(self, one, refine: Command) -> None:
        (one[1] / "good.png").rename(one[1] / "other.png")
        message = self.refuse(refine, *one)
        assert "good.png" in message
        assert "other.png" in message
        assert "Name each mask like its image" in message

    def test_images_given_twice(self, one, refine: Command) -> None:
        assert "two folders" in self.refuse(refine, one[0], one[0], one[2])

    def test_out_inside_a_file(self, one, refine: Command, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine", encoding="utf-8")
        message = self.refuse(refine, one[0], one[1], tmp_path / "file" / "out")
        assert f"cannot write {tmp_path / 'file' / 'out'}" in message
        assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"

    @pytest.mark.parametrize("kind", ["masks", "probabilities"])
    def test_out_that_is_the_input(self, one, refine: Command, kind: str) -> None:
        coarse = one[1].rename(one[1].with_name(kind))
        before = (coarse / "good.png").read_bytes()
        message = self.refuse(refine, one[0], coarse, one[1].parent)
        assert f"would overwrite the input folder {coarse}" in message
        assert (coarse / "good.png").read_bytes() == before

    def test_out_that_holds_the_truth(self, one, refine: Command) -> None:
        """The usual layout `images/ masks/ coarse/`: its masks are not to be written over."""
        truth = one[0].parent / "masks"
        truth.mkdir()
        (truth / "good.png").write_bytes(b"by hand")
        message = self.refuse(refine, one[0], one[1], truth.parent)
        assert str(truth) in message
        assert "Choose another folder for --out" in message
        assert (truth / "good.png").read_bytes() == b"by hand"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_pixel(path: Path) -> None:
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(path)


def text(path: Path) -> None:
    path.write_text("This is not a picture.\n", encoding="utf-8")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


class TestBadFiles:
    def test_each_is_named_and_the_others_are_done(self, one, refine: Command) -> None:
        harm = {"a-cut": cut, "b-pixel": one_pixel, "c-text": text, "d-zero": nothing}
        for stem, spoil in harm.items():
            spoil(add_pair(one, stem)[0])
        spoil_mask = add_pair(one, "e-mask")[1]
        cut(spoil_mask)
        shutil.copy(one[0] / "good.png", one[0] / "lonely.png")
        outcome = refine(*one)
        rows = read_rows(one[2])
        assert outcome.code == 1
        assert outcome.out.startswith("1 mask refined, 0 kept as given;")
        assert "6 files skipped" in outcome.err
        assert "Traceback" not in outcome.err
        for stem in harm:
            path = one[0] / f"{stem}.png"
            assert str(path) in rows[stem]["error"]
            assert f"skipped: {stem}: {rows[stem]['error']}" in outcome.err.splitlines()
            assert rows[stem]["accepted"] == ""
        assert str(spoil_mask) in rows["e-mask"]["error"]
        assert rows["lonely.png"]["error"] == "no coarse mask of that name"
        assert "1x1" in rows["b-pixel"]["error"]
        assert "0 bytes" in rows["d-zero"]["error"]
        assert rows["good"]["error"] == ""
        assert [path.name for path in (one[2] / "masks").iterdir()] == ["good.png"]
        page = (one[2] / "report.html").read_text(encoding="utf-8")
        assert all(stem in page for stem in [*harm, "e-mask", "good"])

    def test_nothing_usable_still_gives_table_and_report(self, one, refine: Command) -> None:
        text(one[0] / "good.png")
        outcome = refine(*one)
        assert outcome.code == 1
        assert outcome.out.startswith("0 masks refined")
        assert read_rows(one[2])["good"]["error"]
        assert "good" in (one[2] / "report.html").read_text(encoding="utf-8")

    def test_a_bomb_costs_neither_memory_nor_time(self, one, refine: Command) -> None:
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("needs Linux: measures the peak of memory")
        write_bomb(one[0] / "good.png", side=30_000)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak := present
        before, start = memory_mib("VmRSS"), time.perf_counter()
        outcome = refine(*one)
        assert outcome.code == 1
        assert f"will not decode {one[0] / 'good.png'}" in outcome.err
        assert "at most 100,000,000 pixels" in outcome.err
        assert "Crop or shrink it first" in outcome.err
        assert time.perf_counter() - start < 20
        assert memory_mib("VmHWM") - before < 400  # the pixels alone are 858 MiB

    def test_empty_and_full_masks_are_no_errors(self, one, refine: Command) -> None:
        (one[0] / "good.png").rename(one[0] / "empty.png")
        (one[1] / "good.png").rename(one[1] / "empty.png")
        shape = pixels(one[0] / "empty.png").shape
        Image.fromarray(np.zeros(shape, np.uint8)).save(one[1] / "empty.png")
        Image.fromarray(np.full(shape, 255, np.uint8)).save(add_pair(one, "full", "empty")[1])
        outcome = refine(*one)
        rows = read_rows(one[2])
        assert (outcome.code, outcome.err) == (0, "")
        assert rows["empty"]["reason"] == "no lesion in coarse mask"
        assert rows["empty"]["iou_with_coarse"] == "1.0000"
        assert not pixels(one[2] / "masks" / "empty.png").any()
        assert rows["empty"]["accepted"] == "no"
        assert (rows["full"]["error"], rows["full"]["area_coarse_px"]) == ("", str(np.prod(shape)))
        full = pixels(one[2] / "masks" / "full.png")
        assert (full == 255).sum() == int(rows["full"]["area_refined_px"]) > 0

    def test_extremely_long_images(self, one, refine: Command) -> None:
        """Scaled to the model's frame, their short side is a fraction of a pixel."""
        rng = np.random.default_rng(0)
        for kind, levels in enumerate([rng.integers(0, 256, (8, 4000)), np.zeros((8, 4000))]):
            levels = levels.astype(np.uint8)
            if kind:
                levels[2:6, 1000:1400] = 255
            Image.fromarray(levels).save(one[kind] / "good.png")
            Image.fromarray(levels.T).save(one[kind] / "tall.png")
        outcome = refine(*one)
        assert (outcome.code, outcome.err) == (0, "")
        assert pixels(one[2] / "masks" / "good.png").shape == (8, 4000)
        assert pixels(one[2] / "masks" / "tall.png").shape == (4000, 8)

    def test_a_turned_photograph_fits_its_upright_mask(
        self, one, finished: Run, refine: Command
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
        with Image.open(one[0] / "good.png") as upright:
            turned = upright.transpose(Image.Transpose.ROTATE_90)
        turned.save(one[0] / "good.jpg", quality=98, exif=exif)
        (one[0] / "good.png").unlink()
        outcome = refine(*one)
        mask = pixels(one[2] / "masks" / "good.png") > 0
        plain = pixels(finished.folder / "masks" / f"{STEMS[0]}.png") > 0
        assert (outcome.code, outcome.err) == (0, ""), "a mask that fits is not resampled"
        assert mask.shape == plain.shape
        assert np.count_nonzero(mask & plain) / np.count_nonzero(mask | plain) > 0.95

    def test_any_file_name(self, one, refine: Command) -> None:
        stems = ["läsion 你好 ✓", "<script>alert(1)", "a,b\"c'd", "two\nlines"]
        named = [*stems, os.fsdecode(b"latin-\xe9")]
        for stem in named:
            add_pair(one, stem)
        for folder in one[:2]:
            (folder / "good.png").unlink()
        nothing(one[0] / f"{named[-1]}.png")
        outcome = refine(*one)
        rows = read_rows(one[2])
        assert outcome.code == 1
        assert outcome.out.startswith("4 masks refined")
        assert {*stems[:3], "two lines"} < rows.keys()
        assert "latin-\\udce9" in outcome.err
        for stem in stems:
            assert pixels(one[2] / "masks" / f"{stem}.png").any()
        page = (one[2] / "report.html").read_text(encoding="utf-8")
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
        assert "cannot be shown" not in page


def write_bomb(path: Path, *, side: int) -> None:
    """Write a small and valid PNG of ``side`` by ``side`` black pixels."""
    block, num_bytes = 2**20, side * (side + 1)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    tail = rest.compress(bytes(num_bytes % block)) + rest.flush()
    checksum = struct.pack(">I", (num_bytes % 65521) << 16 | 1)  # Adler-32 of zeros
    content = b"\x78\xda" + piece * (num_bytes // block) + tail + checksum
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    assert path.stat().st_size < 2_000_000


def memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own; the test is skipped where mounting is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


class TestDisk:
    def test_full(self, phantoms: Path, tmp_path: Path, refine: Command) -> None:
        """A real full disk, reached at the third image."""
        images, coarse = phantoms / "images", phantoms / "coarse"
        with mounted(tmp_path / "disk", "size=220k") as disk:
            out = disk / "out"
            outcome = refine(images, coarse, out, "--options.save_probabilities", "true")
            assert outcome.code == 2
            assert "error: cannot write " in outcome.err
            assert "Check the disk" in outcome.err or "Free some space" in outcome.err
            assert "what was written before is kept" in outcome.err
            assert leftovers(out) == []
            assert list(read_rows(out)) == STEMS[:2]
            for stem in STEMS[:2]:
                assert_whole(out, phantoms, stem, stem)
                probs = np.load(out / "probabilities" / f"{stem}.npy")
                np.testing.assert_array_equal(
                    probs > 0.5, pixels(out / "masks" / f"{stem}.png") > 0
                )
            assert not (out / "probabilities" / f"{STEMS[2]}.npy").exists()

    def test_limit_on_file_size(self, one, phantoms: Path, refine: Command) -> None:
        """The second image's probability passes a limit that the first one's keeps."""
        image, coarse = add_pair(one, "larger")
        for path in (image, coarse):
            with Image.open(path) as small:
                small.resize((600, 500), Image.Resampling.NEAREST).save(path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            outcome = refine(*one, "--options.save_probabilities", "true")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert outcome.code == 2
        assert f"cannot write {one[2] / 'probabilities' / 'larger.npy'}" in outcome.err
        assert "run it again" in outcome.err
        assert leftovers(one[2]) == []
        assert list(read_rows(one[2])) == ["good"]
        assert_whole(one[2], phantoms, "good", STEMS[0])

    def test_read_only(self, one, refine: Command, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "size=100k,ro") as disk:
            outcome = refine(one[0], one[1], disk / "out")
            assert outcome.code == 2
            assert f"cannot write {disk / 'out'}" in outcome.err
            assert "writable disk" in outcome.err


def heed_interrupts() -> None:
    """Undo what a shell does to a job in the background, which hands it on to all below."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(phantoms: Path, out: Path, num_done: int) -> Iterator[subprocess.Popen[str]]:
    """A ``refine`` of its own process that has finished so many images."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ultrarefiner",
            *refine_args(phantoms / "images", phantoms / "coarse", out),
            *("--refiner.prompts.jitter", "0.1"),  # all boxes: time enough for the signal
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    try:
        while not (out / "results.csv").exists() or len(read_rows(out)) < num_done:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


class TestSignals:
    def test_killed(self, phantoms: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with running(phantoms, out, num_done=1) as process:
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=30) == -signal.SIGKILL
        rows = read_rows(out)
        assert 1 <= len(rows) < 3, "killed in the middle"
        for stem in rows:
            assert_whole(out, phantoms, stem, stem)
        for path in (out / "masks").glob("*.png"):
            if not path.name.startswith("."):
                pixels(path)

    def test_interrupted(self, phantoms: Path, tmp_path: Path, command: Command) -> None:
        out = tmp_path / "out"
        with running(phantoms, out, num_done=1) as process:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 130
        assert err == "interrupted; what was done so far is kept\n"
        rows = read_rows(out)
        assert 1 <= len(rows) < 3, "interrupted in the middle"
        assert leftovers(out) == []
        for stem in rows:
            assert_whole(out, phantoms, stem, stem)
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        assert [case["stem"] for case in run["cases"]] == list(rows)
        reported = command("report", out, "--out", out / "report.html")
        assert reported.code == 0
        page = (out / "report.html").read_text(encoding="utf-8")
        assert f"interrupted: {len(rows)} of 3 images were refined" in page

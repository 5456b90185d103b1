"""`ultrarefiner refine` on good input: what it reads, what it writes, what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import FAST, Command, Run, call, read_rows, refine_args
from PIL import Image

from ultrarefiner.metrics import evaluate_mask

COLUMNS = [
    "image",
    "accepted",
    "reason",
    "iou_with_coarse",
    "area_coarse_px",
    "area_refined_px",
    "predicted_iou",
    "seconds",
    "error",
    "score",
]
FIRST = "phantom-7-0000"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def folders(root: Path) -> tuple[Path, Path, Path]:
    for name in ("images", "coarse"):
        (root / name).mkdir()
    return root / "images", root / "coarse", root / "out"


def copy_pair(phantoms: Path, root: Path, stem: str = FIRST) -> tuple[Path, Path, Path]:
    images, coarse, out = folders(root)
    shutil.copy(phantoms / "images" / f"{FIRST}.png", images / f"{stem}.png")
    shutil.copy(phantoms / "coarse" / f"{FIRST}.png", coarse / f"{stem}.png")
    return images, coarse, out


def record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


class TestWhatIsWritten:
    def test_exit_code_and_words(self, finished: Run) -> None:
        assert finished.outcome.code == 0
        report = finished.folder / "report.html"
        assert finished.outcome.out == f"3 masks refined, 0 kept as given; see {report}\n"
        assert finished.outcome.err == ""

    def test_files(self, finished: Run, phantoms: Path) -> None:
        names = sorted(path.name for path in (phantoms / "images").iterdir())
        for folder in ("masks", "gates"):
            assert sorted(path.name for path in (finished.folder / folder).iterdir()) == names
        assert sorted(path.name for path in finished.folder.iterdir()) == [
            "gates",
            "masks",
            "report.html",
            "results.csv",
            "run.json",
        ]

    def test_masks_are_0_and_255_at_native_size(self, finished: Run, phantoms: Path) -> None:
        for path in (finished.folder / "masks").iterdir():
            mask = pixels(path)
            assert mask.dtype == np.uint8
            assert mask.shape == pixels(phantoms / "images" / path.name).shape
            assert set(np.unique(mask)) == {0, 255}

    def test_masks_are_nearer_to_the_truth(self, finished: Run, phantoms: Path) -> None:
        gains = []
        for path in (finished.folder / "masks").iterdir():
            truth = pixels(phantoms / "masks" / path.name) > 0
            coarse = pixels(phantoms / "coarse" / path.name) > 0
            before, after = (evaluate_mask(mask, truth).dsc for mask in (coarse, pixels(path) > 0))
            gains.append(after - before)
        assert np.mean(gains) > 0.01, gains

    def test_table(self, finished: Run, phantoms: Path) -> None:
        lines = (finished.folder / "results.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0].split(",") == COLUMNS
        assert list(finished.rows) == [f"phantom-7-000{i}" for i in range(3)]
        for stem, row in finished.rows.items():
            refined = pixels(finished.folder / "masks" / f"{stem}.png") > 0
            coarse = pixels(phantoms / "coarse" / f"{stem}.png") > 0
            iou = np.count_nonzero(refined & coarse) / np.count_nonzero(refined | coarse)
            assert (row["accepted"], row["reason"], row["error"]) == ("yes", "accepted", "")
            assert row["score"] == ""  # no checkpoint, no calibrated rule
            assert int(row["area_refined_px"]) == refined.sum()
            assert int(row["area_coarse_px"]) == coarse.sum()
            assert float(row["iou_with_coarse"]) == pytest.approx(iou, abs=5e-5)
            assert 0 < float(row["predicted_iou"]) <= 1
            assert 0 < float(row["seconds"]) < 60

    def test_record_repeats_the_run(self, finished: Run, phantoms: Path) -> None:
        run = record(finished.folder)
        assert run["command"].startswith("ultrarefiner refine --images ")
        assert run["config"]["prompts"]["jitter"] == 0
        assert run["device"] == "cpu"
        assert run["notes"] == []
        assert len(run["data_sha256"]) == 64
        assert run["versions"].keys() == {"ultrarefiner", "torch", "numpy"}
        first = run["cases"][0]
        assert first["stem"] == FIRST
        assert first["image"] == str(phantoms / "images" / f"{FIRST}.png")
        height, width = pixels(phantoms / "images" / f"{FIRST}.png").shape
        for x0, y0, x1, y1 in first["boxes_xyxy"]:
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
        assert len(first["points_xy"]) == len(first["point_labels"]) == 0

    def test_gates_are_small_and_hold_the_gate_of_accepted_lesions(self, finished: Run) -> None:
        limits = record(finished.folder)["config"]["gate"]
        for path in (finished.folder / "gates").iterdir():
            gate = pixels(path) / 255
            assert max(gate.shape) == 256
            assert path.stat().st_size < 20_000
            assert limits["minimum"] - 1 / 255 <= gate.max() <= limits["maximum"] + 1 / 255

    def test_report_shows_every_image(self, finished: Run) -> None:
        page = (finished.folder / "report.html").read_text(encoding="utf-8")
        for stem in finished.rows:
            assert stem in page
        assert "cannot be shown" not in page


def test_as_a_process_from_another_folder(finished: Run, phantoms: Path, tmp_path: Path) -> None:
    """The installed command, with relative paths and a picture-free report afterwards."""
    images, coarse, _ = copy_pair(phantoms, tmp_path)
    arguments = refine_args(images.relative_to(tmp_path), coarse.relative_to(tmp_path), Path("o"))
    done = subprocess.run(
        [Path(sys.executable).with_name("ultrarefiner"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 mask refined, 0 kept as given; see o/report.html\n"
    mask = pixels(tmp_path / "o" / "masks" / f"{FIRST}.png")
    np.testing.assert_array_equal(mask, pixels(finished.folder / "masks" / f"{FIRST}.png"))
    case = record(tmp_path / "o")["cases"][0]
    assert Path(case["image"]) == images / f"{FIRST}.png"


def save_nifti(path: Path, rows: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(rows.T[..., None], np.eye(4)), path)


def save_palette(path: Path, indices: np.ndarray, palette: list[int]) -> None:
    image = Image.fromarray(indices)
    image.putpalette(palette)
    image.save(path)


def write_image(stem: Path, coding: str, grey: np.ndarray) -> None:
    """Write grey levels so that every coding holds the same picture."""
    match coding:
        case "16-bit":
            Image.fromarray(grey.astype(np.uint16) * 257).save(f"{stem}.png")
        case "rgba":
            opaque = np.full_like(grey, 255)
            Image.fromarray(np.stack([grey, grey, grey, opaque], axis=-1)).save(f"{stem}.png")
        case "palette":
            inverse = np.repeat(np.arange(255, -1, -1), 3).tolist()
            save_palette(Path(f"{stem}.png"), 255 - grey, inverse)
        case "nifti":
            save_nifti(Path(f"{stem}.nii.gz"), grey.astype(np.float32))
        case "npy":
            np.save(f"{stem}.npy", grey.astype(np.float32) / 255)
        case "tiff" | "bmp":
            Image.fromarray(grey).save(f"{stem}.{coding}")
        case "nnunet":
            Image.fromarray(grey).save(f"{stem}_0000.png")
        case _:
            Image.fromarray(grey).save(f"{stem}.png")


def write_coarse(stem: Path, coding: str, mask: np.ndarray) -> None:
    """Write a binary mask so that every coding means the same lesion."""
    levels = mask.astype(np.uint8)
    match coding:
        case "0-1":
            Image.fromarray(levels).save(f"{stem}.png")
        case "16-bit":
            Image.fromarray(levels.astype(np.uint16) * 65535).save(f"{stem}.png")
        case "palette":
            save_palette(Path(f"{stem}.png"), levels, [0, 0, 0, 200, 30, 30])
        case "rgb":
            Image.fromarray(np.stack([levels * 255] * 3, axis=-1)).save(f"{stem}.png")
        case "bmp" | "tiff":
            Image.fromarray(levels * 255).save(f"{stem}.{coding}")
        case "jpg":
            Image.fromarray(levels * 255).save(f"{stem}.jpg", quality=100)
        case "npy":
            np.save(f"{stem}.npy", levels.astype(np.float32))
        case "nifti":
            save_nifti(Path(f"{stem}.nii.gz"), levels)
        case _:
            Image.fromarray(levels * 255).save(f"{stem}.png")


# Image and coarse mask of each pair; every coding that is supported comes once.
CODINGS = [
    ("16-bit", "0-1"),
    ("rgba", "16-bit"),
    ("palette", "palette"),
    ("nifti", "nifti"),
    ("npy", "npy"),
    ("tiff", "tiff"),
    ("bmp", "bmp"),
    ("png", "rgb"),
    ("png", "jpg"),
    ("nnunet", "png"),
]


def test_every_coding_gives_the_result_of_the_plain_png(
    finished: Run, phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    images, coarse, out = folders(tmp_path)
    grey = pixels(phantoms / "images" / f"{FIRST}.png")
    mask = pixels(phantoms / "coarse" / f"{FIRST}.png") > 0
    for of_image, of_mask in CODINGS:
        write_image(images / f"{of_image}-{of_mask}", of_image, grey)
        write_coarse(coarse / f"{of_image}-{of_mask}", of_mask, mask)
    outcome = refine(images, coarse, out)
    assert outcome.code == 0, outcome.err
    expected = pixels(finished.folder / "masks" / f"{FIRST}.png")
    results = sorted((out / "masks").iterdir())
    differing = [path.name for path in results if not np.array_equal(pixels(path), expected)]
    assert differing == []
    assert len(results) == len(CODINGS)
    assert (out / "masks" / "nnunet-png_0000.png") in results
    noted = {line.split(": ")[1].rpartition("/")[2] for line in outcome.err.splitlines()}
    assert noted == {"png-jpg.jpg", "palette-palette.png"}


def test_probabilities_are_read_and_written(
    phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    path = coarse / f"{FIRST}.png"
    hard = pixels(path) / np.float32(255)
    path.unlink()
    np.save(path.with_suffix(".npy"), hard * np.float32(0.75) + np.float32(0.1))
    outcome = refine(images, coarse, out, "--options.save_probabilities", "true")
    assert (outcome.code, outcome.err) == (0, "")
    probs = np.load(out / "probabilities" / f"{FIRST}.npy")
    mask = pixels(out / "masks" / f"{FIRST}.png")
    assert probs.dtype == np.float32
    assert probs.min() >= 0
    assert probs.max() <= 1
    assert len(np.unique(probs)) > 100, "a mask, not a probability"
    np.testing.assert_array_equal(probs > 0.5, mask == 255)
    assert read_rows(out)[FIRST]["area_coarse_px"] == str(int(hard.sum()))


def test_no_probabilities_unless_asked_for(finished: Run) -> None:
    assert not (finished.folder / "probabilities").exists()


def test_a_mask_of_another_size_is_resampled_with_a_note(
    finished: Run, phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    native = pixels(coarse / f"{FIRST}.png")
    height, width = native.shape
    doubled = np.repeat(np.repeat(native, 2, axis=0), 2, axis=1)
    Image.fromarray(doubled).save(coarse / f"{FIRST}.png")
    outcome = refine(images, coarse, out)
    assert outcome.code == 0
    note = f"resampled from {2 * width}x{2 * height} px to the image's {width}x{height} px"
    assert outcome.err == f"note: {coarse / FIRST}.png: {note}\n"
    assert note in (out / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
    np.testing.assert_array_equal(
        pixels(out / "masks" / f"{FIRST}.png"),
        pixels(finished.folder / "masks" / f"{FIRST}.png"),
    )


def test_a_smaller_mask_fills_the_native_frame(
    phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    native = Image.fromarray(pixels(coarse / f"{FIRST}.png"))
    native.resize((64, 64), Image.Resampling.NEAREST).save(coarse / f"{FIRST}.png")
    assert refine(images, coarse, out).code == 0
    mask = pixels(out / "masks" / f"{FIRST}.png") > 0
    assert mask.shape == native.size[::-1]
    assert evaluate_mask(mask, np.asarray(native) > 0).dsc > 0.7


def test_label_chooses_the_lesion(
    finished: Run, phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    labels = (pixels(coarse / f"{FIRST}.png") > 0) * np.uint8(2)
    labels[:10] = 1
    Image.fromarray(labels).save(coarse / f"{FIRST}.png")

    refused = refine(images, coarse, out)
    assert refused.code == 1
    assert "map of several labels" in refused.err
    assert "labels 0, 1, 2" in refused.err
    assert read_rows(out)[FIRST]["error"]

    chosen = refine(images, coarse, out, "--label", "2")
    assert chosen.code == 0
    np.testing.assert_array_equal(
        pixels(out / "masks" / f"{FIRST}.png"),
        pixels(finished.folder / "masks" / f"{FIRST}.png"),
    )
    assert record(out)["label"] == 2
    assert "cannot be shown" not in (out / "report.html").read_text(encoding="utf-8")


def test_settings_reach_the_run(phantoms: Path, tmp_path: Path, refine: Command) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    settings = [
        *("--refiner.gate.kind", "constant"),
        *("--refiner.gate.maximum", "0.5"),
        *("--refiner.stabilizer.min_iou", "1.0"),
        *("--refiner.softening.max_lesions", "3"),
    ]
    outcome = refine(images, coarse, out, *settings)
    assert outcome.code == 0
    assert outcome.out.startswith("0 masks refined, 1 kept as given;")
    config = record(out)["config"]
    assert config["gate"]["kind"] == "constant"
    assert config["gate"]["maximum"] == 0.5
    assert config["stabilizer"]["min_iou"] == 1.0
    assert config["softening"]["max_lesions"] == 3
    assert settings[0] in record(out)["command"]
    row = read_rows(out)[FIRST]
    assert (row["accepted"], row["reason"]) == ("no", "low agreement with coarse mask")
    np.testing.assert_array_equal(
        pixels(out / "masks" / f"{FIRST}.png"), pixels(coarse / f"{FIRST}.png")
    )


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--refiner.prompts.jitter", "0.7", "jitter"),
        ("--refiner.prompts.jitter", "many", "jitter"),
        ("--refiner.gate.minimum", "0.9", "gate range"),
        ("--refiner.gate.kind", "evidense", "evidence"),
        ("--refiner.stabilizer.min_iou", "-1", "min_iou"),
        ("--refiner.softening.width", "0", "softening width"),
        ("--refiner.selection.temperature", "0", "temperature"),
        ("--refiner.second_opinion", "0.5", "ultrarefiner predict"),
        ("--label", "0", "label"),
        ("--options.batch_size", "0", "batch_size"),
        ("--foundation", "lite-medsum", "lite-medsam"),
        ("--colour", "red", "--colour"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    phantoms: Path, tmp_path: Path, refine: Command, flag: str, value: str, words: str
) -> None:
    out = tmp_path / "out"
    outcome = refine(phantoms / "images", phantoms / "coarse", out, flag, value)
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()


def test_a_settings_file(phantoms: Path, tmp_path: Path, refine: Command) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    (tmp_path / "gate.yaml").write_text("kind: none\n", encoding="utf-8")
    outcome = refine(images, coarse, out, "--refiner.gate", str(tmp_path / "gate.yaml"))
    assert outcome.code == 0, outcome.err
    assert record(out)["config"]["gate"]["kind"] == "none"
    assert record(out)["config"]["prompts"]["jitter"] == float(FAST[1])


def test_a_preset(phantoms: Path, tmp_path: Path, refine: Command, capsys) -> None:
    images, coarse, out = copy_pair(phantoms, tmp_path)
    folders = ["--images", images, "--coarse", coarse, "--out", out, "--device", "cpu"]
    assert call(["refine", *folders, "--preset", "literal"]) == 0
    config = record(out)["config"]
    assert config["localizer"]["num_stds"] == 2.5
    assert config["selection"]["kind"] == "soft"
    assert config["gate"]["kind"] == "uncertainty"
    # FAST sets single settings.
    outcome = refine(images, coarse, tmp_path / "both", "--preset", "literal")
    assert outcome.code == 2
    assert "--preset or --refiner" in outcome.err
    assert not (tmp_path / "both").exists()
    capsys.readouterr()


def test_batches_give_the_same_masks(
    finished: Run, phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    out = tmp_path / "out"
    outcome = refine(phantoms / "images", phantoms / "coarse", out, "--options.batch_size", "2")
    assert outcome.code == 0
    for path in (finished.folder / "masks").iterdir():
        assert evaluate_mask(pixels(out / "masks" / path.name) > 0, pixels(path) > 0).dsc > 0.99


def test_a_second_run_of_one_folder_forgets_the_first(
    finished: Run, phantoms: Path, tmp_path: Path, refine: Command
) -> None:
    """No mask and no score of an earlier run may pass for one of this."""
    images, coarse, _ = copy_pair(phantoms, tmp_path)
    out = shutil.copytree(finished.folder, tmp_path / "out")
    (out / "eval.json").write_text("{}", encoding="utf-8")
    (images / f"{FIRST}.png").write_bytes(b"")
    outcome = refine(images, coarse, out)
    assert outcome.code == 1
    assert list(read_rows(out)) == [FIRST]
    assert record(out)["cases"] == []
    assert not (out / "eval.json").exists()
    for folder in ("masks", "gates"):
        assert not (out / folder / f"{FIRST}.png").exists()

"""A report of 400 images: small enough to mail, quick to make, every case can be opened."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cache, partial

import cv2
import numpy as np
import pytest
from browsing import NEEDS_CHROMIUM, launched, watched

from ultrarefiner.metrics import Case, MaskMetrics, evaluate_cases, evaluate_mask
from ultrarefiner.report import CaseImages, ReportCase, render_report

pytestmark = NEEDS_CHROMIUM

NUM, NUM_SCORED, SIDE_PX = 400, 20, 512
MAX_BYTES, MAX_SECONDS = 15_000_000, 60


@cache
def speckle() -> np.ndarray:
    """Return speckle of the grain of a real image, larger than any image."""
    rng = np.random.default_rng(0)
    grain = rng.rayleigh(0.25, size=(2 * SIDE_PX, 2 * SIDE_PX)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(grain, (0, 0), 1.5), 0, 1)


def blob(seed: int, radius_px: float) -> np.ndarray:
    """Return a lesion with a wavy outline, the same shape at any radius."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.35, 0.65, size=2) * SIDE_PX
    angle, order = np.linspace(0, 2 * np.pi, 200), np.arange(2, 7)[:, None]
    waves = 0.05 * rng.normal(size=(2, 5))
    edge = 1 + waves[0] @ np.cos(order * angle) + waves[1] @ np.sin(order * angle)
    outline = centre + radius_px * (edge * [np.cos(angle), np.sin(angle)]).T
    filled = np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)
    return cv2.fillPoly(filled, [np.rint(outline).astype(np.int32)], 1).astype(bool)


def load(index: int) -> CaseImages:
    """Draw a dark lesion in speckle, and masks of it."""
    rng = np.random.default_rng(index)
    radius_px = rng.uniform(30, 90)
    truth, coarse, refined = (
        blob(index, radius_px * factor) for factor in (1.0, *rng.uniform(0.8, 1.15, size=2))
    )
    top, left = rng.integers(SIDE_PX, size=2)
    image = speckle()[top : top + SIDE_PX, left : left + SIDE_PX] * np.where(truth, 0.4, 1)
    gate = cv2.GaussianBlur(coarse[::2, ::2].astype(np.float32), (0, 0), 6)
    height, width = np.nonzero(coarse)
    box = (width.min(), height.min(), width.max() + 1, height.max() + 1)
    return CaseImages(
        image=image.astype(np.float32),
        coarse=coarse,
        refined=refined,
        truth=truth,
        boxes_xyxy=(tuple(map(float, box)),) * 9,
        gate=4 * gate * (1 - gate),
    )


@cache
def scores(index: int) -> dict[str, MaskMetrics]:
    """Score the refined and the coarse mask of an image."""
    images = load(index)
    return {
        name: evaluate_mask(getattr(images, name), images.truth, (0.1, 0.1))
        for name in ("refined", "coarse")
    }


def make_run() -> tuple[list[ReportCase], dict]:
    """Return 400 cases and their evaluation; the scores of some stand for those of all."""
    cases, scored = [], {"refined": [], "coarse": []}
    for index in range(NUM):
        stem, metrics = f"image-{index:03d}", scores(index % NUM_SCORED)
        for name, cases_of_method in scored.items():
            case = Case(image=stem, metrics=metrics[name], patient=f"p{index // 2}")
            cases_of_method.append(case)
        row = {"image": stem, "accepted": "yes", "reason": "accepted", "seconds": "0.5"}
        made = [asdict(metrics[name]) for name in ("refined", "coarse")]
        cases.append(
            ReportCase(
                stem=stem, row=row, metrics=made[0], baseline=made[1], load=partial(load, index)
            )
        )
    return cases, evaluate_cases(scored["refined"], scored["coarse"]).to_json()


@pytest.mark.timeout(240)
def test_four_hundred_cases_fit_open_and_are_quick(tmp_path, capsys):
    cases, evaluation = make_run()
    start = time.process_time()
    html = render_report(cases, title="Many", evaluation=evaluation, provenance={})
    seconds = time.process_time() - start
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    num_bytes = path.stat().st_size
    assert seconds < MAX_SECONDS
    assert num_bytes < MAX_BYTES
    with launched() as browser, watched(browser, path) as page:
        opened = page.evaluate(
            """async (num) => {
              const names = [], sides = [], start = performance.now();
              for (let index = 0; index < num; index++) {
                document.dispatchEvent(new CustomEvent("show-case", { detail: index }));
                const photo = document.querySelector(".canvas image.photo");
                const image = new Image();
                image.src = photo.getAttribute("href");
                await image.decode();
                names.push(document.getElementById("viewer-name").textContent);
                sides.push(image.naturalWidth);
              }
              return { names, sides, milliseconds: performance.now() - start };
            }""",
            NUM,
        )
        num_elements = page.evaluate("document.querySelectorAll('.overlay').length")
    assert opened["names"] == [case.stem for case in cases]
    assert min(opened["sides"]) >= 256
    assert num_elements < 25, "only tiles and the viewer hold drawings"
    with capsys.disabled():
        print(
            f"\n{NUM} cases of {SIDE_PX} px: {num_bytes / 1e6:.1f} MB in {seconds:.0f} s of one "
            f"core, smallest picture {min(opened['sides'])} px, "
            f"{opened['milliseconds'] / NUM:.0f} ms to open one"
        )

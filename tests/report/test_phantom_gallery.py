"""The gallery of phantoms: complete, self-contained, quiet, and the same every time."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsing import launched, needs_chromium, watched

from ultrarefiner.data.phantom import COPY_KINDS, PRESETS
from ultrarefiner.errors import ConfigError, OutputError
from ultrarefiner.report.phantom_gallery import (
    render_phantom_gallery,
    write_phantom_gallery,
    write_phantom_picture,
)

_NUM = 2


@cache
def _page() -> str:
    return render_phantom_gallery(seed=2, num_per_preset=_NUM)


def test_the_same_arguments_give_the_same_page(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "gallery.html"
    write_phantom_gallery(path, seed=2, num_per_preset=_NUM)
    assert path.read_text(encoding="utf-8") == _page()


def test_every_preset_class_and_kind_of_copy_is_on_it() -> None:
    for name in PRESETS:
        assert f'<section id="{name}"' in _page()
        for class_name in PRESETS[name].class_names[1:]:
            assert len(re.findall(rf"{class_name} \d+&nbsp;mm²", _page())) >= _NUM
    for kind in COPY_KINDS:
        assert f"<b>{kind}</b>" in _page()
    assert _page().count('<figure class="pair">') == _NUM * len(PRESETS)


def test_it_loads_nothing_and_runs_nothing() -> None:
    assert "<script" not in _page()
    assert "default-src 'none'" in _page()
    assert re.findall(r'(?:src|href)="(?!data:|#)', _page()) == []


def test_every_picture_is_described() -> None:
    pictures = re.findall(r'<svg class="picture"[^>]*>', _page())
    assert len(pictures) == 2 * _NUM * len(PRESETS) + len(COPY_KINDS) + 1
    assert all(re.search(r'role="img" aria-label="[^"]{10,}"', each) for each in pictures)


def test_twelve_of_each_stay_below_five_megabytes() -> None:
    per_phantom = len(_page()) / (_NUM * len(PRESETS) + len(COPY_KINDS) + 1)
    assert per_phantom * 12 * len(PRESETS) < 5e6


@pytest.mark.parametrize("num", [0, 25])
def test_a_number_out_of_range_is_named(num: int, tmp_path: Path) -> None:
    for write, name in ((write_phantom_gallery, "a.html"), (write_phantom_picture, "a.jpg")):
        with pytest.raises(ConfigError, match="num_per_preset"):
            write(tmp_path / name, seed=0, num_per_preset=num)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="gallery"):
        write_phantom_gallery(tmp_path / "file" / "gallery.html", seed=0, num_per_preset=1)


def test_the_picture_for_the_docs_is_small_and_in_colour(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write_phantom_picture(tmp_path / name, seed=0, num_per_preset=2)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    assert (tmp_path / "a.jpg").stat().st_size < 300_000
    picture = cv2.imread(str(tmp_path / "a.jpg"))
    assert picture is not None
    third_px = picture.shape[1] // 3
    assert _colourfulness(picture[:, :third_px]) < 40 < _colourfulness(picture[:, -third_px:])


def _colourfulness(picture: np.ndarray) -> int:
    return int((picture.max(axis=-1).astype(int) - picture.min(axis=-1)).max())


def test_the_picture_is_a_jpeg(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.jpg"):
        write_phantom_picture(tmp_path / "a.png", seed=0, num_per_preset=1)


@needs_chromium
@pytest.mark.parametrize(("width_px", "media"), [(400, "screen"), (1400, "screen"), (800, "print")])
def test_in_a_browser_it_is_quiet_and_fits(width_px: int, media: str, tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    path.write_text(_page(), encoding="utf-8")
    viewport = {"width": width_px, "height": 900}
    with launched() as browser, watched(browser, path, viewport=viewport) as page:
        page.emulate_media(media=media)
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        outline = page.locator("#msk .pair path.line.target").first
        assert outline.is_visible()
        assert outline.evaluate("path => getComputedStyle(path).stroke") == "rgb(86, 180, 233)"
        repeated = page.locator("#msk use").first.bounding_box()
        assert repeated["width"] > 60
        assert page.locator("nav").is_visible() is (media == "screen")

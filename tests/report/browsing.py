"""A browser that tells on a page: every message it logs, every file it asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("/usr/bin/chromium", "chromium", "chromium-browser"))), None
)
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt install chromium)"),
]


def needs_chromium(test):
    """Mark one test, where the others of its file need no browser."""
    for mark in NEEDS_CHROMIUM:
        test = mark(test)
    return test


_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def launched() -> Iterator:
    """Run the browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS)
        yield chromium
        chromium.close()


@contextmanager
def watched(browser, path: Path, **settings) -> Iterator:
    """Open a page; in the end it has logged nothing and asked for no other file."""
    page = browser.new_page(**{"viewport": {"width": 1400, "height": 900}} | settings)
    troubles, requests = [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert troubles == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    page.close()

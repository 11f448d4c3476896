"""Headless Chromium from Debian's package, driven by playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@contextlib.contextmanager
def chromium(width: int = 1500, height: int = 950) -> Iterator[Page]:
    """A page in a fresh browser. Skips the test, in words, where Chromium is not installed."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("Chromium is not installed (Debian: `apt-get install chromium`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=QUIET)
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()

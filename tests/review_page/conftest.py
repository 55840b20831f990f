"""One headless Chromium for all tests of the page; without it they are skipped, with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL2 without a graphics card


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser that is started once."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"there is no browser here (looked for {', '.join(NAMES)})")
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=[*SWITCHES, *(["--no-sandbox"] if is_root else [])]
        )
        yield browser
        browser.close()

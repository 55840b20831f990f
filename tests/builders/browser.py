"""A headless Chromium for tests of the page, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL2 without a graphics card


class NoBrowser(Exception):
    """There is none; the message says what is missing."""


_running: list[Any] = []  # what drives a browser can be started once a process


@contextmanager
def started_chromium() -> Iterator[Any]:
    """A browser, the one that runs already if there is one; NoBrowser if it, or its driver, is not installed."""
    if _running:
        yield _running[0]
        return
    try:
        from playwright import sync_api
    except ImportError:
        raise NoBrowser("playwright is not installed: pip install playwright") from None
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        raise NoBrowser(f"there is no browser here (looked for {', '.join(NAMES)})")
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=[*SWITCHES, *(["--no-sandbox"] if is_root else [])]
        )
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()
            browser.close()

"""What the page computes without being seen: brushes, undo, interpolation, keys, clock. The cases run in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from segfw.review_page.page_files import PAGE_FOLDER

CASES = Path(__file__).with_name("js")


class _Files(SimpleHTTPRequestHandler):
    """The page's files at /, the cases at /cases/."""

    def translate_path(self, path: str) -> str:
        name = path.split("?")[0].lstrip("/")
        if name.startswith("cases/"):
            return str(CASES / name.removeprefix("cases/"))
        return str(PAGE_FOLDER / name)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(chromium) -> Iterator[Any]:
    page = chromium.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("file", sorted(path.name for path in CASES.glob("*_cases.js")))
def test_cases_of(file, page, address):
    page.goto(f"{address}/cases/unit.html?file={file}")
    page.wait_for_selector("body[data-ready]")
    told = json.loads(page.inner_text("body"))
    assert told["failures"] == []
    assert told["count"] >= 3  # else this proves nothing

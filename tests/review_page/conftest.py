"""One headless Chromium for all tests of the page; without it they are skipped, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from builders.browser import NoBrowser, started_chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser that is started once."""
    try:
        with started_chromium() as browser:
            yield browser
    except NoBrowser as error:
        pytest.skip(str(error))

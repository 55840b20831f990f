"""A reader at the page of ``segfw review``: a browser's page, and what is done with keys and mouse."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from builders.review_server import Reviewer

WAITS_S = 90
SCREEN = "segfwReview.screen"


@dataclass
class Hand:
    """One tab of the browser."""

    page: Any
    server: Reviewer
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def enter(self) -> None:
        """Opens the address that ``segfw review`` has printed; it serves once, so ``server`` takes this cookie."""
        self.page.goto(f"{self.server.origin}/?t={self.server.token}")
        [cookie] = self.page.context.cookies()
        self.server.cookie = f"{cookie['name']}={cookie['value']}"
        self.ready("queue")

    def ready(self, what: str) -> None:
        """Waits until a screen is drawn: 'queue', 'case NAME', 'sign NAME'."""
        wanted = f'body[data-ready="{what}"], body[data-ready="error"]'
        self.page.wait_for_selector(wanted, state="attached", timeout=1000 * WAITS_S)
        assert self.page.get_attribute("body", "data-ready") == what, self.page.inner_text("main")

    def open(self, case: str) -> None:
        """Shows a case."""
        self.page.evaluate(f"segfwReview.go('case', {json.dumps(case)})")
        self.ready(f"case {case}")

    def value(self, expression: str) -> Any:
        """What an expression of the page is worth."""
        return self.page.evaluate(expression)

    def until(self, expression: str) -> None:
        """Waits until an expression holds, and not for a time."""
        ends_s = time.monotonic() + WAITS_S
        while not self.page.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < ends_s, f"{expression} never came true"
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def bitmap(self) -> np.ndarray:
        """The mask that is drawn (z, y, x), as the page holds it for NiiVue."""
        values, dims = self.value(f"[Array.from({SCREEN}.viewer.nv.drawBitmap), {SCREEN}.open.image.dims]")
        return np.array(values, np.uint8).reshape(dims[::-1])

    def go_to(self, voxel_xyz: Sequence[int]) -> None:
        """Shows the planes that cross at a voxel."""
        self.value(f"{SCREEN}.viewer.setVoxel({json.dumps([int(index) for index in voxel_xyz])})")
        self.drawn()

    def drawn(self) -> None:
        """Waits until the next picture was drawn."""
        before = self.value(f"{SCREEN}.viewer.framesDrawn")
        self.value(f"{SCREEN}.viewer.invalidate()")
        self.until(f"{SCREEN}.viewer.framesDrawn > {before}")

    def place(self, plane: str, voxel_xyz: Sequence[int]) -> tuple[float, float]:
        """Where the middle of a voxel lies on the page."""
        at = self.value(f"{SCREEN}.viewer.pageplaceOf('{plane}', {json.dumps([int(index) for index in voxel_xyz])})")
        return at["x"], at["y"]

    def stroke(self, plane: str, *voxels_xyz: Sequence[int]) -> None:
        """Draws with the mouse through some voxels of the slice that is shown."""
        places = [self.place(plane, voxel) for voxel in voxels_xyz]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()
        self.drawn()

    @property
    def pixels(self) -> np.ndarray:
        """The picture as it is on the screen (row, column, colour)."""
        shot = Image.open(BytesIO(self.page.locator(".viewer").screenshot()))
        return np.asarray(shot.convert("RGB")).astype(int)

    def brightness(self, plane: str, voxel_xyz: Sequence[int]) -> float:
        """Mean of the few pixels around the middle of a voxel."""
        frame = self.page.locator(".viewer").bounding_box()
        x, y = self.place(plane, voxel_xyz)
        column = round(x - frame["x"])
        row = round(y - frame["y"])
        return float(self.pixels[row - 1 : row + 2, column - 1 : column + 2].mean())

    def save(self) -> int:
        """Presses S and waits for the new version; returns its number."""
        before = self.value(f"{SCREEN}.open.base")
        self.press("s")
        self.until(f"{SCREEN}.open.base > {before} && !{SCREEN}.open.isSaving && !{SCREEN}.open.isDirty")
        return self.value(f"{SCREEN}.open.base")


@contextmanager
def hand_at(chromium: Any, server: Reviewer, *, width: int = 1100, height: int = 700) -> Iterator[Hand]:
    """A tab in a context of its own; errors of the page fail the test, and where it asks is noted."""
    context = chromium.new_context(viewport={"width": width, "height": height})
    hand = Hand(context.new_page(), server)
    hand.page.on("request", lambda request: hand.requests.append(request.url))
    hand.page.on("pageerror", lambda error: hand.errors.append(f"{error} {error.stack}"))
    hand.page.on("console", lambda said: hand.errors.append(said.text) if "Content Security" in said.text else None)
    try:
        yield hand
        assert hand.errors == [], "\n".join(hand.errors)
    finally:
        context.close()

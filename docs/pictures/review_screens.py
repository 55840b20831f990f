"""Photographs the page of ``segfw review`` with made-up patients, by the browser Chromium, into docs/pictures/.

    PYTHONPATH=.:tests python docs/pictures/review_screens.py

Masks are those of the toy data set, spoilt in places; predicted quality is their Dice, doubt is where they are spoilt.
"""

from __future__ import annotations

import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from builders.review_folder import make_toy_review
from builders.review_hand import SCREEN, Hand, hand_at
from builders.review_server import review_server

FOLDER = Path(__file__).parent
MARGIN = 1  # a grey line around, so that the page has an edge on white and on black
SWITCHES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
CASE = "patient_03"


def main() -> None:
    with tempfile.TemporaryDirectory() as root, sync_playwright() as driver:
        folder = make_toy_review(Path(root) / "chest")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=SWITCHES)
        with review_server(folder) as server, hand_at(browser, server, width=1280, height=800) as hand:
            hand.page.emulate_media(color_scheme="light")
            hand.enter()
            photograph(hand.page, "review_queue", height=470)
            hand.page.emulate_media(color_scheme="dark")
            draw(hand)
            photograph(hand.page, "review_case")
            hand.page.emulate_media(color_scheme="light")
            sign(hand)
            photograph(hand.page, "review_sign", height=640)
        browser.close()


def draw(hand: Hand) -> None:
    """The suspected place of the aorta, a candidate and a stroke."""
    hand.open(CASE)
    hand.press("n", "n", "1")
    hand.until(f"{SCREEN}.open.isDirty")
    hand.press("c", "c", "b")
    x, y, z = hand.value(f"{SCREEN}.viewer.voxel")
    hand.stroke("axial", (x - 2, y, z), (x + 1, y + 1, z))
    hand.until("document.querySelectorAll('.toast').length === 0")


def sign(hand: Hand) -> None:
    """Saves, decides on every structure, and writes a name."""
    hand.save()
    for structure in hand.value(f"{SCREEN}.open.about.structures.map(({{label}}) => label)"):
        decision = "edit" if structure == "aorta" else "accept"
        hand.value(f"{SCREEN}.open.decide('{structure}', '{decision}', true)")
    hand.value(f"{SCREEN}.open.refresh()")
    hand.press("g")
    hand.ready(f"sign {CASE}")
    hand.page.fill("#sign-name", "Dr. Anna Weiss")
    hand.page.evaluate("document.activeElement.blur()")
    hand.until("document.querySelectorAll('.toast').length === 0")


def photograph(page: Any, name: str, *, height: int | None = None) -> None:
    """The upper part of the window."""
    inside = Image.open(BytesIO(page.screenshot())).convert("RGB")
    inside = inside.crop((0, 0, inside.width, height or inside.height))
    framed = Image.new("RGB", (inside.width + 2 * MARGIN, inside.height + 2 * MARGIN), (128, 128, 128))
    framed.paste(inside, (MARGIN, MARGIN))
    picture = FOLDER / f"{name}.png"
    if height is not None:  # light and without a scan: few colours are enough, and a third of the bytes
        framed = framed.quantize(256, Image.Quantize.MAXCOVERAGE)
    framed.save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

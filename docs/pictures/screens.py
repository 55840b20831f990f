"""Photographs the pages that the tutorial shows, with the browser Chromium, into docs/pictures/.

    python docs/pictures/screens.py CHECK.html PROGRESS.html REPORT.html

The pages are those of ``segfw check``, ``segfw train`` and ``segfw evaluate`` on the toy data set, never of patients.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent
WIDTH = 1000  # pixels
HEIGHTS = {"check": 1000, "progress": 880, "report": 1990}  # of what is shown
COLOURS = 256
MARGIN = 1  # a grey line around, so that the page has an edge on white and on black
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main() -> None:
    for (name, height), page in zip(HEIGHTS.items(), sys.argv[1:], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            shot = Path(folder) / "shot.png"
            options = (f"--screenshot={shot}", f"--window-size={WIDTH},{height}")
            subprocess.run([*BROWSER, *options, Path(page).resolve().as_uri()], check=True, capture_output=True)
            inside = Image.open(shot).convert("RGB")
        framed = Image.new("RGB", (inside.width + 2 * MARGIN, inside.height + 2 * MARGIN), (128, 128, 128))
        framed.paste(inside, (MARGIN, MARGIN))
        picture = FOLDER / f"page_{name}.png"
        # A palette takes a third of the space; by coverage, else the few pixels of a contour lose their colour.
        framed.quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

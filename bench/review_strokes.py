"""Milliseconds of drawing on a large volume in the page of ``segfw review``, in headless Chromium.

    python -m bench review-strokes [--size 300 512 512] [--strokes 9] [--whole] [--work review_strokes_check]

A stroke is twenty moves of the pointer. Its script time is what all scripts of the page kept a core busy for until the
button was let go: voxels of the brush, what is noted for undo, the hand-over of the changed box, outlines, calls of the
renderer. A frame is what passes until the software renderer has finished a picture; a graphics card takes a small part
of that. Least and median of all strokes, because other work on the machine only ever adds. The case is shown as the
server sends it, which is a box around the structures; ``--whole`` shows all of it as well.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.measuring import require_new
from bench.review_page import ADDRESS, LARGE, write_folder
from bench.runs import SEGFW

MOVES = 20
STEP_PIXELS = 6
RADIUS_MM = 6.0
WAITS_MS = 600_000
SCREEN = "segfwReview.screen"
# A pixel is read, because only that waits until all is drawn.
FRAME = """(({ viewer }) => {
  const before = performance.now();
  viewer.drawScene();
  const { gl } = viewer.nv;
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  return performance.now() - before;
})(segfwReview.screen)"""
BROWSER = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench review-strokes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=3, default=(300, 512, 512), help="voxels along z, y, x")
    parser.add_argument("--strokes", type=int, default=9)
    parser.add_argument("--whole", action="store_true", help="show all of the volume as well")
    parser.add_argument("--work", type=Path, default=Path("review_strokes_check"), help="is made and removed")
    args = parser.parse_args(arguments)
    require_new(args.work)
    size_z, size_y, size_x = args.size
    folder = write_folder(args.work, 2, 20, (size_z, size_y, size_x))
    try:
        with _server(folder) as address, _page(address) as page:
            for is_whole in (False, True) if args.whole else (False,):
                measure(page, args.strokes, is_whole=is_whole)
    finally:
        shutil.rmtree(args.work)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    command = [str(SEGFW), "review", str(folder), "--user", "bench", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found: re.Match[str] | None = None
        for line in process.stdout:
            found = ADDRESS.search(line)
            if found:
                break
        if found is None:
            raise RuntimeError("segfw review did not start")
        yield found[0]
    finally:
        process.kill()
        process.wait()


@contextmanager
def _page(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(BROWSER))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_selector('body[data-ready="queue"]', state="attached", timeout=WAITS_MS)
        yield page
        browser.close()


def measure(page: Any, strokes: int, *, is_whole: bool) -> None:
    """Opens the case and prints what drawing on it takes."""
    start_s = time.perf_counter()
    page.evaluate(f"segfwReview.go('case', '{LARGE}', {{ isWhole: {str(is_whole).lower()} }})")
    page.wait_for_selector(f'body[data-ready="case {LARGE}"]', state="attached", timeout=WAITS_MS)
    opened_s = time.perf_counter() - start_s
    dims = page.evaluate(f"{SCREEN}.open.image.dims")
    print(f"{' x '.join(map(str, dims))} voxels: shown after {opened_s:.1f} s")
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})
    for called, is_ball in (("disc", False), ("ball", True)):
        scripts = [_stroke(page, clock, is_ball) for _ in range(strokes)]
        print(f"  stroke of a {called} of {2 * RADIUS_MM:g} mm: script {_least_and_median(scripts)}")
    for called, plane, is_old in (
        ("the picture that is drawn on", "'axial'", "false"),
        ("three planes, as while slices are gone through", "null", "false"),
        ("three planes and 3-D, as after a stroke", "null", "true"),
    ):
        page.evaluate(f"{SCREEN}.viewer.view.strokePlane = {plane}")
        frames = []
        for _ in range(strokes):
            page.evaluate(f"{SCREEN}.viewer.isRenderOld = {is_old}")
            frames.append(page.evaluate(FRAME))
        print(f"  frame of {called}: {_least_and_median(frames)}")


def _least_and_median(values: Sequence[float]) -> str:
    return f"{min(values):.0f} ms (median {median(values):.0f})"


def _script_ms(clock: Any) -> float:
    """What scripts have kept a core busy for so far."""
    metrics = {each["name"]: each["value"] for each in clock.send("Performance.getMetrics")["metrics"]}
    return 1000 * metrics["ScriptDuration"]


def _stroke(page: Any, clock: Any, is_ball: bool) -> float:
    if page.evaluate(f"{SCREEN}.tool") != "brush":
        page.evaluate(f"{SCREEN}.setTool('brush')")
    page.evaluate(f"{SCREEN}.isBall = {str(is_ball).lower()}, {SCREEN}.radius_mm = {RADIUS_MM}")
    frame = page.locator(".viewer").bounding_box()
    x = frame["x"] + frame["width"] / 4
    y = frame["y"] + frame["height"] / 2
    page.mouse.move(x, y)
    _wait_for_frame(page)
    before_ms = _script_ms(clock)
    page.mouse.down()
    for move in range(1, MOVES):
        page.mouse.move(x + STEP_PIXELS * move, y)
    page.mouse.up()
    took_ms = _script_ms(clock) - before_ms
    page.keyboard.press("z")
    _wait_for_frame(page)
    return took_ms


def _wait_for_frame(page: Any) -> None:
    before = page.evaluate(f"{SCREEN}.viewer.invalidate(), {SCREEN}.viewer.framesDrawn")
    while page.evaluate(f"{SCREEN}.viewer.framesDrawn") == before:
        time.sleep(0.02)

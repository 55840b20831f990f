"""Runs every block of the documents and every example of ``--help``: ``python -m documents [PAGE ...]``.

Each page gets a folder of its own with what its commands speak of: RAW, NEW_IMAGES, EXPERT_MASKS, NEW_SERIES,
scan.nii.gz and, unless the page makes them, WORK and MASKS. Prints what was run and what was not and why, and ends
with 1 if a command failed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from builders.data import blocks_case, write_raw
from builders.series import write_series
from documents.blocks import ROOT, Block, blocks_of, pages
from documents.notebook import NOTEBOOK, run_notebook
from documents.walk import run_block, run_line
from segfw.cli import VERBS, command_of

EXAMPLES = "--help"
EXAMPLES_NOT_RUN = {
    "import-nnunet": "needs a model that nnU-Net trained",
    "deliver": "needs signed masks of DICOM series",
    "serve-monailabel": "serves until it is ended",
}
# The example of predict has written masks into the folder that the one of ensemble names.
EXAMPLES_BEGIN_WITH = {
    "ensemble": "rm -r masks\n",
    "queue": "rm -r masks\nsegfw predict work new_scans masks --folds 0 --uncertainty\n",
}
# Pages that begin before there is a work folder, and those that make their data too.
BEFORE_TRAINING = ("README.md", "docs/howto/train.md", "docs/howto/dicom.md", EXAMPLES)
FROM_NOTHING = ("docs/tutorial.md",)


def prepare(folder: Path) -> None:
    """Data as the pages name them, of small boxes."""
    raw = write_raw(folder / "RAW", 6)
    for name, source in (("NEW_IMAGES", "imagesTr"), ("EXPERT_MASKS", "labelsTr")):
        (folder / name).mkdir()
        for path in sorted((raw / source).iterdir())[:2]:
            shutil.copy(path, folder / name / path.name)
    slices = np.round(100 * blocks_case(7)[0].transpose(2, 1, 0)).astype(np.int16)
    write_series(folder / "NEW_SERIES" / "patient_07", slices, spacing_mm=(4.0, 1.0, 1.0))
    shutil.copy(folder / "NEW_IMAGES" / "case_00_0000.nii.gz", folder / "scan.nii.gz")
    for name in ("imagesTs", "labelsTs"):
        shutil.copytree(folder / ("NEW_IMAGES" if name == "imagesTs" else "EXPERT_MASKS"), raw / name)


def train(folder: Path) -> None:
    """A model of two steps in WORK, and its masks in MASKS."""
    run_line("segfw run RAW WORK --configurations 3d_fullres --folds 0", folder)
    run_line("segfw predict WORK NEW_IMAGES MASKS", folder)


def examples() -> tuple[Block, ...]:
    """The examples of ``--help`` as blocks."""
    return tuple(
        Block(
            page=f"segfw {verb} {EXAMPLES}",
            line=1,
            language="sh",
            text=EXAMPLES_BEGIN_WITH.get(verb, "") + command_of(verb).example,
            not_run=EXAMPLES_NOT_RUN.get(verb, ""),
        )
        for verb in VERBS
    )


def prepare_examples(folder: Path) -> None:
    """What the examples of ``--help`` name, where none before them makes it."""
    for name, source in (("hippocampus", "RAW"), ("new_scans", "NEW_IMAGES"), ("labelsTs", "EXPERT_MASKS")):
        (folder / source).rename(folder / name)
    for name, configuration in (("masks_2d", "2d"), ("masks_3d", "3d_fullres")):
        run_line(f"segfw run hippocampus made_{configuration} --configurations {configuration} --folds 0", folder)
        options = f"--configuration {configuration} --save-probabilities"
        run_line(f"segfw predict made_{configuration} new_scans {name} {options}", folder)


def main(names: Sequence[str]) -> int:
    """Runs the pages of these names, all without one."""
    todo: dict[str, tuple[Block, ...]] = {path.relative_to(ROOT).as_posix(): blocks_of(path) for path in pages()}
    todo[EXAMPLES] = examples()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        start = top / "start"
        start.mkdir()
        prepare(start)
        trained = top / "trained"
        shutil.copytree(start, trained)
        train(trained)
        for page, blocks in todo.items():
            if names and page not in names:
                continue
            folder = top / page.replace("/", "_")
            if page in FROM_NOTHING:
                folder.mkdir()
            else:
                shutil.copytree(start if page in BEFORE_TRAINING else trained, folder)
            (folder / "scripts").symlink_to(ROOT / "scripts")
            if page == EXAMPLES:
                prepare_examples(folder)
            failed += run_page(blocks, folder)
        if not names or NOTEBOOK in names:
            (top / "notebook").mkdir()
            failed += not tried(NOTEBOOK, lambda: run_notebook(top / "notebook"))
    print(f"{failed} failed" if failed else "every command did what it should")
    return int(failed > 0)


def run_page(blocks: Sequence[Block], folder: Path) -> int:
    """Runs the blocks of a page and says so; how many failed."""
    names: dict[str, object] = {"__name__": "document"}
    failed = 0
    for block in blocks:
        if block.not_run:
            print(f"==== {block.place}: not run: {block.not_run}")
        elif block.file or block.language in ("sh", "python"):
            failed += not tried(block.place, lambda block=block: run_block(block, folder, names))  # type: ignore[misc]
    return failed


def tried(place: str, work: Callable[[], object]) -> bool:
    """Whether the work did not fail; what became of it is printed."""
    print(f"==== {place}", flush=True)
    try:
        work()
    except Exception:
        traceback.print_exc()
        print(f"==== {place}: FAILED", flush=True)
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

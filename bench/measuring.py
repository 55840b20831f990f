"""Seconds and memory of ``segfw measure`` for a case as large as a whole CT, with as many structures as it may have.

    python -m bench measuring [--structures 104] [--size 450 512 512] [--work measuring_check]

Mask and image are made up; the command runs in a process of its own, with what it reads and writes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from bench.evaluation import organ_masks
from bench.measure import measure
from bench.runs import SEGFW

SPACING_MM = (1.5, 0.8, 0.8)
AIR = -1000
LARGEST = 0.2  # half an axis of the largest structures, of the volume: together they fill more than half of it


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench measuring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=int, default=104)
    parser.add_argument("--size", type=int, nargs=3, default=(450, 512, 512), help="voxels along z, y and x")
    parser.add_argument("--work", type=Path, default=Path("measuring_check"), help="is made and removed")
    args = parser.parse_args(arguments)
    require_new(args.work)
    size_z, size_y, size_x = args.size
    print(measured_case((size_z, size_y, size_x), args.structures, args.work))


def require_new(work: Path) -> None:
    """Ends with a sentence if ``work``, which is removed at the end, is there already."""
    if os.path.lexists(work):
        sys.exit(f"{work}: is there already, and is removed at the end; give --work a new name. Nothing was tried.")


def measured_case(shape: tuple[int, int, int], structures: int, work: Path) -> str:
    """Makes a case in ``work``, measures it and says what that took; ``work`` goes again."""
    share = write_case(work, shape, structures)
    command = [str(SEGFW), "measure", str(work / "masks"), "--images", str(work / "images")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = measure(
        [*command, "--output", str(work / "measures.csv")], env=os.environ | {"OMP_NUM_THREADS": "1"}, log=work / "log"
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = len((work / "measures.csv").read_text(encoding="utf-8").splitlines()) - 1
    shutil.rmtree(work)
    size = "x".join(map(str, shape))
    what = f"segfw measure, one case of {size} voxels with {rows} structures ({share:.0%} of it) and its image"
    return (
        f"{what}: {taken.wall_s:.1f} s, {core_s:.1f} s of processor cores, {taken.peak_pss_gb:.2f} GB at most "
        f"({len(os.sched_getaffinity(0))} cores allowed)"
    )


def write_case(work: Path, shape: tuple[int, int, int], structures: int) -> float:
    """A mask of ellipsoids, each as bright as its number, with noise, int16 like CT; the share that they fill."""
    rng = np.random.default_rng(0)
    mask, _ = organ_masks(shape, structures + 1, 0, LARGEST)
    image = rng.integers(-20, 21, shape, dtype=np.int16)
    for slice_yx, slice_mask in zip(image, mask):
        slice_yx += slice_mask.astype(np.int16) * 5
        slice_yx[slice_mask == 0] += AIR
    for name, array in (("masks", mask), ("images", image)):
        (work / name).mkdir(parents=True, exist_ok=True)
        file = nibabel.Nifti1Image(array.T, np.diag([*SPACING_MM[::-1], 1.0]))
        nibabel.save(file, work / name / "case.nii.gz")
    return float((mask > 0).mean())

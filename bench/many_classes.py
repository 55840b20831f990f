"""A plan of 117 classes from raw data to measures: each verb by itself, with its seconds and memory.

    python -m bench many-classes [--classes 117] [--size 96 96 96] [--cases 4] [--steps 4] [--work many_classes_check]
    python -m bench many-classes --torso ../shared/data/torso_ct_100_labels

Made-up bodies, or CT at 3 mm whose labels are those of a model. The network is trained for a few steps and has learned
nothing: what is measured is whether all of it works at this scale, how long it takes and in how much memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from bench.evaluation import organ_masks
from bench.figures import columns
from bench.measure import measure
from bench.measuring import require_new
from bench.runs import SEGFW

SPACING_MM = (3.0, 3.0, 3.0)
TORSO_CLASSES = 117
# Image and mask of the shared torso data that lie on one grid
TORSO_PAIRS = (
    ("example_ct_sm.nii.gz", "example_seg.nii.gz"),
    ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench many-classes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=117)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 96), help="voxels along z, y and x")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="of training (default: 4)")
    parser.add_argument("--gpu-memory-gb", type=float, default=2.0, help="that is planned for (default: 2)")
    parser.add_argument("--torso", type=Path, help="the shared torso data, instead of made-up ones")
    parser.add_argument("--work", type=Path, default=Path("many_classes_check"), help="is made and removed")
    args = parser.parse_args(arguments)
    if args.torso is not None and not (args.torso / "images").is_dir():
        sys.exit(f"{args.torso}: no such data. Nothing was tried.")
    require_new(args.work)
    raw = args.work / "raw"
    if args.torso is None:
        size_z, size_y, size_x = args.size
        write_bodies(raw, (size_z, size_y, size_x), args.classes, args.cases)
    else:
        write_torso(raw, args.torso)
    print(from_raw_to_measures(raw, args.work, args.steps, args.gpu_memory_gb))
    shutil.rmtree(args.work)


def write_bodies(raw: Path, shape: tuple[int, int, int], classes: int, cases: int) -> None:
    """Ellipsoids with noise, moved a little from case to case."""
    for number in range(cases):
        _, mask = organ_masks(shape, classes + 1, 0) if number == 0 else organ_masks(shape, classes + 1, 10 + number)
        rng = np.random.default_rng(number)
        image = (mask.astype(np.int16) * 7 - 200 + rng.integers(-20, 21, shape)).astype(np.int16)
        _write(raw / "imagesTr" / f"body_{number:02}_0000.nii.gz", image)
        _write(raw / "labelsTr" / f"body_{number:02}.nii.gz", mask)
    _describe(raw, classes, cases)


def write_torso(raw: Path, torso: Path) -> None:
    """The shared CT of which image and labels lie on one grid."""
    for number, (image, mask) in enumerate(TORSO_PAIRS):
        for folder, name, source in (
            ("imagesTr", f"torso_{number}_0000.nii.gz", torso / "images" / image),
            ("labelsTr", f"torso_{number}.nii.gz", torso / "labels" / mask),
        ):
            (raw / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, raw / folder / name)
            (raw / folder / name).chmod(0o644)
    _describe(raw, TORSO_CLASSES, len(TORSO_PAIRS))


def _write(path: Path, array_zyx: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array_zyx.T, np.diag([*SPACING_MM[::-1], 1.0])), path)


def _describe(raw: Path, classes: int, cases: int) -> None:
    labels = {"background": 0} | {f"structure {value:03}": value for value in range(1, classes + 1)}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description, indent=1), encoding="utf-8")


def from_raw_to_measures(raw: Path, work: Path, steps: int, gpu_memory_gb: float = 2.0) -> str:
    """Plans, trains, predicts, measures and evaluates, each in a process of its own; a table of what it took."""
    model = work / "model"
    masks = work / "masks"
    images = raw / "imagesTr"
    cpu = ("--device", "cpu")
    plan = ("--configurations", "3d_fullres", "--gpu-memory-gb", gpu_memory_gb, *cpu)
    train = ("--epochs", 1, "--steps-per-epoch", steps, *cpu)
    verbs = {
        "plan and preprocess": ("plan-and-preprocess", raw, model, *plan),
        f"train, {steps} steps": ("train", model, "3d_fullres", 0, *train),
        "predict": ("predict", model, images, masks, "--configuration", "3d_fullres", *cpu),
        "measure": ("measure", masks, "--images", images, "--output", work / "measures.csv"),
        "measure the labels": ("measure", raw / "labelsTr", "--images", images, "--output", work / "labels.csv"),
        "evaluate": ("evaluate", masks, raw / "labelsTr", "--output", work / "scores.json"),
    }
    rows = [["verb", "s", "GB at most"]]
    for name, words in verbs.items():
        taken = measure([str(SEGFW), *map(str, words)], env=os.environ, log=work / "log")
        rows.append([name, f"{taken.wall_s:.1f}", f"{taken.peak_pss_gb:.2f}"])
        print(f"{name}: {taken.wall_s:.1f} s, {taken.peak_pss_gb:.2f} GB", flush=True)
    planned = json.loads((model / "plan.json").read_text(encoding="utf-8"))
    patch = "x".join(map(str, planned["configurations"]["3d_fullres"]["patch_size"]))
    measured = len((work / "labels.csv").read_text(encoding="utf-8").splitlines()) - 1
    classes = len(planned["labels"]["names"]) - 1
    return f"{classes} classes, patches of {patch}, {measured} rows of measures of the labels\n{columns(rows)}"

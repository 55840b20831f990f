"""Takes models from nnU-Net v2 and gives models to it, and compares what both make of the same images.

    python -m bench models imported --models ../shared/data/nnunet_models
    python -m bench models imported --models ../shared/data/nnunet_models --run-nnunet --repeats 3
    python -m bench models exported WORK IMAGES

``imported`` wants folders that hold model/TRAINER__PLANS__CONFIGURATION, images/, predictions/ (and
predictions_no_mirroring/) by nnU-Net, and patch.npz with an ``input`` and the network's ``logits`` for it. With
--run-nnunet nnU-Net predicts as well, for time and memory on this machine; both are whole process trees that take
turns. It also predicts with its sums of tiles in float32 in place of 16 bit (bench/in_nnunet/predict_float32.py), as
predictions_float32/ may hold already. ``exported`` needs nnU-Net too: make nnunet-venv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.figures import columns, dices
from bench.in_nnunet.predict_float32 import checkpoints
from bench.measure import Measured, measure
from bench.runs import DEFAULT_NNUNET, IN_NNUNET, SEGFW, machine, nnunet_environment, remove, require_nnunet
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import load_plan
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet

ENOUGH_MEAN = 0.999
ENOUGH_CASE = 0.995
# Folders of nnU-Net's masks and of those with its sums in float32, by whether images were mirrored.
MASKS = {True: ("predictions", "predictions_float32"), False: ("predictions_no_mirroring", "float32_no_mirroring")}
HEADS = "model,mirroring,cases,patch,share,mean Dice,worst,voxels,float32 sums,s,GB,nnU-Net s,GB"


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    args.call(args)


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """``keep``, or a folder that is removed in the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="compare-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep


def imported(args: argparse.Namespace) -> None:
    """Imports every model and compares its outputs with nnU-Net's: the network's on a patch, masks, time, memory."""
    rows = [HEADS.split(",")]
    with working_folder(args.keep) as home:
        for folder in sorted(path.parent for path in args.models.glob("*/model")):
            model = remove(home / folder.name / "model")
            import_nnunet(folder / "model", model)
            patch = patch_difference(model, folder / "patch.npz")
            for mirroring, (masks, _) in MASKS.items():
                if (folder / masks).is_dir():
                    row = [folder.name, "yes" if mirroring else "no"]
                    row += _compared_masks(args, home / folder.name, folder, mirroring, patch)
                    rows.append(row)
                    print(*row, flush=True)
    print(json.dumps(machine()))
    print(columns(rows))
    print(
        "patch: largest difference of the network's output, share: of its largest value; Dice between both programs' "
        f"masks (wanted: mean {ENOUGH_MEAN}, worst {ENOUGH_CASE}), voxels: that differ in all cases, float32 sums: "
        "those that differ from nnU-Net with its sums in float32"
    )


def _compared_masks(
    args: argparse.Namespace, home: Path, folder: Path, mirroring: bool, patch: tuple[float, float]
) -> list[str]:
    """The cells of one row: masks by segfw against those in ``folder``, and what both programs took."""
    masks, exact_masks = MASKS[mirroring]
    images = folder / "images"
    ours = home / f"segfw_{masks}"
    options = [] if mirroring else ["--no-mirroring"]
    segfw_runs: list[Measured] = []
    nnunet_runs: list[Measured] = []
    for _ in range(args.repeats):
        segfw_runs.append(run_segfw(home / "model", images, ours, home, options))
        if args.run_nnunet:
            require_nnunet(args.nnunet_python)
            theirs = home / f"nnunet_{masks}"
            nnunet_runs.append(run_nnunet(args.nnunet_python, _trained(folder), images, theirs, home, not mirroring))

    in_float32 = folder / exact_masks
    if args.run_nnunet and not in_float32.is_dir():
        in_float32 = remove(home / exact_masks)
        command = [args.nnunet_python, IN_NNUNET / "predict_float32.py", _trained(folder), images, in_float32]
        subprocess.run([*map(str, command), *options], check=True, env=nnunet_environment(home))

    agreed = agreement(ours, folder / masks)
    return [
        str(agreed.cases),
        f"{patch[0]:.1e}",
        f"{patch[1]:.1e}",
        f"{agreed.least_mean_dice:.5f}",
        f"{agreed.worst_dice:.5f}",
        str(agreed.voxels),
        str(agreement(ours, in_float32).voxels) if in_float32.is_dir() else "-",
        *_medians(segfw_runs),
        *_medians(nnunet_runs),
    ]


def _trained(folder: Path) -> Path:
    """nnU-Net's trained model among what belongs to it."""
    return next((folder / "model").glob("*__*"))


def _medians(runs: Sequence[Measured]) -> list[str]:
    """Seconds and GB of a program, each the median of its runs."""
    if not runs:
        return ["-", "-"]
    wall_s = statistics.median(run.wall_s for run in runs)
    peak_gb = statistics.median(run.peak_pss_gb for run in runs)
    return [f"{wall_s:.1f}", f"{peak_gb:.2f}"]


def patch_difference(model: Path, path: Path) -> tuple[float, float]:
    """Largest difference of the network's output from the one that is stored, and as a share of its largest value."""
    predictor = Predictor.of(load_model(model), device="cpu", precision="fp32")
    with np.load(path) as stored:
        patch = torch.from_numpy(stored["input"])
        wanted = torch.from_numpy(stored["logits"])
    is_2d = patch.ndim == 4
    with torch.inference_mode():
        found = predictor.networks[0](patch[:, :, None] if is_2d else patch)
    largest = float(((found[:, :, 0] if is_2d else found) - wanted).abs().max())
    return largest, largest / float(wanted.abs().max())


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Dice of every label in every case between two folders of masks, and the voxels that differ."""

    dice: list[dict[int, float]]  # of each case, by label
    voxels: int

    @property
    def cases(self) -> int:
        return len(self.dice)

    @property
    def least_mean_dice(self) -> float:
        """Of the label that agrees least in the mean over cases."""
        return min(statistics.fmean(case[label] for case in self.dice) for label in self.dice[0])

    @property
    def worst_dice(self) -> float:
        """Of any label in any case."""
        return min(min(case.values()) for case in self.dice)


def agreement(ours: Path, theirs: Path, written: LabelSet | None = None) -> Agreement:
    """How far two folders of masks agree, over the cases that ``theirs`` holds.

    Where ``ours`` holds the values of ``written``, they are compared as the classes that nnU-Net writes.
    """
    found = []
    different = 0
    labels: set[int] = set()
    for path in sorted(theirs.glob("*.nii.gz")):
        our_mask = read_volume(ours / path.name).array
        their_mask = read_volume(path).array
        if written is not None:
            our_mask = written.to_classes(our_mask)
        found.append(dices(our_mask, their_mask))
        different += int((our_mask != their_mask).sum())
        labels |= found[-1].keys()
    # A label that neither program finds in a case agrees there.
    return Agreement(dice=[dict.fromkeys(sorted(labels), 1.0) | case for case in found], voxels=different)


def run_segfw(model: Path, images: Path, output: Path, home: Path, options: list[str]) -> Measured:
    """``segfw predict`` in float32 on the CPU."""
    command = [str(SEGFW), "predict", str(model), str(images), str(remove(output)), "--device", "cpu"]
    return measure([*command, "--precision", "fp32", *options], env=os.environ, log=home / "segfw.log")


def run_nnunet(
    python: Path, model: Path, images: Path, output: Path, home: Path, no_mirroring: bool, previous: Path | None = None
) -> Measured:
    """``nnUNetv2_predict_from_modelfolder`` on the CPU, where it computes in float32, with the folds segfw takes.

    ``previous`` holds the masks of a cascade's first stage.
    """
    file, folds = checkpoints(model)
    folds = [fold for fold in folds if fold != "all"] or folds
    command = [str(python.with_name("nnUNetv2_predict_from_modelfolder")), "-i", str(images), "-o", str(remove(output))]
    command += ["-m", str(model), "-f", *folds, "-chk", file, "-device", "cpu", "-npp", "1", "-nps", "1"]
    command += ["--disable_tta"] if no_mirroring else []
    command += ["-prev_stage_predictions", str(previous)] if previous else []
    return measure(command, env=nnunet_environment(home), log=home / "nnunet.log")


def exported(args: argparse.Namespace) -> None:
    """Exports a model, has nnU-Net and segfw predict the same images, and compares the masks."""
    require_nnunet(args.nnunet_python)
    plan = load_plan(args.model)
    written = None if plan.labels.regions else plan.labels
    rows = [["configuration", "cases", "mean Dice", "worst", "voxels", "segfw s", "GB", "nnU-Net s", "GB"]]
    with working_folder(args.keep) as home:
        remove(home / "export")
        for folder in export_nnunet(args.model, home / "export"):
            name = folder.name.rsplit("__", 1)[-1]
            ours = home / f"segfw_{name}"
            theirs = home / f"nnunet_{name}"
            first_stage = plan.configuration(name).previous_stage
            previous = home / f"nnunet_{first_stage}" if first_stage else None
            by_segfw = run_segfw(args.model, args.images, ours, home, ["--configuration", name])
            by_nnunet = run_nnunet(args.nnunet_python, folder, args.images, theirs, home, False, previous)
            agreed = agreement(ours, theirs, written)
            row = [name, str(agreed.cases), f"{agreed.least_mean_dice:.5f}", f"{agreed.worst_dice:.5f}"]
            rows.append([*row, str(agreed.voxels), *_medians([by_segfw]), *_medians([by_nnunet])])
    print(columns(rows))
    print(f"mean Dice: of the label that agrees least (wanted: {ENOUGH_MEAN}, and {ENOUGH_CASE} in the worst case)")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True, metavar="PART")
    part = parts.add_parser("imported", help=imported.__doc__)
    part.add_argument("--models", type=Path, required=True)
    part.add_argument("--run-nnunet", action="store_true", help="predict by nnU-Net too, for time and memory")
    part.add_argument("--repeats", type=int, default=1)
    part.set_defaults(call=imported)
    other = parts.add_parser("exported", help=exported.__doc__)
    other.add_argument("model", type=Path)
    other.add_argument("images", type=Path)
    other.set_defaults(call=exported)
    for one in (part, other):
        one.add_argument("--keep", type=Path, help="folder for models and masks (default: removed in the end)")
        one.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    return parser

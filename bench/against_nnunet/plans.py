"""segfw's --as-published plan beside the one that nnU-Net's own planner writes, field by field.

    python -m bench plans --data ../shared/data/hippocampus --preset plain resenc-m

Lists the fields that differ; ends with 1 if any do, or one of both does not plan. Needs nnU-Net: make nnunet-venv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.figures import columns
from bench.runs import DATASET, DEFAULT_NNUNET, SEGFW, nnunet_environment, require_nnunet
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest
from segfw.dataset.dataset_json import DESCRIPTION_FILE
from segfw.dataset.image_files import image_files
from segfw.dataset.layouts import find_dataset
from segfw.images.formats import read_mask, read_volume, split_ending, write_labels
from segfw.nnunet.read_plans import plan_of_nnunet, read_json
from segfw.nnunet.write_plans import dataset_json
from segfw.planning.plan import PLAN_FILE, TWO_D, Configuration, Plan

PLANNERS = {
    "plain": "ExperimentPlanner",
    "resenc-m": "nnUNetPlannerResEncM",
    "resenc-l": "nnUNetPlannerResEncL",
    "resenc-xl": "nnUNetPlannerResEncXL",
}
NETWORK_FIELDS = ("architecture", "strides", "kernels", "features", "encoder_blocks", "decoder_convs")
LAST_WORDS = 600  # characters of a program that failed


class Failed(Exception):
    """One of both programs ended with an error; the message says which and how."""


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    require_nnunet(args.nnunet_python)
    rows = [["data", "cases", "preset", "configuration", "equal", "different"]]
    is_equal = True
    for data in args.data:
        with tempfile.TemporaryDirectory(prefix="plans-", dir=args.temporary) as folder:
            try:
                for row, is_same in compared(data, Path(folder), args.nnunet_python, args.preset):
                    rows.append([data.name, *row])
                    is_equal &= is_same
                    print(": ".join(rows[-1]), flush=True)
            except Failed as error:
                rows.append([data.name, "-", "-", "-", "-", first_line(error)])
                is_equal = False
                print(f"{data.name}: {error}", flush=True)
    print(columns(rows))
    print("intensities: largest difference of a statistic between both draws of voxels, as a share of the range")
    if not is_equal:
        sys.exit(1)


def compared(data: Path, home: Path, python: Path, presets: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """For every preset and configuration: cases, preset, name, fields that are equal, those that are not; all equal?

    Raises Failed if a program refuses the data.
    """
    source, remark = for_both(data, home / "source")
    work = home / "work"
    raw = home / "nnUNet_raw" / DATASET
    environment = nnunet_environment(home)
    for preset in presets:
        options = ["--plan-only", "--as-published", "--preset", preset, "--device", "cpu"]
        _run([str(SEGFW), "plan-and-preprocess", str(source), str(work), *options], dict(os.environ))
        manifest = DatasetManifest.load(work / MANIFEST_FILE)
        plan = Plan.load(work / PLAN_FILE)
        if not raw.exists():
            raw_folder(manifest, plan, source, raw)
            _run([_beside(python, "nnUNetv2_extract_fingerprint"), "-d", "1", "-np", "1"], environment)
        command = [_beside(python, "nnUNetv2_plan_experiment"), "-d", "1", "-pl", PLANNERS[preset]]
        _run(command, environment)
        preprocessed = home / "nnUNet_preprocessed" / DATASET
        written = max(preprocessed.glob("nnUNet*Plans.json"), key=lambda path: path.stat().st_mtime_ns)
        theirs = plan_of_nnunet(read_json(written), plan.channels, plan.labels, written)
        cases = f"{len(manifest.cases)}{remark}"
        for name in dict.fromkeys((*plan.configurations, *theirs.configurations)):
            ours = plan.configurations.get(name)
            other = theirs.configurations.get(name)
            if ours is None or other is None:
                yield [cases, preset, name, "0", f"planned by {'nnU-Net' if ours is None else 'segfw'} alone"], False
                continue
            pairs = fields(ours, other)
            different = [f"{field} {one} / {two}" for field, (one, two) in pairs.items() if not same(one, two)]
            equal = f"{len(pairs) - len(different)} of {len(pairs)}{_drawn_alike(ours, other)}"
            yield [cases, preset, name, equal, "; ".join(different) or "-"], not different


def _beside(python: Path, name: str) -> str:
    return str(python.with_name(name))


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        program = Path(command[0]).name
        message = ended.stderr.strip()
        if "segfw" not in program:
            message = message[-LAST_WORDS:]
        raise Failed(f"{program}: {message}")


def for_both(data: Path, folder: Path) -> tuple[Path, str]:
    """A folder that both can plan for, and what had to be done for that; the data set itself if nothing.

    segfw draws folds, for which one case is too few: it is linked twice, which changes no median. Images and masks
    whose names have nothing in common are linked under one name where exactly one mask has the grid of an image.
    """
    try:
        found = find_dataset(data)
    except UserError as error:
        raise Failed(f"segfw: {error}") from None
    if len(found.cases) == 1 and not found.findings and (data / "images").is_dir():
        (case,) = found.cases
        _link_cases([case, case.model_copy(update={"id": f"{case.id}_again"})], folder)
        return folder, ", one twice"
    if not found.cases and {problem.kind for problem in found.findings} <= {"missing-mask", "missing-image"}:
        cases = _paired_by_grid(image_files(data / "images"), image_files(data / "labels"))
        if len(cases) > 1:
            _link_cases(cases, folder)
            return folder, ", paired by grid"
    return data, ""


def _paired_by_grid(images: Sequence[Path], masks: Sequence[Path]) -> list[Case]:
    grids = {path: read_mask(path).geometry for path in masks}
    cases = []
    for image in images:
        wanted = read_volume(image).geometry
        fitting = [
            path
            for path, grid in grids.items()
            if grid.shape == wanted.shape and np.allclose(grid.matrix, wanted.matrix)
        ]
        if len(fitting) == 1:
            cases.append(Case(id=split_ending(image)[0], images=(image,), label=fitting[0]))
    return cases


def _link_cases(cases: Sequence[Case], folder: Path) -> None:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        for channel, image in enumerate(case.images):
            (folder / "images" / f"{case.id}_{channel:04d}{split_ending(image)[1]}").symlink_to(image.resolve())
        (folder / "labels" / f"{case.id}{split_ending(case.label)[1]}").symlink_to(case.label.resolve())


def raw_folder(manifest: DatasetManifest, plan: Plan, data: Path, raw: Path) -> None:
    """The data set in nnU-Net's raw layout: links, where files are as they have to be; else the folder itself.

    Masks of another ending than the images' are written anew with it. All keep their values, whatever classes
    dataset.json numbers: to a plan only counts what is not 0.
    """
    if (data / DESCRIPTION_FILE).is_file() and (data / "imagesTr").is_dir():
        raw.parent.mkdir(parents=True)
        raw.symlink_to(data.resolve(), target_is_directory=True)
        return
    ending = split_ending(manifest.cases[0].images[0])[1]
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in manifest.cases:
        for channel, image in enumerate(case.images):
            (raw / "imagesTr" / f"{case.id}_{channel:04d}{ending}").symlink_to(image.resolve())
        link = raw / "labelsTr" / f"{case.id}{ending}"
        if split_ending(case.label)[1] == ending:
            link.symlink_to(case.label.resolve())
        else:
            mask = read_mask(case.label)
            write_labels(link, mask.array[0], mask.geometry)
    (raw / DESCRIPTION_FILE).write_text(json.dumps(dataset_json(plan, ending)), encoding="utf-8")


def fields(ours: Configuration, theirs: Configuration) -> dict[str, tuple[object, object]]:
    """By name what both plans say. nnU-Net's 2d has no size along z: what is read for it is of images as they are."""
    axes = slice(1 if ours.name == TWO_D else 0, None)
    return {
        "patch": (ours.patch_size, theirs.patch_size),
        "batch": (ours.batch_size, theirs.batch_size),
        "batch Dice": (ours.batch_dice, theirs.batch_dice),
        "spacing": (ours.preprocessing.spacing_mm, theirs.preprocessing.spacing_mm),
        "axes": (ours.preprocessing.axis_order, theirs.preprocessing.axis_order),
        "median shape": (ours.median_shape[axes], theirs.median_shape[axes]),
        "normalisation": (_rules(ours), _rules(theirs)),
        "previous stage": (ours.previous_stage, theirs.previous_stage),
        **{
            name.replace("_", " "): (getattr(ours.network, name), getattr(theirs.network, name))
            for name in NETWORK_FIELDS
        },
    }


def _rules(configuration: Configuration) -> list[tuple[str, bool]]:
    return [(rule.kind, rule.inside_mask) for rule in configuration.preprocessing.normalization]


def same(one: object, other: object) -> bool:
    """Equal, or lists of numbers that are equal but for rounding."""
    if isinstance(one, tuple) and one and all(isinstance(value, float | int | None) for value in (*one, *other)):
        return len(one) == len(other) and np.allclose(np.array(one, float), np.array(other, float), equal_nan=True)
    return one == other


def _drawn_alike(ours: Configuration, theirs: Configuration) -> str:
    """Where normalisation uses statistics of the data set, how far they are apart."""
    apart = []
    for our_rule, their_rule in zip(ours.preprocessing.normalization, theirs.preprocessing.normalization):
        if our_rule.kind == "ct" and our_rule.stats and their_rule.stats:
            first = our_rule.stats
            second = their_rule.stats
            span = second.percentile_99_5 - second.percentile_00_5
            names = ("mean", "std", "median", "percentile_00_5", "percentile_99_5")
            apart += [abs(getattr(first, name) - getattr(second, name)) / span for name in names]
    return f"; intensities {max(apart):.1e}" if apart else ""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench plans", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of raw data")
    parser.add_argument("--preset", nargs="+", default=["plain"], choices=tuple(PLANNERS))
    parser.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    parser.add_argument("--temporary", type=Path, help="folder for what is made and removed (default: the system's)")
    return parser

"""segfw's --as-published plan beside the one that nnU-Net's own planner writes, field by field."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from compare_runs import DATASET, DEFAULT_NNUNET, SEGFW, columns, nnunet_environment, require_nnunet

from segfw.data.description import DESCRIPTION_FILE
from segfw.data.manifest import DatasetManifest
from segfw.planning.nnunet_plans import plan_of_nnunet
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.planning.prepare import MANIFEST_FILE

PLANNERS = {"plain": "ExperimentPlanner", "resenc-m": "nnUNetPlannerResEncM", "resenc-l": "nnUNetPlannerResEncL"}


def plans(args: argparse.Namespace) -> None:
    """Plans every data set by both and lists the fields that differ."""
    require_nnunet(args.nnunet_python)
    rows = [["data", "configuration", "equal", "different"]]
    for data in args.data:
        with tempfile.TemporaryDirectory(prefix="plans-", dir=args.temporary) as folder:
            for name, (equal, different) in compared(data, Path(folder), args.nnunet_python, args.preset).items():
                rows.append([data.name, name, ", ".join(equal), "; ".join(different) or "-"])
                print(f"{data.name} {name}: {len(equal)} fields equal; different: {rows[-1][-1]}", flush=True)
    print(columns(rows))


def compared(data: Path, home: Path, python: Path, preset: str) -> dict[str, tuple[list[str], list[str]]]:
    """By configuration: names of equal fields, and different ones with both values."""
    work, raw = home / "work", home / "nnUNet_raw" / DATASET
    options = ["--plan-only", "--as-published", "--preset", preset, "--device", "cpu"]
    told = subprocess.run([str(SEGFW), "plan-and-preprocess", str(data), str(work), *options], env=os.environ)
    if told.returncode:
        return {"-": ([], ["segfw refuses the data"])}
    manifest, plan = DatasetManifest.load(work / MANIFEST_FILE), Plan.load(work / PLAN_FILE)
    ending = _raw_folder(manifest, data, raw)
    environment = nnunet_environment(home)
    for command in (
        ["nnUNetv2_extract_fingerprint", "-d", "1", "-np", "1"],
        ["nnUNetv2_plan_experiment", "-d", "1", "-pl", PLANNERS[preset]],
    ):
        subprocess.run([str(python.with_name(command[0])), *command[1:]], check=True, env=environment)
    written = next((home / "nnUNet_preprocessed" / DATASET).glob("nnUNet*Plans.json"))
    theirs = plan_of_nnunet(
        json.loads(written.read_text(encoding="utf-8")), plan.channels, plan.labels, written, with_costs=False
    )
    result = {}
    for name in dict.fromkeys((*plan.configurations, *theirs.configurations)):
        if name not in plan.configurations or name not in theirs.configurations:
            result[name] = [], [f"planned by {'segfw' if name in plan.configurations else 'nnU-Net'} alone"]
        else:
            result[name] = _fields(plan.configurations[name], theirs.configurations[name])
    print(f"{data}: {len(manifest.cases)} cases, {ending}")
    return result


def _raw_folder(manifest: DatasetManifest, data: Path, raw: Path) -> str:
    """The data set in nnU-Net's raw layout: links, where files are as they have to be; else the folder itself."""
    if (data / DESCRIPTION_FILE).is_file() and (data / "imagesTr").is_dir():
        raw.parent.mkdir(parents=True)
        raw.symlink_to(data.resolve(), target_is_directory=True)
        return "as it is"
    ending = "".join(manifest.cases[0].images[0].suffixes)
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in manifest.cases:
        for channel, image in enumerate(case.images):
            (raw / "imagesTr" / f"{case.id}_{channel:04d}{ending}").symlink_to(image.resolve())
        shutil.copy(case.label, raw / "labelsTr" / f"{case.id}{ending}")
    labels = {"background": 0} | dict(zip(manifest.labels.names[1:], manifest.labels.values[1:]))
    description = {
        "channel_names": {str(index): channel.name for index, channel in enumerate(manifest.channels)},
        "labels": labels,
        "numTraining": len(manifest.cases),
        "file_ending": ending,
    }
    (raw / DESCRIPTION_FILE).write_text(json.dumps(description), encoding="utf-8")
    return f"linked as {ending}"


def _fields(ours: Configuration, theirs: Configuration) -> tuple[list[str], list[str]]:
    pairs = {
        "patch": (ours.patch_size, theirs.patch_size),
        "batch": (ours.batch_size, theirs.batch_size),
        "batch Dice": (ours.batch_dice, theirs.batch_dice),
        "spacing": (ours.preprocessing.spacing_mm, theirs.preprocessing.spacing_mm),
        "axes": (ours.preprocessing.axis_order, theirs.preprocessing.axis_order),
        "median shape": (ours.median_shape, theirs.median_shape),
        "normalisation": _rules(ours, theirs),
    }
    for field in ("architecture", "strides", "kernels", "features", "encoder_blocks", "decoder_convs"):
        pairs[field.replace("_", " ")] = (getattr(ours.network, field), getattr(theirs.network, field))
    equal = [name for name, (one, other) in pairs.items() if _same(one, other)]
    different = [f"{name} {one} / {other}" for name, (one, other) in pairs.items() if not _same(one, other)]
    return equal, different


def _rules(*both: Configuration) -> tuple[list, ...]:
    return tuple([(rule.kind, rule.inside_mask) for rule in one.preprocessing.normalization] for one in both)


def _same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and one and all(isinstance(value, float | int | None) for value in (*one, *other)):
        return len(one) == len(other) and np.allclose(np.array(one, float), np.array(other, float), equal_nan=True)
    return one == other


def add_plans(parts: argparse._SubParsersAction) -> None:
    """The part ``plans`` of scripts/compare_nnunet_models.py."""
    part = parts.add_parser("plans", help=plans.__doc__)
    part.add_argument("--data", type=Path, nargs="+", required=True, help="folders that both can read")
    part.add_argument("--preset", default="plain", choices=tuple(PLANNERS))
    part.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    part.add_argument("--temporary", type=Path, help="folder for what is made and removed (default: the system's)")
    part.set_defaults(call=plans)

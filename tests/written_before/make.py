"""Writes the files of this folder. It was run once, at commit af6f1b4, and is kept to say how they were made.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/written_before/make.py NEW_FOLDER

No test runs it: files that today's code writes prove nothing about files of before.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from conftest import blocks_case, write_nifti  # noqa: E402
from cpu_kind import cpu_kind  # noqa: E402
from segfw.evaluation.evaluate import evaluate  # noqa: E402
from segfw.export import export_model  # noqa: E402
from segfw.nnunet.importing import import_nnunet  # noqa: E402
from segfw.pipeline import train  # noqa: E402
from segfw.planning.prepare import plan_and_preprocess  # noqa: E402
from segfw.prediction import predict  # noqa: E402
from segfw.selection import select  # noqa: E402
from small_nnunet import trained_folder  # noqa: E402
from small_training import spec  # noqa: E402

from segfw.planning.plan import PLAN_FILE  # noqa: E402
from segfw.training import checkpoint, epochs  # noqa: E402

CASES = [f"case_{number:02}" for number in range(6)]
SETTINGS = {"epochs": 4, "steps_per_epoch": 40, "learning_rate": 0.02, "seed": 5, "precision": "fp32"}
STEPS_BEFORE_THE_KILL = 100  # of 160: in the third epoch


class Killed(Exception):
    """Stands for the end of the process."""


def write_raw(raw: Path) -> None:
    """Six training cases, two images to predict, and given folds."""
    for number, case in enumerate(CASES):
        image, mask = blocks_case(number)
        write_nifti(raw / "imagesTr" / f"{case}_0000.nii.gz", image)
        write_nifti(raw / "labelsTr" / f"{case}.nii.gz", mask)
    for number, shape in ((20, (22, 17, 9)), (21, (18, 19, 11))):
        image, mask = blocks_case(number, shape)
        write_nifti(raw / "imagesTs" / f"new_{number}_0000.nii.gz", image)
        write_nifti(raw / "labelsTs" / f"new_{number}.nii.gz", mask)
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "bright": 3, "dark": 7}}
    (raw / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}, indent=1) + "\n")
    parts = [CASES[0:2], CASES[2:4], CASES[4:6]]
    folds = [{"train": [case for case in CASES if case not in part], "val": part} for part in parts]
    (raw / "folds.json").write_text(json.dumps(folds, indent=1) + "\n")


def plan_small(raw: Path, work: Path, expected: Path) -> None:
    """The plan as made, kept among what is expected, and in the work folder one with networks of a few kilobytes."""
    names = ("2d", "3d_fullres")
    plan = plan_and_preprocess(
        raw, work, splits=raw / "folds.json", gpu_memory_gb=2, configurations=names, device="cpu", workers=1
    )
    plan.save(expected / "plan_as_made.json")
    flat = spec(features=(4, 8), strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3)))
    small = {
        "2d": plan.configurations["2d"].model_copy(
            update={"network": flat, "patch_size": (1, 16, 16), "batch_size": 8}
        ),
        "3d_fullres": plan.configurations["3d_fullres"].model_copy(
            update={"network": spec(features=(4, 8)), "patch_size": (8, 16, 16), "batch_size": 2}
        ),
    }
    plan.model_copy(update={"configurations": small}).save(work / PLAN_FILE)


def train_half_way(work: Path) -> None:
    """Fold 1, killed in its third epoch with a checkpoint after the second."""
    original = epochs.train_step
    steps = []

    def killed_half_way(*arguments):
        steps.append(1)
        if len(steps) > STEPS_BEFORE_THE_KILL:
            raise Killed
        return original(*arguments)

    checkpoint.CHECKPOINT_EVERY_S = 0.0
    epochs.train_step = killed_half_way
    with contextlib.suppress(Killed):
        train(work, "3d_fullres", "1", device="cpu", **SETTINGS)
    epochs.train_step = original
    checkpoint.CHECKPOINT_EVERY_S = 60.0


def write_expected(work: Path, expected: Path) -> None:
    """What this version makes of the work folder when it goes on with it, in a copy."""
    again = Path("again")
    shutil.copytree(work, again)
    train(again, "3d_fullres", "1", device="cpu", resume=True)
    train(again, "3d_fullres", "0", device="cpu", extend_epochs=2)
    for name, fold in (("resumed", "1"), ("extended", "0")):
        folder = again / "runs" / "3d_fullres" / f"fold_{fold}"
        (expected / name).mkdir(parents=True)
        shutil.copyfile(folder / "weights.safetensors", expected / name / "weights.safetensors")
        shutil.copyfile(folder / "metrics.jsonl", expected / name / "metrics.jsonl")
        shutil.copyfile(folder / "validation" / "scores.json", expected / name / "scores.json")
        shutil.copytree(folder / "validation", expected / name / "masks", ignore=only_masks)
    shutil.rmtree(again)


def only_masks(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".nii.gz")]


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    os.chdir(root)  # so that all paths in the files are relative
    raw = Path("raw")
    work = Path("work")
    expected = Path("expected")
    expected.mkdir()
    write_raw(raw)
    plan_small(raw, work, expected)
    train(work, "3d_fullres", "0", device="cpu", **SETTINGS)
    train(work, "2d", "0", device="cpu", **SETTINGS)
    select(work, device="cpu", precision="fp32")
    train_half_way(work)
    write_expected(work, expected)

    how = {"device": "cpu", "precision": "fp32"}
    images = raw / "imagesTs"
    extras = {"save_probabilities": 16, "uncertainty": True}
    predict(work, images, Path("predicted"), configuration="3d_fullres", folds=("0",), **extras, **how)
    predict(work, images, expected / "masks_selected", **how)
    evaluate(Path("predicted"), raw / "labelsTs", output=expected / "scores.json")
    export_model(work, Path("model.zip"), licence="CC0-1.0")

    import_nnunet(trained_folder(Path("trained")), Path("imported"))
    shutil.rmtree("trained")
    for number in range(2):
        image, _ = blocks_case(30 + number, (21, 18, 10))
        write_nifti(Path("images_two_channels") / f"both_000{number}.nii.gz", image)
    predict(Path("imported"), Path("images_two_channels"), expected / "masks_imported", **how)

    tidy_up(expected)
    (expected / "cpu_kind.json").write_text(json.dumps(cpu_kind(), indent=1) + "\n")


def tidy_up(expected: Path) -> None:
    """Leaves out pictures and pages, which are large, and the folder that all this was made in."""
    for path in [*expected.rglob("timings.json"), *expected.rglob(".segfw")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in [*Path().rglob("*.png"), *Path().rglob("*.html"), *Path().rglob("*.lock")]:
        path.unlink()
    for path in Path("work").rglob("*.json"):
        text = path.read_text().replace(str(Path.cwd()), "/data")
        path.write_text(text.replace(platform.platform(), "Linux-x86_64"))


if __name__ == "__main__":
    main()

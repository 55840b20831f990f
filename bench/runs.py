"""What all comparisons share: commands, links to cases, and folders of a comparison that can go on where it stopped."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from bench import CLONE

SEGFW = Path(sys.executable).with_name("segfw")
DEFAULT_NNUNET = CLONE / "nnunet-venv" / "bin" / "python"
IN_NNUNET = CLONE / "bench" / "in_nnunet"  # programs that run in its environment
DATASET = "Dataset001_compare"
SETTINGS_FILE = "comparison.json"


def as_published() -> list[str]:
    """The option by which segfw plans exactly as nnU-Net does."""
    command = [str(SEGFW), "plan-and-preprocess", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ["--as-published"] if "--as-published" in help_text else []


def require_nnunet(python: Path) -> None:
    """Ends the program if there is no nnU-Net beside this Python."""
    if not python.with_name("nnUNetv2_plan_and_preprocess").is_file():
        sys.exit(f"{python}: no nnU-Net there; call make nnunet-venv, or give --nnunet-python")


def nnunet_environment(home: Path, results: Path | None = None) -> dict[str, str]:
    """Environment of nnU-Net with its three folders in ``home``; it must not find the packages of this environment."""
    folders = {f"nnUNet_{name}": str(home / f"nnUNet_{name}") for name in ("raw", "preprocessed", "results")}
    if results is not None:
        folders["nnUNet_results"] = str(results)
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | folders


def usable_cores() -> list[int]:
    """Numbers of the processor cores that this process may use."""
    if hasattr(psutil.Process, "cpu_affinity"):
        return psutil.Process().cpu_affinity()
    return list(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """How many processor cores this process may use."""
    return len(usable_cores())


def processor_name() -> str:
    """What the system calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone; Python knows only the architecture there
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.processor() or platform.machine()


def machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cpus": usable_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "python": platform.python_version(),
    }


def count_cases(data: Path) -> int:
    return sum(1 for path in (data / "labelsTr").iterdir() if not path.name.startswith("."))


def linked_cases(data: Path, folder: Path, ids: Sequence[str], images: str, labels: str) -> Path:
    """Links to the images, masks and description of some cases of a folder in nnU-Net's raw layout."""
    description = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    for part in (images, labels):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in ids:
        _link(folder / labels / f"{case}{ending}", data / "labelsTr" / f"{case}{ending}")
        for image in (data / "imagesTr").glob(f"{case}_????{ending}"):
            _link(folder / images / image.name, image)
    (folder / "dataset.json").write_text(json.dumps(description | {"numTraining": len(ids)}), encoding="utf-8")
    return folder


def subset(data: Path, folder: Path, cases: int | None) -> Path:
    """The first ``cases`` cases of a folder in nnU-Net's raw layout, as links; the folder itself if all are wanted."""
    if cases is None:
        return data
    ending = json.loads((data / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    labels = sorted(path.name for path in (data / "labelsTr").iterdir() if path.name.endswith(ending))[:cases]
    return linked_cases(data, folder, [name.removesuffix(ending) for name in labels], "imagesTr", "labelsTr")


def linked_work(work: Path, folder: Path) -> Path:
    """A work folder of segfw that shares plan, splits and preprocessed data with ``work`` and has runs of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in work.iterdir():
        if path.name == "preprocessed" or path.suffix == ".json":  # and not its log and locks
            _link(folder / path.name, path)
    return folder


def _link(link: Path, target: Path) -> None:
    if not os.path.lexists(link):  # segfw run replaces a link by what it decides itself, even where that is the same
        link.symlink_to(target.resolve())


def keep_or_refuse(
    folder: Path, settings: Mapping[str, object], *, remedy: str = "go on with that, or give another --keep"
) -> None:
    """Notes the settings of a comparison in its folder; ends the program if it was begun with others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(settings, default=str))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted(before.keys() | wanted.keys()):
            if before.get(name) != wanted.get(name):
                sys.exit(f"{folder}: was begun with {name} {before.get(name)}, not {wanted.get(name)}; {remedy}")
    else:
        path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def once(result: Path, what: Callable[..., dict], *arguments: object) -> dict:
    """The result kept in a JSON file; ``what(*arguments)`` makes it if it is not there yet."""
    if not result.is_file():
        print(f"{result.stem} ...", flush=True)
        made = what(*arguments)
        result.parent.mkdir(parents=True, exist_ok=True)
        partial = result.with_name(result.name + ".partial")
        partial.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        partial.replace(result)
    return json.loads(result.read_text(encoding="utf-8"))


def remove(folder: Path) -> Path:
    """Removes what an interrupted run left, and returns the folder's path."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder

"""Data, models and work folders for the verbs, made once, and what a verb is given of them.

A trial begins with the folder ``out`` as it was made for its verb and ends with what the verb has left there. Inputs
lie beside it and are never written to. What two undisturbed runs write alike must be the same after a disturbed one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from builders.calibrated import calibrated_model
from builders.data import blocks_case, write_nifti
from builders.nnunet import trained_folder
from builders.series import write_series
from builders.written_before import WRITTEN, written_copy
from campaign.processes import run
from segfw.inference.prediction_calls import CALLS

LASTED = re.compile(rb"<dd>\d+ steps?, \d+ epochs?, [\d.]+ (s|min)</dd>")
WHEN = re.compile(rb"20\d\d-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?")
CPU = ("--device", "cpu")
SHORT = ("--epochs", "2", "--steps-per-epoch", "2", "--batch-size", "2", *CPU)


class Act(NamedTuple):
    """A verb with its arguments; ``{data}`` are the inputs, ``{out}`` is where it writes."""

    command: tuple[str, ...]
    has_work: bool = False  # a copy of the work folder lies in {out}
    has_model: bool = False  # a copy of it does, without what tells of the data
    again: tuple[str, ...] = ()  # what is added when it is called once more after a disturbance


ACTS: Mapping[str, Act] = {
    "check --fix": Act(("check", "{data}/odd", "--fix", "{out}/fixed", "--workers", "2")),
    "import-nnunet": Act(("import-nnunet", "{data}/theirs", "{out}/model")),
    "export --nnunet": Act(("export", "{data}/imported", "{out}/folder", "--nnunet")),
    "check --output": Act(("check", "{data}/odd", "--output", "{out}/check")),
    "plan-and-preprocess": Act(("plan-and-preprocess", "{data}/raw", "{out}/work", "--configurations", "2d", *CPU)),
    "train": Act(("train", "{out}/work", "2d", "1", *SHORT), has_work=True, again=("--resume",)),
    "run": Act(("run", "{data}/raw", "{out}/work", "--configurations", "2d", "--folds", "0", *SHORT)),
    "select": Act(("select", "{out}/work", "--configurations", "2d", *CPU), has_work=True),
    "calibrate": Act(
        ("calibrate", "{out}/model", "--configuration", "2d", "--cases", "{data}/raw", "--shifts", "off", *CPU),
        has_model=True,
    ),
    "predict": Act(
        ("predict", "{data}/model.zip", "{data}/raw/imagesTs", "{out}/masks", "--save-probabilities", *CPU),
    ),
    "predict --report": Act(
        ("predict", "{data}/calibrated", "{data}/raw/imagesTs", "{out}/masks", "--report", *CPU),
    ),
    "predict --as": Act(
        (
            *("predict", "{data}/model.zip", "{data}/scans", "{out}/masks", *CPU),
            *("--as", "nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids", "--sr"),
        ),
    ),
    "ensemble": Act(("ensemble", "{data}/predicted", "{data}/predicted", "--output", "{out}/averaged")),
    "evaluate": Act(
        (
            *("evaluate", "{data}/predicted", "{data}/raw/labelsTs", "--output", "{out}/scores.json"),
            *("--report", "{out}/report.html", "--images", "{data}/raw/imagesTs"),
        )
    ),
    "measure": Act(
        (
            *("measure", "{data}/predicted", "--images", "{data}/raw/imagesTs", "--output", "{out}/measures.csv"),
            *("--report", "{out}/measures.html", "--per-component", "--wide"),
        )
    ),
    "stress": Act(
        (
            *("stress", "{data}/model.zip", "{data}/raw/imagesTs", "{out}/robustness", "--quick", *CPU),
            *("--precision", "fp32", "--reference", "{data}/predicted"),
        )
    ),
    "find --codes": Act(("find", "{data}/model.zip", "--codes", "{out}/codes.csv")),
    "export": Act(("export", "{data}/imported", "{out}/model.zip")),
    "export --onnx": Act(("export", "{data}/imported", "{out}/onnx", "--onnx")),
}


class Whole(NamedTuple):
    """What a verb leaves in ``out`` when nobody disturbs it."""

    bytes_of: Mapping[str, str]  # digest of each file by its path; '' where two runs differ, such as of times
    events: int
    seconds: float
    size_bytes: int


def _digest(path: Path) -> str:
    """Of the content; when it was made, and how long a training took, is left out of pages and of calls."""
    content = path.read_bytes()
    if path.suffix == ".html" or path.parent.name == CALLS:  # two runs can say the same time by chance
        content = LASTED.sub(b"", WHEN.sub(b"", content))
    return hashlib.sha256(content).hexdigest()


class Stage:
    """The inputs in ``place``/data and the outputs in ``place``/out."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data = place / "data"
        self.out = place / "out"
        self.said = place / "said"
        self.said.mkdir(parents=True)
        self._wholes: dict[str, Whole] = {}

    def make(self) -> None:
        """Makes the inputs; in a fork, because it may begin threads."""
        written_copy(self.data)
        trained_folder(self.data / "theirs")
        self._make_odd(self.data / "odd")
        calibrated_model(self.data / "calibrated")
        for number in range(2):
            image, _ = blocks_case(number)
            write_series(self.data / "scans" / f"p{number}", image.T, number=number + 1)

    def _make_odd(self, raw: Path) -> None:
        """A data set with something to repair in every second case: masks of floating numbers."""
        for number in range(4):
            image, mask = blocks_case(number)
            write_nifti(raw / "imagesTr" / f"case_{number:02}_0000.nii.gz", image)
            write_nifti(
                raw / "labelsTr" / f"case_{number:02}.nii.gz", mask.astype(np.float32 if number % 2 else np.uint8)
            )
        shutil.copy(WRITTEN / "raw" / "dataset.json", raw)

    def command(self, name: str, *, again: bool = False) -> list[str]:
        act = ACTS[name]
        return [part.format(data=self.data, out=self.out) for part in (*act.command, *(act.again if again else ()))]

    def begin(self, name: str) -> None:
        """Puts into ``out`` what the verb finds there."""
        for each in self.out.iterdir() if self.out.is_dir() else ():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        self.out.mkdir(exist_ok=True)
        if ACTS[name].has_work:
            shutil.copytree(self.data / "work", self.out / "work")
            shutil.rmtree(self.out / "work" / "selection", ignore_errors=True)
            (self.out / "work" / "selection.json").unlink(missing_ok=True)
        if ACTS[name].has_model:
            shutil.copytree(self.data / "work" / "runs", self.out / "model" / "runs")
            shutil.copy(self.data / "work" / "plan.json", self.out / "model")

    def found(self) -> dict[str, str]:
        """The digest of each file in ``out``, and of each folder that is empty."""
        return {
            path.relative_to(self.out).as_posix(): _digest(path) if path.is_file() else "folder"
            for path in sorted(self.out.rglob("*"))
            if path.is_file() or not any(path.iterdir())
        }

    def whole(self, name: str) -> Whole:
        """What the verb does undisturbed, tried twice, the first time it is asked for."""
        if name not in self._wholes:
            both = []
            for _ in range(2):
                self.begin(name)
                ended = run(self.command(name), self.said)
                if ended.code:
                    raise RuntimeError(f"{name} ends with {ended.code} undisturbed: {ended.errors}")
                both.append((ended, self.found()))
            (ended, first), (_, second) = both
            if first.keys() != second.keys():
                raise RuntimeError(f"{name} writes other files the second time: {first.keys() ^ second.keys()}")
            same = {path: digest if second[path] == digest else "" for path, digest in first.items()}
            size_bytes = sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file())
            self._wholes[name] = Whole(same, ended.events, ended.seconds, size_bytes)
        return self._wholes[name]

    def differences(self, name: str) -> list[str]:
        """What is in ``out`` otherwise than after an undisturbed run, in words; empty if nothing is."""
        expected = self.whole(name).bytes_of
        found = self.found()
        left = [f"{path} is left behind" for path in found.keys() - expected.keys()]
        missing = [f"{path} is missing" for path in expected.keys() - found.keys()]
        other = [
            f"{path} is another" for path in found.keys() & expected.keys() if expected[path] not in ("", found[path])
        ]
        return sorted(left + missing + other)

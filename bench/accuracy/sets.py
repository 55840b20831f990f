"""The data sets that ways to train are compared on: the one place that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A folder of images and masks below the folder of all data sets."""

    folder: str
    is_in_bank: bool = False
    is_for_false_alarms: bool = False  # many patients and short trainings, so that ten runs are affordable


SETS = {
    "hippocampus": DataSet(folder="hippocampus", is_in_bank=True, is_for_false_alarms=True),
    "cardiac_cine": DataSet(folder="cardiac_cine", is_in_bank=True),
    "head_neck_ct": DataSet(folder="head_neck_ct", is_in_bank=True),
    "retina_2d": DataSet(folder="retina_2d"),
    "brain_slices": DataSet(folder="brain_slices_2d_many_labels"),
}


def raw_folder(data: Path, name: str) -> Path:
    """Where a data set lies below ``data``; raises UserError if it does not."""
    folder = data / SETS[name].folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of all data sets with --data")
    return folder

"""The base model of a data set, patients that were kept out of it, their automatic masks, and refiners trained on it.

WORK/SET/raw/train, raw/kept     links; kept are those of ``bench trust`` and whoever has scribbles
WORK/SET/base                    work folder of the base model, five folds: one for all seeds of the refiner
WORK/SET/automatic               masks of the kept-out cases by all folds of the base
WORK/SET/refiner_Mmin_seed_S     the base with a refiner of M minutes
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.accuracy.sets import raw_folder
from bench.partial.command import run_segfw
from bench.refine.click_sources import stroke_points
from bench.refine.clicked_item import Item
from bench.trust.raw_folders import GROUPS, split_raw
from segfw.base.durations import typed_duration
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import Geometry
from segfw.images.values import as_integers
from segfw.images.volume import stored_like
from segfw.planning.work_folder import load_plan_and_splits

FOLDS = ("0", "1", "2", "3", "4")
REFINER = "3d_refine"
FOLD = "all"
SCRIBBLES = {"cardiac_cine": "scribbles"}  # folder of real strokes beside the images
NOT_SHARED = ("calibration", "quality.*", "run.toml", "*.html", "log.txt", "summary.txt", "*.lock", ".*")


@dataclass(frozen=True, kw_only=True)
class KeptCase:
    """A case that was kept out: its image's files and grid, the automatic mask, and what is clicked on."""

    id: str
    images: tuple[Path, ...]
    geometry: Geometry
    automatic: Path
    automatic_zyx: np.ndarray
    items: tuple[Item, ...]


def set_folder(work: Path, name: str) -> Path:
    """Everything of one data set."""
    return work.resolve() / name


def make_base(data: Path, work: Path, name: str, minutes: float, seed: int = 0) -> None:
    """Splits the patients, trains the base model, and predicts the kept-out cases; what is there is not made again."""
    folder = set_folder(work, name)
    if not (folder / "raw").exists():
        strokes = _scribbles(data, name)
        also = set(read_groups(GROUPS.get(name), sorted(strokes)).values()) if strokes else set()
        split_raw(data, name, folder / "raw", also=also)
    if not (folder / "base" / "plan.json").is_file():
        words = ["run", str(folder / "raw" / "train"), str(folder / "base"), "--folds", *FOLDS, "--device", "cpu"]
        words += ["--time-budget", typed_duration(60 * minutes), "--seed", str(seed)]
        run_segfw(*words, *(["--groups", GROUPS[name]] if name in GROUPS else []))
    make_automatic(folder)


def make_automatic(folder: Path) -> None:
    """The base model's masks of the kept-out cases; cases that are there are not predicted again."""
    words = ["predict", str(folder / "base"), str(folder / "raw" / "kept" / "images"), str(folder / "automatic")]
    run_segfw(*words, "--device", "cpu")


def make_refiner(work: Path, name: str, minutes: float, seed: int) -> Path:
    """Trains a refiner on the base's held-out masks; the folder that holds both."""
    folder = set_folder(work, name)
    made = folder / f"refiner_{minutes:g}min_seed_{seed}"
    if not (folder / "base" / "plan.json").is_file():
        raise UserError(f"{folder / 'base'}: no base model is there; python -m bench refine base {name} trains it")
    if not made.is_dir():
        partial = made.with_name(f".{made.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder / "base", partial, ignore=shutil.ignore_patterns(*NOT_SHARED))
        partial.rename(made)
    raw = (folder / "raw" / "train").resolve()  # as the base knows it, where the folder is a link
    words = ["run", str(raw), str(made), "--configurations", REFINER, "--folds", FOLD]
    words += ["--time-budget", typed_duration(60 * minutes), "--seed", str(seed), "--device", "cpu"]
    run_segfw(*words, *(["--groups", GROUPS[name]] if name in GROUPS else []))
    return made


def kept_cases(data: Path, work: Path, name: str, number: int | None = None) -> tuple[list[KeptCase], dict[str, str]]:
    """The kept-out cases, the first ``number`` of them, and the patient of each."""
    folder = set_folder(work, name)
    plan, _ = load_plan_and_splits(folder / "base")
    found = find_dataset(folder / "raw" / "kept")
    cases = sorted(found.cases, key=lambda case: case.id)[:number]
    strokes = _scribbles(data, name)
    kept = []
    for case in cases:
        image = read_volume(case.images[0])
        automatic = _mask_of(folder / "automatic", case.id)
        if case.label is None:
            raise UserError(f"{folder / 'raw' / 'kept'}: case {case.id} has no mask")
        items = _items(case.id, case.label, image, plan.labels.names, plan.labels.values, strokes.get(case.id))
        kept.append(
            KeptCase(
                id=case.id,
                images=case.images,
                geometry=image.geometry,
                automatic=automatic,
                automatic_zyx=_values(automatic, image),
                items=items,
            )
        )
    return kept, read_groups(GROUPS.get(name), [case.id for case in cases], found.patient_of)


def _items(
    case: str, label: Path, image, names: Sequence[str], values: Sequence[int], strokes: Path | None
) -> tuple[Item, ...]:
    wanted_zyx = _values(label, image)
    strokes_zyx = _values(strokes, image) if strokes is not None else None
    spacing_mm = image.geometry.spacing_mm
    found = []
    for name, value in zip(names[1:], values[1:], strict=True):
        if (wanted_zyx == value).any():
            points = stroke_points(strokes_zyx, value, spacing_mm) if strokes_zyx is not None else ()
            found.append(
                Item(
                    case=case,
                    structure=name,
                    value=value,
                    wanted_zyx=wanted_zyx == value,
                    spacing_mm=spacing_mm,
                    stroke_points=points,
                )
            )
    return tuple(found)


def _values(mask: Path, image) -> np.ndarray:
    return as_integers(stored_like(read_mask(mask), image).array)[0]


def _mask_of(folder: Path, case: str) -> Path:
    path = folder / f"{case}.nii.gz"
    if not path.is_file():
        raise UserError(f"{path}: no automatic mask; python -m bench refine base makes it")
    return path


def _scribbles(data: Path, name: str) -> dict[str, Path]:
    """Files of real strokes, by case."""
    if name not in SCRIBBLES:
        return {}
    return {path.name.removesuffix(".nii.gz"): path for path in (raw_folder(data, name) / SCRIBBLES[name]).iterdir()}

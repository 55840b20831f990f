"""The reference values, and the features of a grid of levels in the form of those: by family and aggregation."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segfw.radiomics.all_features import texture_features
from segfw.radiomics.cooccurrence import cooccurrence_features, cooccurrence_matrices
from segfw.radiomics.grey_runs import run_features, run_tables
from segfw.radiomics.intensity_features import histogram_features
from segfw.radiomics.level_grid import LevelGrid

DATA = Path(__file__).parents[1] / "data" / "radiomics"
BY_DIRECTION = ("glcm", "glrlm")
# Slices of the digital phantom, rows separated by blanks, x outside of the region
SLICES = (
    "14411 14611 41641 44641",
    "14411 11611 x1311 44611",
    "144xx 11111 11x11 11611",
    "144xx 11111 11111 11611",
)
EDGE_MM = 2.0


def phantom_levels() -> np.ndarray:
    """The digital phantom (Z, Y, X), 0 outside of its region."""
    rows = np.array([[list(row) for row in each.split()] for each in SLICES])
    return np.where(rows == "x", "0", rows).astype(np.int64)


def values_of(name: str, **wanted: str) -> list[dict[str, str]]:
    """Rows of a table in which some columns have some values."""
    with open(DATA / name, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def all_of_grid(grid: LevelGrid, levels: int, prefix: str) -> dict[tuple[str, str], Mapping[str, float | None]]:
    """All families of a grid, merged and averaged over directions; ``prefix`` is 3d or 2.5d."""
    found: dict[tuple[str, str], Mapping[str, float | None]] = {("histogram", ""): histogram_features(grid.levels)}
    for family, features in texture_features(grid, levels).items():
        found[family, f"{prefix}_merged" if family in BY_DIRECTION else prefix] = features
    of_pairs = [cooccurrence_features(matrix, levels) for matrix in cooccurrence_matrices(grid)]
    of_runs = [run_features(table) for table in run_tables(grid)]
    found["glcm", f"{prefix}_averaged"] = averaged(of_pairs)
    found["glrlm", f"{prefix}_averaged"] = averaged(of_runs)
    return found


def averaged(features: list[dict]) -> dict[str, float]:
    """The mean over directions, as pyradiomics has it; nobody but tests averages."""
    return {name: float(np.mean([each[name] for each in features])) for name in features[0]}

"""Tables of features and outcomes, as ``measure --radiomics`` and people write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FEATURES = tuple(f"CT_glcm_feature_{number}_3d_merged_fbs25" for number in range(12))
STRUCTURES = ("liver", "tumour")
HEAD = ("case", "structure", "status", "reason", "settings", *FEATURES)


def write_cohort(
    folder: Path, seed: int, patients: int = 80, settings: str = "a1b2c3d4", strength: float = 1.5
) -> Path:
    """measures.csv and patients.csv; the first feature of the liver and the age make the outcome."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ages = rng.normal(60, 10, patients)
    values = 200 + 50 * rng.normal(size=(patients, len(STRUCTURES), len(FEATURES)))
    log_odds = 3 * (values[:, 0, 0] - 200) / 50 + 0.08 * (ages - 60)
    died = rng.random(patients) < 1 / (1 + np.exp(-log_odds))
    with open(folder / "measures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for patient in range(patients):
            for place, structure in enumerate(STRUCTURES):
                cells = [f"{value:.6g}" for value in values[patient, place]]
                writer.writerow([name_of(patient), structure, "whole", "", settings, *cells])
    rows = [[name_of(each), int(died[each]), f"{ages[each]:.1f}", "FM"[each % 2]] for each in range(patients)]
    write_rows(folder / "patients.csv", [["case", "died", "age", "sex"], *rows])
    return folder


def name_of(patient: int) -> str:
    """Which no rule takes for several scans of one."""
    return f"case_{patient:03d}"


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """A CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def read_rows(path: Path) -> list[list[str]]:
    """All cells of a CSV file, its head first."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def change_cell(path: Path, line: int, column: str, value: str) -> None:
    """Puts a value in the place of another; the head is line 1."""
    rows = read_rows(path)
    rows[line - 1][rows[0].index(column)] = value
    write_rows(path, rows)

"""Ejection fraction and ratios of the heart from cine MRI: by an expert's masks, and by predicted ones against them.

    python -m bench heart [--data ../shared/data/cardiac_cine] [--predicted MASKS ...]

MASKS are folders of predicted masks of some of the patients, such as the ``validation/masks`` of every fold, so that
each patient is predicted by a model that never saw it. All figures are of masks as ``segfw measure`` measures them.
The spacing of the shared set is nominal: shares and ratios are right, millilitres would not be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from bench.figures import columns
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.pairs import masks_by_id
from segfw.measurements.cohort_measures import Measures
from segfw.verbs.measure import measure

LABELS = LabelSet(names=("background", "right ventricle", "myocardium", "left ventricle"), values=(0, 1, 2, 3))
RIGHT, MUSCLE, LEFT = LABELS.names[1:]
PATIENT = "(patient[0-9]+)_"
TITLES = {
    "left_ejection": "ejection fraction, left",
    "right_ejection": "ejection fraction, right",
    "muscle_to_left": "myocardium / left ventricle",
    "right_to_left": "right / left ventricle",
}


@dataclass(frozen=True, kw_only=True)
class Heart:
    """Shares and ratios of one patient; ratios are at the end of diastole, when the left ventricle is larger."""

    left_ejection: float
    right_ejection: float
    muscle_to_left: float
    right_to_left: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench heart", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cardiac_cine"))
    parser.add_argument("--predicted", type=Path, nargs="*", default=[], help="folders of predicted masks")
    args = parser.parse_args(arguments)
    if not (args.data / "labels").is_dir():
        sys.exit(f"{args.data}: no such data set; give cine MRI of the heart with --data. Nothing was measured.")
    expert = hearts_of([args.data / "labels"])
    print(f"By the expert's masks, {len(expert)} patients:")
    print(spread_table(expert))
    if args.predicted:
        predicted = hearts_of(args.predicted)
        both = {patient: heart for patient, heart in predicted.items() if patient in expert}
        found = f"{len(both)} patients of whom both phases and all three structures were found"
        print(f"\nBy predicted masks of {found}, predicted less expert:")
        print(agreement_table(expert, both))
    print("\nSo few patients of one centre say how well masks agree, and nothing of how well a diagnosis would be.")


def hearts_of(folders: Sequence[Path]) -> dict[str, Heart]:
    """Every patient of whom two phases are in one of the folders and hold all structures."""
    found: dict[str, Heart] = {}
    for folder in folders:
        with tempfile.TemporaryDirectory() as place:
            names = Path(place) / "masks"
            names.mkdir()
            for path in masks_by_id(folder).values():
                (names / path.name).symlink_to(path.resolve())
            LABELS.save(names / LABELS_FILE)
            found |= _hearts(measure(names, Path(place) / "measures.csv", by_patient=PATIENT))
    return dict(sorted(found.items()))


def _hearts(measures: Measures) -> dict[str, Heart]:
    pairs: dict[str, dict[str, tuple[float, float]]] = {}
    for each in measures.time_points:
        if each.first_size is not None and each.second_size is not None:
            pairs.setdefault(each.patient, {})[each.structure] = (each.first_size, each.second_size)
    falls = {(each.patient, each.structure): each.fall for each in measures.time_points}
    found = {}
    for patient, sizes in pairs.items():
        if sizes.keys() != {RIGHT, MUSCLE, LEFT}:
            continue
        diastole = int(np.argmax(sizes[LEFT]))
        left_ejection = falls[patient, LEFT]
        right_ejection = falls[patient, RIGHT]
        assert left_ejection is not None
        assert right_ejection is not None
        found[patient] = Heart(
            left_ejection=left_ejection,
            right_ejection=right_ejection,
            muscle_to_left=sizes[MUSCLE][diastole] / sizes[LEFT][diastole],
            right_to_left=sizes[RIGHT][diastole] / sizes[LEFT][diastole],
        )
    return found


def spread_table(hearts: Mapping[str, Heart]) -> str:
    """Median and range of each figure."""
    rows = [["", "median", "from", "to"]]
    for name in (each.name for each in fields(Heart)):
        values = [getattr(heart, name) for heart in hearts.values()]
        rows.append([TITLES[name], *(f"{value:.3f}" for value in (np.median(values), min(values), max(values)))])
    return columns(rows)


def agreement_table(expert: Mapping[str, Heart], predicted: Mapping[str, Heart]) -> str:
    """Bias and limits of agreement (bias and 1.96 standard deviations to either side; Bland and Altman 1986)."""
    rows = [["", "bias", "limits of agreement", "", "largest"]]
    for name in (each.name for each in fields(Heart)):
        differences = [getattr(heart, name) - getattr(expert[patient], name) for patient, heart in predicted.items()]
        bias = float(np.mean(differences))
        reach = 1.96 * float(np.std(differences, ddof=1)) if len(differences) > 1 else float("nan")
        largest = max(differences, key=abs)
        rows.append([TITLES[name], *(f"{value:+.3f}" for value in (bias, bias - reach, bias + reach, largest))])
    return columns(rows)

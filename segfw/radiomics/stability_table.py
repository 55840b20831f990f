"""Which features are the same again when image and mask change a little, and which only repeat the volume.

Patients are the unit. Scans of one patient are alike, and counted as cases of their own they would make intervals too
narrow; so of each patient one scan is taken, by structure the first one that has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from segfw.base.records import Record
from segfw.radiomics.features_records import CaseFeatures, Row, StructureFeatures
from segfw.radiomics.repeatability import (
    FEWEST_CASES,
    FOLLOWS_VOLUME,
    Agreement,
    Verdict,
    icc_1_1,
    rank_correlation,
    verdict_of,
)

VOLUME = "morphology_approximate_volume"


class FeatureStability(Record):
    """One feature of one structure, over the patients who have it: whole, or in ``n_cut`` of them cut by the border.

    ``icc_image`` is over changed versions of image and mask, ``icc_folds`` over the masks of the model's folds; ``low``
    is the lower end of the 95 % interval, which the verdict goes by, of both the lower one. What is not known, as of
    fewer than 10 patients, is None.
    """

    structure: str
    feature: str
    icc_image: float | None = None
    icc_image_low: float | None = None
    icc_folds: float | None = None
    icc_folds_low: float | None = None
    n: int
    n_cut: int = 0
    n_folds: int = 0
    verdict: Verdict = ""
    rho_volume: float | None = None
    follows_volume: bool = False


def stability_of(
    cases: Mapping[str, CaseFeatures], names: Sequence[str], patient_of: Mapping[str, str] | None = None
) -> list[FeatureStability]:
    """Every feature of every structure, in the order of structures and names.

    ``patient_of`` is by case; without it each case is a patient of its own.
    """
    by_structure: dict[str, dict[str, StructureFeatures]] = {}
    for name, case in cases.items():
        patient = name if patient_of is None else patient_of[name]
        for each in case.structures:
            of_patients = by_structure.setdefault(each.structure, {})
            if each.values:
                of_patients.setdefault(patient, each)
    found: list[FeatureStability] = []
    for structure, of_patients in by_structure.items():
        found += _of_structure(structure, list(of_patients.values()), names)
    return found


def _of_structure(structure: str, told: Sequence[StructureFeatures], names: Sequence[str]) -> list[FeatureStability]:
    values = _table([each.values for each in told], len(names))
    versions = _repeats([each.versions for each in told], len(names))
    folds = _repeats([each.folds for each in told], len(names))
    volumes = values[:, list(names).index(VOLUME)]
    is_cut = np.array([each.status == "cut" for each in told], bool)
    rows = []
    for index, name in enumerate(names):
        image, cases = _agreement(versions[:, :, index])
        of_folds, cases_of_folds = _agreement(folds[:, :, index])
        lows = [each.low for each in (image, of_folds) if each is not None]
        is_known = np.isfinite(values[:, index]) & np.isfinite(volumes)
        rho = None
        if is_known.sum() >= FEWEST_CASES and name != VOLUME:
            rho = rank_correlation(values[is_known, index], volumes[is_known])
        rows.append(
            FeatureStability(
                structure=structure,
                feature=name,
                icc_image=None if image is None else image.icc,
                icc_image_low=None if image is None else image.low,
                icc_folds=None if of_folds is None else of_folds.icc,
                icc_folds_low=None if of_folds is None else of_folds.low,
                n=cases if versions.size else int(is_known.sum()),
                n_cut=int((is_known & is_cut).sum()),
                n_folds=cases_of_folds,
                verdict=verdict_of(min(lows, default=None) if image is not None else None),
                rho_volume=rho,
                follows_volume=rho is not None and abs(rho) > FOLLOWS_VOLUME,
            )
        )
    return rows


def _table(rows: Sequence[Row], width: int) -> np.ndarray:
    """Rows as numbers (N, width); what is None, and all of a row that is empty, is no number."""
    table = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        if row:
            table[index] = np.array(row, dtype=np.float64)
    return table


def _repeats(rows: Sequence[Sequence[Row]], width: int) -> np.ndarray:
    """(cases, repeats, width) of the cases with as many repeats as most have; none where most have none."""
    most = Counter(len(each) for each in rows if each).most_common(1)
    if not most:
        return np.empty((0, 0, width))
    number = most[0][0]
    return np.stack([_table(each, width) for each in rows if len(each) == number])


def _agreement(values_nk: np.ndarray) -> tuple[Agreement | None, int]:
    """Of the cases in which all repeats have a value, and how many those are; None for fewer than 10."""
    if not values_nk.size:
        return None, 0
    complete = values_nk[np.isfinite(values_nk).all(1)]
    return (icc_1_1(complete) if len(complete) >= FEWEST_CASES else None), len(complete)

"""Whether intervals of volumes and plausible masks keep their promises, on the cases of a calibrated work folder.

    python -m bench plausible WORK [--kept IMAGES LABELS] [--groups CSV|REGEX] [--splits 20] [--work FOLDER]

Of WORK, which ``segfw calibrate`` was called for, only what it kept of each case is read. Patients are split in halves
again and again: intervals and thresholds are fitted on one half and tried on the other, each case by the fold that
never saw it. Where half of the patients are too few for an interval, each is left out in turn and tried by all others:
as many splits as patients. That says how wide intervals are, and next to nothing of coverage: the limit is then the
largest of all others, and all patients but one lie within. With --kept the model itself, all folds, predicts images of
patients that nothing was fitted on, with ``predict --plausible``, and its masks are compared with those of LABELS on
their own grid. Drawn volumes with heavy tails say what intervals do where everything is as the theory wants it. An
image counts by its patient's share.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.figures import columns
from bench.gate import Figure
from segfw.base.files import write_text
from segfw.base.progress import progress
from segfw.base.records import Record, UserError
from segfw.dataset.patients import read_groups
from segfw.evaluation.pairs import masks_by_id
from segfw.images.formats import read_mask
from segfw.images.volume import stored_like
from segfw.inference.prediction_options import PredictOptions
from segfw.model.load import load_model
from segfw.model.source import QUALITY_FILE
from segfw.quality.calibration_pass import CalibratedCase
from segfw.quality.nearest_cases import CALIBRATION_FOLDER
from segfw.quality.patient_quantile import patient_weights
from segfw.quality.plausible_masks import PLAUSIBLE_FOLDER, PlausibleCase
from segfw.quality.plausible_thresholds import StructureHistogram, fit_plausible, level_edges
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.volume_intervals import VolumeInterval, fit_volume_interval
from segfw.verbs.predict import predict

SIMULATED_DRAWS = 2000
SIMULATED_PATIENTS = 70
ALPHA = 0.1
FEWEST_PATIENTS = 9  # of whom an interval for ALPHA can be fitted


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One structure in one case: volumes by shift, (true, predicted) in ml, and levels of the clean image."""

    patient: str
    volumes_ml: Mapping[str, tuple[float, float]]
    histogram: StructureHistogram


class StructureFigures(Record):
    """Means over splits, with the range of nine tenths of them."""

    structure: str
    coverage: Figure  # of true volumes by the intervals
    factor: Figure
    shifted_coverage: dict[str, Figure]
    without_masks: int  # splits in which no threshold keeps the promise
    missed: Figure | None  # share of the reference that outer masks miss, mean over patients
    false: Figure | None  # voxels of inner masks outside of the reference, in shares of it
    outer_ratio: Figure | None  # median of outer over mask
    inner_ratio: Figure | None


class KeptFigures(Record):
    """Of patients that nothing was fitted on, by all folds together: means over patients and their standard errors."""

    structure: str
    patients: int
    coverage: float
    missed: float
    missed_se: float
    false: float
    false_se: float
    outer_ratio: float
    inner_ratio: float
    has_masks: bool = True  # else there are intervals of volumes alone, and the figures of masks say nothing


class PlausibleFigures(Record):
    """All that was seen on one set."""

    patients: int
    splits: int
    simulated_coverage: float
    structures: tuple[StructureFigures, ...]
    kept: tuple[KeptFigures, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench plausible", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("calibrated", type=Path, metavar="WORK")
    parser.add_argument("--kept", type=Path, nargs=2, metavar=("IMAGES", "LABELS"))
    parser.add_argument("--groups", help="CSV or regular expression that tells the patient of a case")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--work", type=Path, default=Path("plausible_masks"), help="where kept cases are predicted to")
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    args = parser.parse_args(arguments)
    tried = _tried(args.calibrated, args.groups)
    kept: tuple[KeptFigures, ...] = ()
    if args.kept is not None:
        predict(args.calibrated, args.kept[0], args.work, PredictOptions(device="cpu", plausible=True))
        kept = kept_figures(args.calibrated, args.work, args.kept[1], args.groups)
    found = []
    for name, cases in tried.items():
        try:
            found.append(structure_figures(name, cases, args.splits))
        except UserError as error:  # the others have figures
            print(f"note: {error}")
    figures = PlausibleFigures(
        patients=len({one.patient for structure in tried.values() for one in structure}),
        splits=args.splits,
        simulated_coverage=simulated_coverage(SIMULATED_DRAWS, SIMULATED_PATIENTS),
        structures=tuple(found),
        kept=kept,
    )
    if args.output is not None:
        write_text(args.output, figures.model_dump_json(indent=1) + "\n")
    print(plausible_table(figures))


def _tried(work: Path, groups: str | None) -> dict[str, list[Tried]]:
    """Every structure in every case that calibration kept; UserError if there is none."""
    configuration = QualityModel.load(work / QUALITY_FILE).identity.configuration
    files = sorted((work / CALIBRATION_FOLDER / configuration).glob("[!.]*.json"))
    cases = [CalibratedCase.load(file) for file in files]
    cases = [case for case in cases if case.histograms]
    if not cases:
        raise UserError(f"{work}: holds no calibration cases; run segfw calibrate first")
    patient_of = read_groups(groups, [case.case for case in cases])
    tried: dict[str, list[Tried]] = {}
    for case in cases:
        for name, histogram in case.histograms.items():
            volumes = {}
            for each in case.passes:
                measured = next(iter(each.folds.values()))[name]
                volumes[each.shift] = (measured.true_ml, measured.predicted_ml)
            one = Tried(patient=patient_of[case.case], volumes_ml=volumes, histogram=histogram)
            tried.setdefault(name, []).append(one)
    return tried


def structure_figures(structure: str, cases: Sequence[Tried], splits: int, seed: int = 0) -> StructureFigures:
    """Fitted on half of the patients and tried on the others, so many times, or by leaving each patient out.

    UserError if all patients but one are too few for an interval.
    """
    patients = sorted({case.patient for case in cases})
    shifts = sorted({shift for case in cases for shift in case.volumes_ml} - {CLEAN})
    seen: dict[str, list[float]] = {}
    without_masks = 0
    for chosen in fitting_patients(patients, splits, seed):
        fitted = [case for case in cases if case.patient in chosen]
        others = [case for case in cases if case.patient not in chosen]
        interval = _interval(fitted)
        thresholds = fit_plausible([case.histogram for case in fitted], [case.patient for case in fitted])
        if interval.factor is None:
            raise UserError(f"{structure}: {len(chosen)} of {len(patients)} patients are too few for an interval")
        found = {"factor": interval.factor, "coverage": coverage(interval, others, CLEAN)}
        found |= {f"coverage {shift}": coverage(interval, others, shift) for shift in shifts}
        if thresholds.outer is None or thresholds.inner is None:
            without_masks += 1
        else:
            found |= _of_masks(others, thresholds.outer, thresholds.inner)
        for name, value in found.items():
            seen.setdefault(name, []).append(value)
    figures = {name: Figure.of([value for value in values if np.isfinite(value)]) for name, values in seen.items()}
    return StructureFigures(
        structure=structure,
        coverage=figures["coverage"],
        factor=figures["factor"],
        shifted_coverage={shift: figures[f"coverage {shift}"] for shift in shifts},
        without_masks=without_masks,
        missed=figures.get("missed"),
        false=figures.get("false"),
        outer_ratio=figures.get("outer ratio"),
        inner_ratio=figures.get("inner ratio"),
    )


def fitting_patients(patients: Sequence[str], splits: int, seed: int = 0) -> list[set[str]]:
    """Who is fitted on in each split: a drawn half, or where that is too few all but one."""
    half = len(patients) // 2
    if half < FEWEST_PATIENTS:
        return [{*patients} - {own} for own in patients]
    orders = [np.random.default_rng([seed, split]).permutation(len(patients)) for split in range(splits)]
    return [{patients[index] for index in order[:half]} for order in orders]


def _interval(cases: Sequence[Tried]) -> VolumeInterval:
    true, predicted = zip(*(case.volumes_ml[CLEAN] for case in cases))
    return fit_volume_interval(true, predicted, [case.patient for case in cases], ALPHA)


def coverage(interval: VolumeInterval, cases: Sequence[Tried], shift: str) -> float:
    """Share of true volumes inside, of cases in which the structure is and was found; NaN if there is none."""
    inside = []
    patients = []
    for case in cases:
        true, predicted = case.volumes_ml.get(shift, (0.0, 0.0))
        bounds = interval.of(predicted)
        if true > 0 and bounds is not None:
            inside.append(bounds[0] <= true <= bounds[1])
            patients.append(case.patient)
    return _mean(inside, patients)


def _of_masks(cases: Sequence[Tried], outer: float, inner: float) -> dict[str, float]:
    """What masks from these log-odds on miss and have too much, by voxels of the network's grid."""
    edges = level_edges()
    is_outer = edges >= outer - 1e-9
    is_inner = edges >= inner - 1e-9
    there = [case for case in cases if sum(case.histogram.inside)]
    patients = [case.patient for case in there]
    inside_nl = np.array([case.histogram.inside for case in there], dtype=np.float64)
    outside_nl = np.array([case.histogram.outside for case in there], dtype=np.float64)
    mask_n = np.maximum([case.histogram.mask_voxels for case in there], 1)
    reference_n = inside_nl.sum(1)
    both_nl = inside_nl + outside_nl
    return {
        "missed": _mean(inside_nl[:, ~is_outer].sum(1) / reference_n, patients),
        "false": _mean(np.minimum(outside_nl[:, is_inner].sum(1) / reference_n, 1), patients),
        "outer ratio": float(np.median(both_nl[:, is_outer].sum(1) / mask_n)),
        "inner ratio": float(np.median(both_nl[:, is_inner].sum(1) / mask_n)),
    }


def _mean(values: Sequence[float] | np.ndarray, patients: Sequence[str]) -> float:
    if len(values) == 0:
        return float("nan")
    return float(np.average(np.asarray(values, dtype=np.float64), weights=patient_weights(patients)))


def simulated_coverage(draws: int, patients: int, seed: int = 0) -> float:
    """Share of new volumes inside of intervals fitted on drawn ones, with the tails of Student's t of 3 degrees."""
    rng = np.random.default_rng(seed)
    names = [str(index) for index in range(patients)]
    inside = 0
    for _ in range(draws):
        errors = 0.15 * rng.standard_t(3, patients + 1)
        interval = fit_volume_interval(np.exp(errors[:-1]).tolist(), [1.0] * patients, names, ALPHA)
        bounds = interval.of(1.0)
        assert bounds is not None
        inside += bounds[0] <= float(np.exp(errors[-1])) <= bounds[1]
    return inside / draws


def kept_figures(work: Path, masks: Path, labels: Path, groups: str | None) -> tuple[KeptFigures, ...]:
    """Masks that ``predict --plausible`` wrote against references of the same names, on the files' own grids."""
    quality = QualityModel.load(work / QUALITY_FILE)
    label_set = load_model(work, quality.identity.configuration).plan.labels
    references = masks_by_id(labels)
    predicted = {case: path for case, path in masks_by_id(masks).items() if case in references}
    patient_of = read_groups(groups, list(predicted))
    rows: dict[str, list[tuple[str, float, float, float, float, float]]] = {}
    without_masks: set[str] = set()
    for case, path in progress("comparing", sorted(predicted.items())):
        listed = PlausibleCase.load(masks / PLAUSIBLE_FOLDER / f"{case}.json")
        mask = read_mask(path)
        reference = stored_like(read_mask(references[case]), mask).array[0]
        inner = read_mask(masks / PLAUSIBLE_FOLDER / f"{case}_inner.nii.gz").array[0]
        outer_of = {name: file for file in listed.files for name in label_set.structures if file.endswith(_outer(name))}
        alone = [file for file in listed.files if file.startswith(f"{case}_outer.")]
        for name, classes in label_set.structures.items():
            value = label_set.values[classes[0]]
            is_there = reference == value
            if not is_there.any():
                continue
            file = outer_of.get(name) or next(iter(alone), None)
            if file is None:  # no threshold keeps the promise: there is an interval of its volume alone
                without_masks.add(name)
                is_outer = np.zeros_like(is_there)
            else:
                is_outer = read_mask(masks / PLAUSIBLE_FOLDER / file).array[0] == value
            is_mask = mask.array[0] == value
            is_inner = inner == value
            bounds = quality.volumes[name].of(float(is_mask.sum()))
            row = (
                patient_of[case],
                float(bounds is not None and bounds[0] <= is_there.sum() <= bounds[1]),
                float((is_there & ~is_outer).sum() / is_there.sum()),
                min(1.0, float((is_inner & ~is_there).sum() / is_there.sum())),
                float(is_outer.sum() / max(1, is_mask.sum())),
                float(is_inner.sum() / max(1, is_mask.sum())),
            )
            rows.setdefault(name, []).append(row)
    return tuple(_kept(name, found, has_masks=name not in without_masks) for name, found in rows.items())


def _outer(structure: str) -> str:
    return f"_outer_{structure}.nii.gz"


def _kept(
    structure: str, rows: Sequence[tuple[str, float, float, float, float, float]], *, has_masks: bool
) -> KeptFigures:
    patients = [row[0] for row in rows]
    values = np.array([row[1:] for row in rows])
    weights = patient_weights(patients)
    names = sorted(set(patients))
    # One value a patient, the mean of its images.
    of_patients = np.array([values[[patient == name for patient in patients]].mean(0) for name in names])
    errors = of_patients.std(0, ddof=1) / np.sqrt(len(names))
    means = np.average(values, axis=0, weights=weights)
    return KeptFigures(
        structure=structure,
        patients=len(names),
        coverage=float(means[0]),
        missed=float(means[1]),
        missed_se=float(errors[1]),
        false=float(means[2]),
        false_se=float(errors[2]),
        outer_ratio=float(np.median(values[:, 3])),
        inner_ratio=float(np.median(values[:, 4])),
        has_masks=has_masks,
    )


def _how_split(figures: PlausibleFigures) -> str:
    if figures.patients // 2 < FEWEST_PATIENTS:
        return "each left out in turn"
    return f"fitted on half of them and tried on the others, {figures.splits} splits"


def plausible_table(figures: PlausibleFigures) -> str:
    """All figures as text."""
    lines = [
        f"simulated: {figures.simulated_coverage:.3f} of {SIMULATED_DRAWS} new volumes inside of intervals of "
        f"{SIMULATED_PATIENTS} patients, nominal {1 - ALPHA}",
        f"{figures.patients} patients, {_how_split(figures)}:",
    ]
    rows = [["", "true volume inside", "factor", "outer misses", "inner is wrong by", "outer / mask", "inner / mask"]]
    for one in figures.structures:
        shown = (one.coverage, one.factor, one.missed, one.false, one.outer_ratio, one.inner_ratio)
        rows.append([one.structure, *("-" if figure is None else figure.text for figure in shown)])
    lines.append(columns(rows))
    for one in figures.structures:
        if one.without_masks:
            lines.append(f"{one.structure}: in {one.without_masks} splits no threshold keeps the promise")
    shifts = sorted({shift for one in figures.structures for shift in one.shifted_coverage})
    if shifts:
        lines.append("true volume inside where images are spoilt (simulated shifts; nothing is promised of them):")
        rows = [["", *shifts]]
        for one in figures.structures:
            rows.append([one.structure, *(f"{one.shifted_coverage[shift].mean:.3f}" for shift in shifts)])
        lines.append(columns(rows))
    if figures.kept:
        lines.append("patients that nothing was fitted on, by all folds together (mean, standard error):")
        rows = [["", "patients", "inside", "outer misses", "inner is wrong by", "outer / mask", "inner / mask"]]
        for kept in figures.kept:
            missed = f"{kept.missed:.3f} ({kept.missed_se:.3f})"
            false = f"{kept.false:.3f} ({kept.false_se:.3f})"
            ratios = (f"{kept.outer_ratio:.2f}", f"{kept.inner_ratio:.2f}")
            of_masks = [missed, false, *ratios] if kept.has_masks else ["-"] * 4
            rows.append([kept.structure, str(kept.patients), f"{kept.coverage:.3f}", *of_masks])
        lines.append(columns(rows))
    return "\n".join(lines)

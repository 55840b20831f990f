"""Whether the input gate calls images odd that are not, and which simulated shifts it sees: no network is needed.

    python -m bench gate WORK [--images FOLDER] [--configuration NAME] [--splits 20]

WORK is a work folder, of which only the plan is used: how images are brought to the network's grid. Without --images
its own cases are taken. Patients are split again and again: the gate is fitted on two thirds of them, and looks at the
images of the others as they are and spoilt in every way that ``segfw calibrate`` spoils them, at drawn strengths.
Figures are means over splits, with the range that holds nine tenths of the splits. An image counts by its patient's
share. The shifts are simulated: a real change of scanner is another thing.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from bench.figures import columns
from segfw.base.file_names import PLAN_FILE
from segfw.base.files import write_text
from segfw.base.progress import progress
from segfw.base.records import Record, UserError
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest
from segfw.dataset.new_images import find_images
from segfw.dataset.patients import read_groups
from segfw.grid.preprocess import preprocess_image, stack_channels
from segfw.images.formats import read_volume
from segfw.perturbations.spoiling import SHIFTS, spoilt
from segfw.planning.plan import Plan
from segfw.quality.image_fingerprint import Fingerprint, image_fingerprint
from segfw.quality.input_gate import FEWEST_PATIENTS, GateVerdict, fit_gate
from segfw.quality.patient_quantile import patient_weights

CLEAN = "clean"
FITTED_SHARE = 2 / 3
MISSED_BELOW = 0.7  # AUROC
RANGE = (5, 95)  # percent of the splits


class Figure(Record):
    """A mean over splits, and the range that holds nine tenths of them."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Figure:
        low, high = np.percentile(values, RANGE)
        return Figure(mean=float(np.mean(values)), low=float(low), high=float(high))

    @property
    def text(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ShiftFigures(Record):
    """How often images spoilt in one way are not usual, and far; how well scores tell them from clean ones."""

    flagged: Figure
    far: Figure
    auroc: Figure | None  # of clean images there is none
    reason: str  # that was given most often first


class GateFigures(Record):
    """What was seen on one set of images."""

    images: int
    patients: int
    fitted_patients: int
    splits: int
    shifts: dict[str, ShiftFigures]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Fingerprints of one image, as it is and spoilt."""

    patient: str
    by_shift: Mapping[str, Fingerprint]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=Path, help="folder of images (default: the cases of WORK)")
    parser.add_argument("--groups", help="CSV or regular expression that tells the patient of a case")
    parser.add_argument("--configuration", help="default: the plan's first one")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON of all figures")
    args = parser.parse_args(arguments)
    plan = Plan.load(args.work / PLAN_FILE)
    if args.images is None:
        cases = list(DatasetManifest.load(args.work / MANIFEST_FILE).cases)
    else:
        cases = find_images(args.images, plan.channels)
    patient_of = read_groups(args.groups, [case.id for case in cases])
    configuration = args.configuration or next(iter(plan.configurations))
    seen = [_seen(case, patient_of[case.id], plan, configuration) for case in progress("looking", cases)]
    figures = gate_figures(seen, args.splits)
    if args.output is not None:
        write_text(args.output, figures.model_dump_json(indent=1) + "\n")
    print(gate_table(figures))


def _seen(case: Case, patient: str, plan: Plan, configuration: str) -> Seen:
    """The same strengths for a case in every call."""
    volume = stack_channels([read_volume(path) for path in case.images])
    preprocessing = plan.configuration(configuration).preprocessing
    found = {CLEAN: image_fingerprint(*preprocess_image(volume, preprocessing))}
    for number, shift in enumerate(SHIFTS):
        rng = np.random.default_rng([number, *case.id.encode()])
        changed, _ = spoilt(volume, None, shift, rng)
        found[shift] = image_fingerprint(*preprocess_image(changed, preprocessing))
    return Seen(patient=patient, by_shift=found)


def gate_figures(seen: Sequence[Seen], splits: int, seed: int = 0) -> GateFigures:
    """Figures over so many splits by patient; UserError if there are too few patients to fit a gate."""
    patients = sorted({image.patient for image in seen})
    fitted = round(FITTED_SHARE * len(patients))
    if fitted < FEWEST_PATIENTS or fitted == len(patients):
        raise UserError(f"{len(patients)} patients are too few: two thirds of them must be at least {FEWEST_PATIENTS}")
    shifts = list(seen[0].by_shift)
    flagged: dict[str, list[float]] = {shift: [] for shift in shifts}
    far: dict[str, list[float]] = {shift: [] for shift in shifts}
    aurocs: dict[str, list[float]] = {shift: [] for shift in shifts}
    reasons: dict[str, Counter[str]] = {shift: Counter() for shift in shifts}
    for split in progress("splitting", range(splits)):
        order = np.random.default_rng([seed, split]).permutation(len(patients))
        chosen = {patients[index] for index in order[:fitted]}
        of_training = [image for image in seen if image.patient in chosen]
        others = [image for image in seen if image.patient not in chosen]
        gate = fit_gate([image.by_shift[CLEAN] for image in of_training], [image.patient for image in of_training])
        assert gate is not None
        weights_n = patient_weights([image.patient for image in others])
        weights_n /= weights_n.sum()
        clean = [verdict.score for verdict in gate.look_at([image.by_shift[CLEAN] for image in others])]
        for shift in shifts:
            verdicts = gate.look_at([image.by_shift[shift] for image in others])
            flagged[shift].append(_share(verdicts, weights_n, ("odd", "far")))
            far[shift].append(_share(verdicts, weights_n, ("far",)))
            aurocs[shift].append(auroc(clean, [verdict.score for verdict in verdicts]))
            reasons[shift].update(verdict.reasons[0] for verdict in verdicts if verdict.reasons)
    return GateFigures(
        images=len(seen),
        patients=len(patients),
        fitted_patients=fitted,
        splits=splits,
        shifts={
            shift: ShiftFigures(
                flagged=Figure.of(flagged[shift]),
                far=Figure.of(far[shift]),
                auroc=None if shift == CLEAN else Figure.of(aurocs[shift]),
                reason=_usual_reason(reasons[shift]),
            )
            for shift in shifts
        },
    )


def auroc(lower: Sequence[float], higher: Sequence[float]) -> float:
    """How often one of ``higher`` is above one of ``lower``, ties by half."""
    return float(mannwhitneyu(higher, lower).statistic) / (len(lower) * len(higher))


def _share(verdicts: Sequence[GateVerdict], weights_n: np.ndarray, names: tuple[str, ...]) -> float:
    return min(1.0, float(weights_n[[verdict.verdict in names for verdict in verdicts]].sum()))


def _usual_reason(reasons: Counter[str]) -> str:
    """The commonest reason, without its numbers and comparisons."""
    kinds: Counter[str] = Counter()
    for reason, number in reasons.items():
        kinds[reason.partition(" than ")[0].partition(" (")[0]] += number
    return kinds.most_common(1)[0][0] if kinds else "-"


def gate_table(figures: GateFigures) -> str:
    """All figures as text, and what is missed."""
    rows = [["", "not usual", "far", "AUROC", "commonest first reason"]]
    for shift, found in figures.shifts.items():
        told_apart = "" if found.auroc is None else found.auroc.text
        rows.append([shift, found.flagged.text, found.far.text, told_apart, found.reason])
    missed = [
        shift for shift, found in figures.shifts.items() if found.auroc is not None and found.auroc.mean < MISSED_BELOW
    ]
    lines = [
        f"{figures.images} images of {figures.patients} patients, {figures.fitted_patients} of them fitted on, "
        f"{figures.splits} splits; strengths of shifts are drawn, mild ones too",
        columns(rows),
        f"hardly seen (AUROC below {MISSED_BELOW}): {', '.join(missed) or 'none'}",
    ]
    return "\n".join(lines)

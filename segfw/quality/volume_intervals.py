"""The interval in which a structure's true volume lies, from the volume of its mask, calibrated on held-out cases.

The promise is on average over images like the training images: not for one patient, and not after a change of scanner.
Held-out cases are predicted by one fold each and new ones by the mean of all, which is better: intervals are rather
too wide. Dividing residuals by the spread of the folds' volumes would narrow them, but of a training case all folds
but one have seen the reference: their spread there is not that of new images, and is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from segfw.base.records import Record
from segfw.base.tables import shown_number
from segfw.base.words import figure
from segfw.quality.patient_quantile import patient_quantile

ALPHA = 0.1  # share of true volumes that may lie outside
TELLING_RATIO = 10.0  # of the ends of an interval: one that spans more does not tell how large a structure is


class VolumeInterval(Record):
    """How far the true volume of a structure may be from that of its mask: by a ``factor`` at most, either way.

    The promise holds for all but ``alpha`` of images like the training images in which the structure is and was found.
    ``factor`` is None where ``patients`` with both volumes are too few for it. ``missed`` cases had the structure and
    nothing was found, in ``invented`` ones it was found and is not there; of these no interval speaks.
    """

    alpha: float
    factor: float | None
    patients: int
    cases: int
    missed: int
    invented: int

    def of(self, volume_ml: float) -> tuple[float, float] | None:
        """Lower and upper end for the volume of a mask; None of an empty mask, and where patients were too few."""
        if self.factor is None or volume_ml <= 0:
            return None
        return volume_ml / self.factor, volume_ml * self.factor

    @property
    def text(self) -> str:
        """What it stands on, in words, such as 'nothing was found in 3 of 160 cases that have it'."""
        found = f"{self.cases} cases of {self.patients} patients"
        notes = []
        if self.missed:
            notes.append(f"nothing was found in {self.missed} of {self.cases + self.missed} cases that have it")
        if self.invented:
            notes.append(f"it was found in {self.invented} cases that do not have it")
        return "; ".join([found, *notes])


def interval_text(interval_ml: tuple[float, float] | None) -> str:
    """How an interval is told to people: '12.6 to 16.8'; what tells nothing says so; a dash where there is none."""
    if interval_ml is None:
        return shown_number(None)
    low, high = interval_ml
    if high > TELLING_RATIO * low:
        ends = f"{figure(_rounded(low, 2))} to {figure(_rounded(high, 2))}"
        return f"not known within a factor of {TELLING_RATIO:g} ({ends})"
    return f"{figure(_rounded(low, 3))} to {figure(_rounded(high, 3))}"


def _rounded(value: float, significant: int) -> float:
    return float(f"{value:.{significant}g}")


def fit_volume_interval(
    true_ml: Sequence[float], predicted_ml: Sequence[float], patients: Sequence[str], alpha: float = ALPHA
) -> VolumeInterval:
    """The interval of one structure from its volumes in held-out cases, 0 where it is not; each case of a patient.

    The factor is the exponential of the patients' quantile of | log(true / predicted) |, over cases where both are
    positive. Fewer than 9 patients have none at an ``alpha`` of 0.1. ValueError if the lists differ in length.
    """
    if not len(true_ml) == len(predicted_ml) == len(patients):
        raise ValueError(f"{len(true_ml)} and {len(predicted_ml)} volumes of {len(patients)} cases")
    residuals: list[float] = []
    of: list[str] = []
    missed = 0
    invented = 0
    for true, predicted, patient in zip(true_ml, predicted_ml, patients):
        if true > 0 and predicted > 0:
            residuals.append(abs(log(true / predicted)))
            of.append(patient)
        elif true > 0:
            missed += 1
        elif predicted > 0:
            invented += 1
    quantile = patient_quantile(residuals, of, 1 - alpha)
    return VolumeInterval(
        alpha=alpha,
        factor=exp(quantile) if quantile < float("inf") else None,
        patients=len(set(of)),
        cases=len(of),
        missed=missed,
        invented=invented,
    )

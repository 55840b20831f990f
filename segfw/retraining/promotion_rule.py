"""Whether a new model may take the place of the old one: new against control, in cases that neither was trained on.

The control arm began with the same weights and took the same steps, without a new label. What it gains, the extra
steps have gained; only what the new model has beyond that is due to the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.base.words import listed
from segfw.evaluation.compare import case_means, paired_tables
from segfw.evaluation.group_statistics import PatientSums
from segfw.evaluation.metrics import METRICS, LabelScore
from segfw.evaluation.statistics import LEAST_CASES, intervals
from segfw.model.promotion import MEAN, Gain

LIMIT_STRUCTURE = -0.01  # of Dice: the lower bound of every structure must lie above
LIMIT_MEAN = 0.0  # and that of the mean above this
DICE = list(METRICS).index("dice")
BOOTSTRAP_SEED = 0

CaseScores = Mapping[str, Mapping[str, LabelScore]]  # {case: {structure: score}}


@dataclass(frozen=True, kw_only=True)
class ThreeModels:
    """Scores of the same cases by all three models, and whose each case is."""

    base: CaseScores
    control: CaseScores
    new: CaseScores
    patient_of: Mapping[str, str]

    @property
    def cases(self) -> tuple[str, ...]:
        """Those that all three have scores of, sorted."""
        return tuple(sorted(self.base.keys() & self.control.keys() & self.new.keys()))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean difference of two models by a bootstrap over patients, and what it is of."""

    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    cases: int
    patients: int


def gains(models: ThreeModels, structures: Sequence[str]) -> tuple[list[Gain], Gain]:
    """What the new model has over the other two, of each structure and of the cases' means over structures.

    Raises ValueError where no case has scores by all three.
    """
    cases = models.cases
    if not cases:
        raise ValueError("no case has scores by all three models")
    new_nl, control_nl = _dice(models.new, models.control, cases, structures)
    again_nl, base_nl = _dice(models.new, models.base, cases, structures)
    patient_n = _numbered([models.patient_of.get(case, case) for case in cases])
    found = [
        _gain(
            name,
            paired_difference(new_nl[:, column], control_nl[:, column], patient_n),
            paired_difference(again_nl[:, column], base_nl[:, column], patient_n),
        )
        for column, name in enumerate(structures)
    ]
    over_control = paired_difference(*_means(new_nl, control_nl), patient_n)
    over_base = paired_difference(*_means(again_nl, base_nl), patient_n)
    return found, _gain(MEAN, over_control, over_base)


def verdict(structures: Sequence[Gain], mean: Gain) -> tuple[bool, str]:
    """Whether the new model is promoted, and why or why not."""
    if mean.low is None:
        return False, (
            f"there are {mean.patients} patients to judge by, and fewer than {LEAST_CASES} tell nothing; give others "
            "with --test"
        )
    if mean.low <= LIMIT_MEAN:
        return False, (
            f"over the control the mean Dice gained {mean.over_control:+.4f}, with 95 % from {mean.low:+.4f} to "
            f"{mean.high:+.4f}, which is not clearly above {LIMIT_MEAN:g}"
        )
    unknown = [each.structure for each in structures if each.low is None]
    if unknown:
        return False, f"{listed(unknown, 'and')}: in fewer than {LEAST_CASES} patients, too few to tell of a loss"
    lost = [each for each in structures if each.low is not None and each.low <= LIMIT_STRUCTURE]
    if lost:
        said = listed((f"{each.structure} ({each.low:+.4f})" for each in lost), "and")
        return (
            False,
            f"a loss of {-LIMIT_STRUCTURE:g} Dice or more cannot be ruled out (lower bound over control): {said}",
        )
    return True, (
        f"over the control the mean Dice gained {mean.over_control:+.4f} (95 % from {mean.low:+.4f} to "
        f"{mean.high:+.4f}), and no structure lost {-LIMIT_STRUCTURE:g}"
    )


def _dice(
    first: CaseScores, second: CaseScores, cases: Sequence[str], structures: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    first_nlm, second_nlm = paired_tables(first, second, cases, structures)
    return first_nlm[:, :, DICE], second_nlm[:, :, DICE]


def _means(first_nl: np.ndarray, second_nl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first_nm, second_nm = case_means(first_nl[:, :, None], second_nl[:, :, None])
    return first_nm[:, 0], second_nm[:, 0]


def _numbered(patients: Sequence[str]) -> np.ndarray:
    """The index of each case's patient among all."""
    return np.unique(np.array(patients), return_inverse=True)[1].reshape(-1)


def paired_difference(first_n: np.ndarray, second_n: np.ndarray, patient_n: np.ndarray) -> Difference | None:
    """None where no case has a value by both."""
    both_n = np.isfinite(first_n) & np.isfinite(second_n)
    if not both_n.any():
        return None
    patient_k = _numbered(patient_n[both_n].tolist())
    patients = int(patient_k.max()) + 1
    difference_k = (first_n - second_n)[both_n]
    sums = PatientSums.of(difference_k[:, None], patient_k, patients)
    resampled = sums.resampled_means(np.random.default_rng(BOOTSTRAP_SEED))
    difference = float(difference_k.mean())
    bounds = intervals(resampled, np.array([patients]))[0]
    low, high = (None, None) if bounds is None else widened(difference, bounds, patients)
    return Difference(
        first=float(first_n[both_n].mean()),
        second=float(second_n[both_n].mean()),
        difference=difference,
        low=low,
        high=high,
        cases=int(both_n.sum()),
        patients=patients,
    )


def widened(difference: float, bounds: tuple[float, float], patients: int) -> tuple[float, float]:
    """The interval with what a bootstrap does not know: a sample has less variance than what it is drawn from, and of
    few patients that is itself uncertain (Bessel's factor, and Student's t over the normal quantile).

    Without it the lower bound lay above 0 in 7 % of 1500 simulations of 5 or 6 patients without a gain, instead of
    2.5 %; with it in 2.4 and 2.7 %.
    """
    from scipy.stats import norm, t

    factor = float(np.sqrt(patients / (patients - 1)) * t.ppf(0.975, patients - 1) / norm.ppf(0.975))
    low, high = bounds
    return difference - factor * (difference - low), difference + factor * (high - difference)


def _gain(name: str, over_control: Difference | None, over_base: Difference | None) -> Gain:
    if over_control is None or over_base is None:
        return _no_gain(name)
    return Gain(
        structure=name,
        cases=over_control.cases,
        patients=over_control.patients,
        base=over_base.second,
        control=over_control.second,
        new=over_control.first,
        over_control=over_control.difference,
        low=over_control.low,
        high=over_control.high,
        over_base=over_base.difference,
        low_over_base=over_base.low,
        high_over_base=over_base.high,
    )


def _no_gain(name: str) -> Gain:
    """Of a structure that is in no mask of any case: nothing to compare."""
    return Gain(
        structure=name,
        cases=0,
        patients=0,
        base=0.0,
        control=0.0,
        new=0.0,
        over_control=0.0,
        low=None,
        high=None,
        over_base=0.0,
        low_over_base=None,
        high_over_base=None,
    )

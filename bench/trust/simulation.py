"""What the rule of 'use' releases, and how much of it is wrong, with patients as many as real sets here do not have.

Masks are made up: a Dice is drawn for each, and features that tell it with noise, as fitted on nothing. So this shows
that the fit and the rule keep their promise where it can be kept, and what they release then; how well features tell
Dice is an assumption, which the table states as the Spearman correlation that came out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.figures import markdown
from bench.trust.made_up_features import drawn_sureness, made_up_features
from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.quality_fitting import QualityRequest, fit_quality
from segfw.quality.quality_model import CLEAN, QualityItem
from segfw.quality.risk_coverage import spearman
from segfw.quality.selective_rule import CONFIDENCE

LABELS = LabelSet(names=("background", "organ"), values=(0, 1))
ORGAN = LABELS.names[1]
SHIFTS = ("noise", "blur")
TESTED = 1000  # new patients of each run
FAIL_BELOW = 0.7


class SimulationResult(Record):
    """Means over runs. ``broken`` is the share of runs in which more of the released masks are wrong than was promised,
    which may happen in 1 - CONFIDENCE of them."""

    patients: int
    failing: float  # share of clean masks
    noise: float
    runs: int
    target: float
    spearman: float
    runs_with_use: int
    good_released: float
    wrong_share: float
    broken: float
    covered: float


def simulate(patients: int, *, failing: float, noise: float, target: float, runs: int) -> SimulationResult:
    """Fits a quality model of made-up patients, clean and spoilt, and judges new clean ones by it, ``runs`` times."""
    ranks = []
    released = []
    wrong = []
    covered = []
    for run in range(runs):
        rng = np.random.default_rng([patients, run, round(1000 * failing), round(1000 * noise)])
        items = _items(patients, failing, noise, rng, (CLEAN, *SHIFTS))
        request = QualityRequest(fail_below={ORGAN: FAIL_BELOW}, use_target=target)
        model = fit_quality(items, LABELS, IDENTITY, {}, {}, request, made="2026-01-01", shifts=SHIFTS).model
        new = _items(TESTED, failing, noise, rng, (CLEAN,))
        dice = np.array([item.dice for item in new], float)
        said = [model.judge([{ORGAN: item.features}])[0] for item in new]
        ranks.append(spearman(np.array([one.predicted_dice or 0.0 for one in said]), dice) or np.nan)
        bounds = np.array([np.nan if one.lower_bound is None else one.lower_bound for one in said])
        covered.append(float((dice >= bounds).mean()))
        used = np.array([one.verdict == "use" for one in said])
        is_wrong = dice < FAIL_BELOW
        released.append(float(used[~is_wrong].mean()))
        wrong.append(float(is_wrong[used].mean()) if used.any() else np.nan)
    wrong_r = np.array(wrong)
    has_use = np.isfinite(wrong_r)
    return SimulationResult(
        patients=patients,
        failing=failing,
        noise=noise,
        runs=runs,
        target=target,
        spearman=float(np.mean(ranks)),
        runs_with_use=int(has_use.sum()),
        good_released=float(np.mean(released)),
        wrong_share=float(wrong_r[has_use].mean()) if has_use.any() else 0.0,
        broken=float((wrong_r[has_use] > target).sum()) / runs,
        covered=float(np.mean(covered)),
    )


IDENTITY = ModelIdentity(configuration="simulated", folds={"0": ""}, plan_digest="", structures=(ORGAN,))


def _items(
    patients: int, failing: float, noise: float, rng: np.random.Generator, shifts: Sequence[str]
) -> list[QualityItem]:
    """A mask of each patient and shift: Dice around 0.87, a share of failures, and half of the spoilt ones failures."""
    items = []
    for patient in range(patients):
        for shift in shifts:
            has_failed = rng.random() < (failing if shift == CLEAN else 0.5)
            dice = float(np.clip(rng.uniform(0.05, FAIL_BELOW) if has_failed else rng.beta(40, 6), 0.03, 0.97))
            if not has_failed:
                dice = max(dice, FAIL_BELOW)
            items.append(
                QualityItem(
                    case=f"case_{patient:04}",
                    patient=f"patient_{patient:04}",
                    structure=ORGAN,
                    fold="0",
                    shift=shift,
                    features=made_up_features(drawn_sureness(dice, noise, rng)),
                    dice=dice,
                    true_ml=1.0,
                    predicted_ml=1.0,
                )
            )
    return items


def simulation_table(results: Sequence[SimulationResult]) -> str:
    """A row per setting."""
    head = ["patients", "failing", "Spearman", "promised", "runs with 'use'", "good masks released"]
    head += ["wrong among released", f"promise broken (at most {1 - CONFIDENCE:.2f} of runs)", "bound covers"]
    rows = [head]
    for one in results:
        row = [str(one.patients), f"{one.failing:.0%}", f"{one.spearman:.2f}", f"{one.target:.0%}"]
        row += [f"{one.runs_with_use} of {one.runs}", f"{one.good_released:.2f}", f"{one.wrong_share:.3f}"]
        rows.append([*row, f"{one.broken:.2f}", f"{one.covered:.3f}"])
    return markdown(rows)

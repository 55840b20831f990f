"""How long a calibration would take, measured by one tile, for the line at the end of ``run`` and ``select``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.durations import MINUTE_S
from segfw.base.records import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.inference.held_out import seconds_per_case
from segfw.inference.predictor import Predictor
from segfw.inference.ranking import trained_validating_folds
from segfw.model.load import load_model
from segfw.planning.work_folder import load_plan_and_splits
from segfw.quality.calibration_pass import SHIFTS_OF_A_CASE
from segfw.quality.quality_fitting import LEAST_CASES


def calibration_line(work: Path, configurations: Sequence[str], device: str, groups: str | Path | None = None) -> str:
    """The command that calibrates what was trained or chosen, with its expected minutes; or why there is nothing to do.

    Parameters
    ----------
    work
        Work folder with trained folds.
    configurations
        Those that were trained, or that ``select`` chose.
    device
        On which the time is measured, and the command runs.
    groups
        Which cases are of one patient, where that was given. The command repeats it where the folds do not keep it:
        else those of one patient would count as several.

    Returns
    -------
    str
        A line for the console; '' where nothing can be said, because the folds are of networks that are not the
        plan's, or gone.
    """
    if len(configurations) != 1:
        return "note: quality is of one configuration; segfw calibrate --configuration tells how far its masks hold"
    name = configurations[0]
    try:
        plan, splits = load_plan_and_splits(work)
        folds = trained_validating_folds(work, name, splits)
        cases = len({case for fold in folds for case in splits.fold(fold).validation})
        if cases < LEAST_CASES:
            are = "is" if cases == 1 else "are"
            return (
                f"note: {count(cases, 'validation case')} {are} too few to learn from how far masks hold; segfw "
                f"calibrate needs {LEAST_CASES}"
            )
        model = load_model(work, name, folds[:1], previous_folds=folds[:1])
        seconds = seconds_per_case(Predictor.of(model, device=device, compile=False))
    except UserError:
        return ""
    minutes = max(1, round(cases * (1 + SHIFTS_OF_A_CASE) * seconds / MINUTE_S))
    words = ["segfw", "calibrate", work]
    if len([each for each in plan.predicting if trained_validating_folds(work, each, splits)]) > 1:
        words += ["--configuration", name]
    if device != "auto":
        words += ["--device", device]
    if groups is not None and splits.patient_of is None:
        words += ["--groups", groups]
    return f"how far each mask can be trusted, after about {minutes} min: {shell_line(*words)}"

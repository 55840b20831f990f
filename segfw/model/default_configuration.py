"""Which configuration of a model is meant where none is named."""

from __future__ import annotations

from segfw.base.errors import UserError
from segfw.base.words import listed
from segfw.model.calibration_facts import read_calibration
from segfw.model.selection import current_selection
from segfw.model.source import SELECTION_FILE, ModelSource
from segfw.planning.plan import Plan


def default_configuration(source: ModelSource, plan: Plan, *, advice: str = "choose one with --configuration") -> str:
    """The only configuration that is trained, or that a model file is meant for; of several what ``select`` chose.

    Where ``select`` was not run it is the calibrated one: whoever had it calibrated has decided for it, and its masks
    alone come with quality. That is said, and it is warned where folds were trained since ``select`` was run. UserError
    if nothing was decided, none is trained, or two are averaged, for which there is ``advice``.
    """
    if source.card is None:
        trained = [name for name in plan.predicting if source.trained_folds(name)]
    else:  # a first stage comes along with the second one, and is not what the file is meant for
        trained = list(source.card.configurations)
    if not trained:
        raise UserError(f"{source.path}: no fold is trained to its end; run segfw train first")
    if len(trained) == 1:
        return trained[0]
    selection = current_selection(source)
    if selection is not None and set(selection.configurations) <= set(trained):
        if len(selection.configurations) == 1:
            return selection.configurations[0]
        averaged = listed(selection.configurations, "and")
        raise UserError(f"{source.path / SELECTION_FILE}: averages {averaged}; {advice}")
    calibration = read_calibration(source)
    calibrated = None if calibration is None or selection is not None else calibration.identity.configuration
    if calibrated in trained:
        print(
            f"note: {listed(trained, 'and')} are trained, and {calibrated} is taken, which is calibrated; "
            "--configuration takes another, and segfw select compares them"
        )
        return calibrated
    raise UserError(
        f"{source.path}: {', '.join(trained)} are trained; choose one with --configuration, or let segfw select "
        "compare them"
    )

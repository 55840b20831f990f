"""``segfw info``: a plan in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.command import Argument, Command
from segfw.base.options import DEVICES, Options, option, takes_options


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """For which device costs are told."""

    device: str = option("auto", f"{DEVICES}, for the expected training time")


@takes_options(options=InfoOptions)
def info(work: Path, options: InfoOptions = InfoOptions()) -> str:
    """What was planned and why, what it costs, and what is already trained; of a model file also its card.

    Parameters
    ----------
    work
        Work folder or model file.
    options
        The device whose training time is told.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    UserError
        If there is no plan.
    """
    from segfw.base.device import pick_device
    from segfw.base.records import UserError
    from segfw.model.source import ModelSource, is_model_file
    from segfw.planning.explain import explain_configuration, explain_costs, explain_plan
    from segfw.planning.measure import training_flops
    from segfw.planning.plan import PLAN_FILE

    work = Path(work)
    if not is_model_file(work) and not (work / PLAN_FILE).is_file():
        raise UserError(f"{work}: holds no {PLAN_FILE}; run segfw plan-and-preprocess RAW {work} first")
    with ModelSource.open(work) as source:
        plan = source.plan()
        card = source.card
        trained = {name: source.trained_folds(name) for name in plan.configurations}
    device = pick_device(options.device)
    flops = training_flops(device)
    lines = [card.text(), ""] if card else []
    lines += explain_plan(plan)
    for configuration in plan.configurations.values():
        lines += ["", *explain_configuration(configuration)]
        if not plan.is_imported:  # whose training is over
            lines += explain_costs(configuration.estimate, device, flops)
        folds = trained[configuration.name]
        lines.append(f"  Trained folds: {', '.join(folds) if folds else 'none yet'}.")
    return "\n".join(lines)


COMMAND = Command(
    function=info,
    what="Explain a plan in words: what was chosen, why, and what it costs; and a model file's card.",
    example="segfw info work",
    arguments=(Argument(name="work", help="work folder or model file"),),
)

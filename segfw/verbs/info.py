"""``segfw info``: a plan in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import DEVICES, Options, option, takes_options

if TYPE_CHECKING:
    from segfw.model.model_info import ModelInfo


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """For which device costs are told."""

    device: str = option("auto", f"{DEVICES}, for the expected training time")


@takes_options(options=InfoOptions)
def info(work: Path, options: InfoOptions = InfoOptions()) -> ModelInfo:
    """What was planned and why, what it costs, and what is already trained; of a model file also its card.

    Parameters
    ----------
    work
        Work folder or model file.
    options
        The device whose training time is told.

    Returns
    -------
    ModelInfo
        As a text several lines.

    Raises
    ------
    UserError
        If there is no plan.
    """
    from segfw.base.device import device_name, pick_device
    from segfw.base.records import UserError
    from segfw.model.calibration_facts import read_calibration
    from segfw.model.model_info import ModelInfo
    from segfw.model.source import ModelSource, is_model_file
    from segfw.planning.plan import PLAN_FILE
    from segfw.planning.plan_for_device import training_flops

    work = Path(work)
    if not is_model_file(work) and not (work / PLAN_FILE).is_file():
        lacks = f"holds no {PLAN_FILE}" if work.is_dir() else "no such folder"
        raise UserError(f"{work}: {lacks}; run segfw plan-and-preprocess RAW {work} first")
    with ModelSource.open(work) as source:
        plan = source.plan()
        trained = {name: tuple(source.trained_folds(name)) for name in plan.configurations}
        card = source.card
        calibration = read_calibration(source)
    device = pick_device(options.device)
    return ModelInfo.of(work, plan, card, trained, device_name(device), lambda: training_flops(device), calibration)


COMMAND = Command(
    function=info,
    what="Explain a plan in words: what was chosen, why, and what it costs; and a model file's card.",
    example="segfw info work",
    arguments=(Argument(name="work", help="work folder or model file"),),
    gives_json=True,
)

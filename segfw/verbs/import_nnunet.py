"""``segfw import-nnunet``: a trained model of nnU-Net v2 becomes an ordinary model directory."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import Options, option, takes_options
from segfw.base.speech import say_next

if TYPE_CHECKING:
    from segfw.networks import BuildNetwork
    from segfw.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """Which trainers are believed, and what the training images were like."""

    trained_on: str | None = option(
        None,
        "where the axes x, y and z of the training images point, such as LPS; images are then turned to it (default: "
        "taken as they are stored, as nnU-Net does)",
        metavar="AXES",
    )
    trust_trainer: bool = option(
        False,
        "take a trainer that segfw does not know for one that builds the plans' network (names and shapes of the "
        "weights are compared)",
    )


@takes_options(options=ImportOptions)
def import_nnunet(
    source: Path,
    out: Path,
    options: ImportOptions = ImportOptions(),
    *,
    build_network: BuildNetwork | None = None,
) -> Plan:
    """Makes a model directory of a trained-model folder, a folder of several, or nnU-Net's exported zip.

    All configurations are taken, and of each the folds that nnU-Net takes: those with checkpoint_final, or if no fold
    has one, with checkpoint_best, which are the best weights, too. The model keeps the orientation and resampling that
    it was trained under.

    Parameters
    ----------
    source
        Folder or zip file of nnU-Net's.
    out
        A new or empty folder for the model.
    options
        Unknown trainers are refused by name unless ``trust_trainer`` says that they build the plans' network, of which
        the names and shapes of all weights are compared. ``trained_on`` says where the axes of the training images
        point, x first, as nibabel's aff2axcodes does: images are turned to it, and masks back, so that it no longer
        matters how a file is stored.
    build_network
        Makes the network of a NetworkSpec with weights named as in the checkpoint; unknown trainers and architectures
        are taken then. It has to be given to ``predict`` again.

    Returns
    -------
    Plan
        The plan of the model directory.

    Raises
    ------
    UserError
        With nothing written, if a file is missing or damaged, or if it would have to run code.
    """
    from segfw.base.files import is_empty, new_folder
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.nnunet.import_folders import FoldImport, common_plan, take_postprocessing
    from segfw.nnunet.trained_folder import UNPACKED, find_trained, opened
    from segfw.planning.plan import PLAN_FILE

    out = Path(out)
    trained_on = _checked_axes(options.trained_on)
    if out.exists() and (not out.is_dir() or not is_empty(out)):
        raise UserError(f"{out}: is there already; give a new or empty folder for the model")
    require_outside(out, (source,))
    beside = next(parent for parent in out.absolute().parents if parent.exists())
    if not beside.is_dir():
        raise UserError(f"{out}: cannot be made, because {beside} is a file; give another folder")
    with new_folder(out) as home, opened(Path(source), home / UNPACKED) as folder:
        found = find_trained(folder)
        plan = common_plan(found, is_known=build_network is None, trained_on=trained_on)
        notes = []
        for trained in found:
            configuration = plan.configuration(trained.configuration)
            FoldImport(
                trained=trained,
                configuration=configuration,
                home=home,
                trust_trainer=options.trust_trainer,
                build_network=build_network,
            ).take_all()
            notes.append(take_postprocessing(trained, plan, home))
        plan.save(home / PLAN_FILE)
    for trained in found:
        print(f"{trained.configuration}: {count(len(trained.folds), 'fold')} ({', '.join(trained.folds)})")
    if plan.labels.painted_over:
        notes.append(f"warning: {plan.labels.painting_problem}; nnU-Net's masks of this model have the same fault")
    for note in filter(None, notes):
        print(note)
    print(_said_of_orientation(plan))
    return plan


def _checked_axes(trained_on: str | None) -> str | None:
    """The order of axes in capitals; UserError if it is none."""
    from segfw.base.records import UserError
    from segfw.images.volume import is_axis_order

    if trained_on is None or is_axis_order(trained_on.upper()):
        return trained_on and trained_on.upper()
    raise UserError(
        f"--trained-on is {trained_on!r}; give where the axes x, y and z of the training images point, such as LPS: "
        "one letter of L and R, one of P and A, one of I and S"
    )


def _said_of_orientation(plan: Plan) -> str:
    from segfw.images.volume import AS_STORED, is_axis_order

    if is_axis_order(plan.orientation):
        return f"images are turned to {plan.orientation}, in which nnU-Net's training images were, and masks back"
    said = f"images are oriented {plan.orientation}, as in nnU-Net's training"
    if plan.orientation == AS_STORED:
        said += "; with --trained-on AXES, such as LPS, it does not matter how a file is stored"
    return said


def _say_result(typed: argparse.Namespace, _: Plan) -> None:
    say_next("predict", typed.out, "NEW_IMAGES", "MASKS")


COMMAND = Command(
    function=import_nnunet,
    what="Make a model directory of a trained nnU-Net v2 model; nothing that it holds is run.",
    example="segfw import-nnunet nnUNetTrainer__nnUNetPlans__3d_fullres imported",
    arguments=(
        Argument(name="source", help="trained-model folder, a folder of several, or nnU-Net's exported zip"),
        Argument(name="out", help="new folder for the model"),
    ),
    say_result=_say_result,
)

"""A trained model of nnU-Net v2 becomes an ordinary model directory."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.networks import BuildNetwork
from segfw.nnunet.import_folders import FoldImport, common_plan, take_postprocessing
from segfw.nnunet.trained_folder import find_trained, opened
from segfw.planning.plan import PLAN_FILE, Plan


def import_nnunet(
    source: Path, out: Path, *, trust_trainer: bool = False, build_network: BuildNetwork | None = None
) -> Plan:
    """Makes the model directory ``out`` of a trained-model folder, a folder of several, or nnU-Net's exported zip.

    All configurations are taken, and of each the folds that nnU-Net takes: those with checkpoint_final, or if no fold
    has one, with checkpoint_best, which are the best weights, too. The model keeps the orientation and resampling that
    it was trained under. Unknown trainers are refused by name unless ``trust_trainer`` says that they build the plans'
    network, of which the names and shapes of all weights are compared. These and unknown architectures are also taken
    if ``build_network`` makes the network of a NetworkSpec with weights named as in the checkpoint; it has to be given
    to ``predict`` again.

    Raises UserError, with nothing written, if a file is missing or damaged, or if it would have to run code.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; give a new or empty folder for the model")
    beside = next(parent for parent in out.absolute().parents if parent.exists())
    if not beside.is_dir():
        raise UserError(f"{out}: cannot be made, because {beside} is a file; give another folder")
    with opened(Path(source), beside) as folder, TemporaryDirectory(prefix=".partial-", dir=beside) as partial:
        found = find_trained(folder)
        plan = common_plan(found, is_known=build_network is None)
        home = Path(partial) / "model"
        notes = []
        for trained in found:
            configuration = plan.configuration(trained.configuration)
            FoldImport(
                trained=trained,
                configuration=configuration,
                home=home,
                trust_trainer=trust_trainer,
                build_network=build_network,
            ).take_all()
            notes.append(take_postprocessing(trained, plan, home))
        plan.save(home / PLAN_FILE)
        if out.exists():
            out.rmdir()
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(home, out)
    for trained in found:
        print(f"{trained.configuration}: {count(len(trained.folds), 'fold')} ({', '.join(trained.folds)})")
    for note in filter(None, notes):
        print(note)
    print(f"images are oriented {plan.orientation}, as in nnU-Net's training")
    return plan

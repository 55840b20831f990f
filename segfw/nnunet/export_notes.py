"""What is said of an exported model: nnU-Net's commands, and what nnU-Net will do otherwise than segfw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from segfw.images.volume import CANONICAL
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection
from segfw.nnunet.postprocessing_files import PICKLE_FILE
from segfw.nnunet.trained_folder import DATASET_FILE, PLANS_FILE
from segfw.planning.plan import Configuration, Plan

PREDICT = "nnUNetv2_predict_from_modelfolder"


def say_commands(
    folder: Path,
    names: Mapping[Configuration, str],
    folds: Mapping[str, Sequence[str]],
    selection: Selection | None,
    steps: Mapping[str, Postprocessing],
    plan: Plan,
    ending: str,
) -> None:
    """Prints how nnU-Net predicts with each configuration, in an order that serves a cascade.

    ``names`` are the folders of the configurations in ``folder``, ``steps`` the postprocessing that lies there.
    """
    files = ", ".join(f"CASE_{index:04}{ending} ({channel.name})" for index, channel in enumerate(plan.channels))
    print(f"nnU-Net wants images to be called {files}; its commands are:")
    averaged = selection.configurations if selection and len(selection.configurations) > 1 else ()
    for one in sorted(names, key=lambda one: bool(one.previous_stage)):
        target = quote(str(folder / names[one]))
        extra = f" -prev_stage_predictions MASKS_{one.previous_stage}" if one.previous_stage else ""
        extra += " --save_probabilities" if one.name in averaged else ""
        chosen = " ".join(folds[one.name])
        print(f"  {PREDICT} -i NEW_IMAGES -o MASKS_{one.name} -m {target} -f {chosen}{extra}")
        if one.name in steps:
            _say_postprocessing(f"MASKS_{one.name}", folder / names[one])
    if averaged:
        masks = " ".join(f"MASKS_{name}" for name in averaged)
        print(f"  nnUNetv2_ensemble -i {masks} -o MASKS")
        if selection.name in steps:
            first = folder / next(own for one, own in names.items() if one.name == averaged[0])
            files = (quote(str(first / name)) for name in (PLANS_FILE, DATASET_FILE))
            _say_postprocessing("MASKS", folder, " -plans_json {} -dataset_json {}".format(*files))


def _say_postprocessing(masks: str, folder: Path, extra: str = "") -> None:
    command = f"nnUNetv2_apply_postprocessing -i {masks} -o {masks}_POSTPROCESSED"
    print(f"  {command} -pp_pkl_file {quote(str(folder / PICKLE_FILE))}{extra}")


def say_differences(plan: Plan, chosen: Sequence[Configuration]) -> None:
    """What nnU-Net will do otherwise than segfw does with the same model."""
    values = plan.labels.values
    if not plan.labels.regions and values != tuple(range(len(values))):
        changed = ", ".join(f"{index} for {value}" for index, value in enumerate(values) if index != value)
        print(f"note: nnU-Net writes the number of a class, not its value: {changed}")
    if plan.orientation == CANONICAL and all(one.median_shape[0] == 1 for one in chosen):
        print("note: nnU-Net's reader that turns images wants files of three axes; give each image as one slice")
    for one in chosen:
        if one.swapped_pairs:
            axes = " and ".join("zyx"[axis] for axis in one.swapped_pairs)
            print(f"note: {one.name} exchanges labels mirrored along {axes}; nnU-Net will not mirror there")
        if one.previous_stage and not one.previous_through_file:
            print(f"note: nnU-Net hands labels on to {one.name} over each image's own grid, segfw directly")

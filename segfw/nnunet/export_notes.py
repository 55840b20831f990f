"""What is said of an exported model: nnU-Net's commands, and what nnU-Net will do otherwise than segfw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from segfw.base.words import count
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.images.volume import CANONICAL, is_axis_order
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection
from segfw.nnunet.postprocessing_files import PICKLE_FILE
from segfw.nnunet.trained_folder import DATASET_FILE, PLANS_FILE
from segfw.planning.plan import Configuration, Plan

PREDICT = "nnUNetv2_predict_from_modelfolder"


def image_names(plan: Plan, ending: str) -> str:
    """How nnU-Net wants images to be called, a sentence."""
    files = [f"CASE_{index:04}{ending} ({channel.name})" for index, channel in enumerate(plan.channels)]
    return f"nnU-Net wants images to be called {', '.join(files)}; its commands are:"


def predict_commands(
    folders: Mapping[Configuration, Path],
    folds: Mapping[str, Sequence[str]],
    selection: Selection | None,
    postprocessing: Mapping[str, Postprocessing],
) -> list[str]:
    """The commands by which nnU-Net predicts with each configuration, in an order that serves a cascade.

    ``folders`` are those of the configurations; ``postprocessing`` lies in them by the configuration's name, and beside
    them by the name of a selected pair.
    """
    averaged = selection.configurations if selection and len(selection.configurations) > 1 else ()
    commands = []
    for configuration in sorted(folders, key=lambda configuration: bool(configuration.previous_stage)):
        name = configuration.name
        words = [PREDICT, "-i NEW_IMAGES", f"-o MASKS_{name}", f"-m {quote(str(folders[configuration]))}"]
        words.append(f"-f {' '.join(folds[name])}")
        if configuration.previous_stage:
            words.append(f"-prev_stage_predictions MASKS_{configuration.previous_stage}")
        if name in averaged:
            words.append("--save_probabilities")
        commands.append(" ".join(words))
        if name in postprocessing:
            commands.append(_postprocessing_command(f"MASKS_{name}", folders[configuration]))
    if selection and averaged:
        masks = " ".join(f"MASKS_{name}" for name in averaged)
        commands.append(f"nnUNetv2_ensemble -i {masks} -o MASKS")
        if selection.name in postprocessing:
            first = next(folder for configuration, folder in folders.items() if configuration.name == averaged[0])
            plans = quote(str(first / PLANS_FILE))
            dataset = quote(str(first / DATASET_FILE))
            command = _postprocessing_command("MASKS", first.parent)
            commands.append(f"{command} -plans_json {plans} -dataset_json {dataset}")
    return commands


def _postprocessing_command(masks: str, folder: Path) -> str:
    file = quote(str(folder / PICKLE_FILE))
    return f"nnUNetv2_apply_postprocessing -i {masks} -o {masks}_POSTPROCESSED -pp_pkl_file {file}"


def differences(plan: Plan, configurations: Sequence[Configuration], selection: Selection | None) -> list[str]:
    """What nnU-Net will do otherwise than segfw does with the same model, a sentence each."""
    sentences = []
    if selection and selection.postprocessing.decoding:
        decoded = selection.postprocessing.decoding_text
        sentences.append(f"segfw gives {decoded} the mask of largest expected Dice, nnU-Net what is likeliest")
    values = plan.labels.values
    if not plan.labels.regions and values != tuple(range(len(values))):
        changed = ", ".join(f"{index} for {value}" for index, value in enumerate(values) if index != value)
        sentences.append(f"nnU-Net writes the number of a class, not its value: {changed}")
    if plan.orientation == CANONICAL and all(chosen.median_shape[0] == 1 for chosen in configurations):
        sentences.append("nnU-Net's reader that turns images wants files of three axes; give each image as one slice")
    if is_axis_order(plan.orientation):
        sentences.append(
            f"nnU-Net takes images as they are stored, segfw turns them to {plan.orientation}; store images for "
            f"nnU-Net in {plan.orientation}"
        )
    for configuration in configurations:
        name = configuration.name
        if configuration.swapped_pairs:
            axes = " and ".join("zyx"[axis] for axis in configuration.swapped_pairs)
            sentences.append(f"{name} exchanges labels mirrored along {axes}; nnU-Net will not mirror there")
        if configuration.previous_stage and not configuration.previous_through_file:
            sentences.append(f"nnU-Net hands labels on to {name} over each image's own grid, segfw directly")
    return sentences


def partial_labels_note(model: Path) -> list[str]:
    """Of a work folder some of whose cases are annotated in part: that nnU-Net knows no such, a sentence."""
    manifest = model / MANIFEST_FILE
    if not manifest.is_file():  # a model file names no case
        return []
    cases = DatasetManifest.load(manifest).cases
    in_part = sum(case.annotated is not None for case in cases)
    if not in_part:
        return []
    return [
        f"{in_part} of {count(len(cases), 'training case')} are annotated in part, which nnU-Net's training does not "
        "know: trained on there, what nobody drew in them would be background; leave them out, or train on with segfw"
    ]

"""``segfw export --nnunet``: a folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

from pathlib import Path


def export_nnunet(model: Path, folder: Path, *, ending: str | None = None) -> list[Path]:
    """Writes ``folder/nnUNetTrainer__nnUNetPlans__CONFIGURATION`` for every trained configuration.

    Mirroring at prediction is left to the axes that change no labels, and labels whose values are not 0, 1, 2 ... get
    such values, because nnU-Net cannot do either; both are told, and so are nnU-Net's commands. Postprocessing that was
    selected or imported goes along.

    Parameters
    ----------
    model
        Work folder or model file.
    folder
        A new or empty folder.
    ending
        What nnU-Net shall expect images to be called, by default .nii.gz, or what the reader has that the model was
        trained with.

    Returns
    -------
    list of Path
        The folders that were written, one a configuration.

    Raises
    ------
    UserError
        With nothing written, if the model cannot be exported, such as a network that nnU-Net has not.
    """
    from segfw.base.files import is_empty, new_folder
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.model.selection import current_selection
    from segfw.model.source import ModelSource, kept_folders, predicting_folds
    from segfw.nnunet.export_notes import differences, image_names, partial_labels_note, predict_commands
    from segfw.nnunet.write_plans import endings_of
    from segfw.nnunet.write_trained_folder import FolderExport, folder_name, trained_configurations

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or not is_empty(folder)):
        raise UserError(f"{folder}: is there already; give a new or empty folder")
    require_outside(folder, kept_folders(model))
    with ModelSource.open(model) as source:
        plan = source.plan()
        configurations = trained_configurations(source, plan)
        ending = ending or endings_of(plan)[0]
        selection = current_selection(source)
        with new_folder(folder) as home:
            export = FolderExport(source=source, plan=plan, configurations=configurations, home=home, ending=ending)
            for configuration in configurations:
                export.write(configuration)
            postprocessing = export.write_postprocessing(selection)
        folds = {chosen.name: predicting_folds(source.trained_folds(chosen.name)) for chosen in configurations}
    for sentence in [*differences(plan, configurations, selection), *partial_labels_note(Path(model))]:
        print(f"note: {sentence}")
    folders = {configuration: folder / folder_name(configuration) for configuration in configurations}
    print(image_names(plan, ending))
    for command in predict_commands(folders, folds, selection, postprocessing):
        print(f"  {command}")
    return list(folders.values())

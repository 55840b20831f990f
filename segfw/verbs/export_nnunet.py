"""``segfw export --nnunet``: a folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

from pathlib import Path


def export_nnunet(model: Path, folder: Path, *, ending: str | None = None) -> list[Path]:
    """Writes ``folder/nnUNetTrainer__nnUNetPlans__CONFIGURATION`` for every trained configuration.

    Mirroring at prediction is left to the axes that change no labels, and labels whose values are not 0, 1, 2 ... get
    such values, because nnU-Net cannot do either; both are said, and so are nnU-Net's commands. Postprocessing that was
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
    import os
    from tempfile import TemporaryDirectory

    from segfw.base.records import UserError
    from segfw.model.selection import load_selection
    from segfw.model.source import load_plan, predicting_folds, trained_folds
    from segfw.nnunet.export_notes import say_commands, say_differences
    from segfw.nnunet.write_plans import endings_of
    from segfw.nnunet.write_trained_folder import folder_name, write_all_postprocessing, write_trained_folder

    model = Path(model)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new or empty folder")
    plan = load_plan(model)
    ending = ending or endings_of(plan)[0]
    chosen = [configuration for name, configuration in plan.configurations.items() if trained_folds(model, name)]
    if not chosen:
        raise UserError(f"{model}: no fold is trained to its end; run segfw train first")
    names = [configuration.name for configuration in chosen]
    for configuration in chosen:
        if configuration.previous_stage and configuration.previous_stage not in names:
            raise UserError(
                f"{model}: {configuration.name} is the second stage of a cascade, and {configuration.previous_stage}, "
                "the first, is not trained; train it, too"
            )
    selection = load_selection(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        home = Path(partial) / "export"
        for configuration in chosen:
            write_trained_folder(model, plan, configuration, chosen, home, ending)
        steps = write_all_postprocessing(model, plan, selection, names, home)
        if folder.exists():
            folder.rmdir()
        os.replace(home, folder)
    say_differences(plan, chosen)
    folds = {name: predicting_folds(trained_folds(model, name)) for name in names}
    say_commands(folder, {one: folder_name(one) for one in chosen}, folds, selection, steps, plan, ending)
    return [folder / folder_name(configuration) for configuration in chosen]

"""Folds of one configuration that were trained unlike each other, as for other times: what that means for masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.words import listed, named
from segfw.images.geometry import Shape
from segfw.model.load import Model
from segfw.model.source import fold_folder
from segfw.model.training_record import read_run_record
from segfw.quality.model_identity import ModelIdentity


def trained_steps(work: Path, configuration: str, folds: Sequence[str]) -> dict[str, int]:
    """For how many steps each fold was trained, as far as its run tells; UserError if a run's record is damaged."""
    found = {}
    for fold in folds:
        run = read_run_record(fold_folder(work, configuration, fold))
        if run is not None and run.end is not None:
            found[fold] = run.end.steps
    return found


def is_cut_alike(model: Model, folds: Sequence[str]) -> bool:
    """Whether some folds cut images by themselves as all folds of the model do together, first stages as well."""
    are_all = set(folds) == set(model.weights)
    own = are_all or all(model.own_tilings.get(fold, model.tiling) == model.tiling for fold in folds)
    return own and (model.previous is None or is_cut_alike(model.previous, folds))


def fold_notes(model: Model, identity: ModelIdentity) -> tuple[str, ...]:
    """What a reader should know of folds that are unlike; nothing where they are alike."""
    notes = []
    folds_of: dict[Shape, list[str]] = {}
    for fold, tiling in model.own_tilings.items():
        folds_of.setdefault(tiling.patch_size, []).append(fold)
    if len(folds_of) > 1:
        known = listed((f"{sizes_text(size)} ({named('fold', folds)})" for size, folds in folds_of.items()), "and")
        notes.append(
            f"folds were trained on patches of {known} voxels: all predict tiles of "
            f"{sizes_text(model.tiling.patch_size)} here, as predict does with all of them"
        )
    if identity.has_unlike_folds:
        steps = listed((f"fold {fold} for {number}" for fold, number in identity.steps.items()), "and")
        notes.append(
            f"folds were trained for unlike numbers of steps ({steps}): what is learned is of all together, and where "
            "some predict alone nothing is promised; of folds that were trained for equal times it is"
        )
    return tuple(notes)


def sizes_text(shape: Shape) -> str:
    """'40 x 56 x 40'."""
    return " x ".join(map(str, shape))


def other_folds(calibrated: ModelIdentity, used: ModelIdentity, *, mirroring: bool) -> list[str]:
    """What is different where some of the calibrated folds predict, in words; empty where nothing is.

    ``mirroring`` is whether images are seen mirrored at all.
    """
    different = []
    before = calibrated.tiling
    now = used.tiling
    alone = f"{named('fold', tuple(used.folds))} alone"
    if before is not None and now is not None:
        if before.patch_size != now.patch_size:
            tiles = f"tiles of {sizes_text(now.patch_size)} voxels instead of {sizes_text(before.patch_size)}"
            different.append(f"{alone} with {tiles}, which all folds know")
        if mirroring and before.mirror_axes != now.mirror_axes:
            different.append(f"{alone}, mirrored along other axes than all folds are")
    if calibrated.has_unlike_folds and used.folds.keys() != calibrated.folds.keys():
        different.append(f"{alone}, of folds that were trained for unlike numbers of steps")
    return different

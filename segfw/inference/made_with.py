"""What a folder of masks tells people of how it came about: how the model was trained, and where the images were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.evaluation.mask_facts import MaskFacts, Training
from segfw.model.card import FoldFacts, fold_facts
from segfw.model.load import Model
from segfw.model.source import ModelSource, fold_folder, weights_name


def mask_facts(model: Path, loaded: Sequence[Model], images: Path, output: Path) -> MaskFacts:
    """Facts for the folder ``output`` of masks of ``images`` by what was ``loaded`` of a model."""
    training = []
    with ModelSource.open(model) as source:
        for member in loaded:
            for fold in member.weights:
                facts = _facts_of(source, member.configuration.name, fold)
                training.append(
                    Training(
                        configuration=facts.configuration,
                        fold=facts.fold,
                        steps=facts.steps,
                        epochs=facts.epochs,
                        patch_size=member.configuration.patch_size,
                        seconds=facts.seconds,
                    )
                )
    return MaskFacts(images=_seen_from(images, output), training=tuple(training))


def _facts_of(source: ModelSource, configuration: str, fold: str) -> FoldFacts:
    """From the card of a model file, or from the fold's folder, as far as it can be read."""
    nothing = FoldFacts(configuration=configuration, fold=fold)
    if source.card is not None:
        of_fold = [one for one in source.card.folds if (one.configuration, one.fold) == (configuration, fold)]
        return of_fold[0] if of_fold else nothing
    try:
        folder = fold_folder(source.path, configuration, fold)
        return fold_facts(folder, configuration, fold, source.path / weights_name(configuration, fold))
    except (UserError, OSError):  # facts for people must not keep anyone from predicting
        return nothing


def _seen_from(images: Path, output: Path) -> str:
    """The folder of the images as a path from the output: both may be moved together."""
    folder = images.parent if images.is_file() else images
    try:
        return Path(os.path.relpath(folder.resolve(), output.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return folder.resolve().as_posix()

"""A trained model: a file of ``segfw export``, or a folder without the data that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.file_names import PLAN_FILE
from segfw.base.shell_line import shell_line
from segfw.base.words import listed
from segfw.model.calibration_facts import CalibrationFacts, calibration_text, read_calibration
from segfw.model.card import Card
from segfw.model.selection import read_selection
from segfw.model.source import ModelSource, is_model_file, is_model_file_of_segfw
from segfw.standing.facts import PlanFacts


class ModelStanding(Answer):
    """What a model is of, which folds it has by configuration, and what its card says of it."""

    kind: Literal["model"] = "model"
    path: Path
    form: Literal["file", "folder"]
    is_imported: bool  # from nnU-Net
    dataset: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    trained_folds: dict[str, tuple[str, ...]]
    selection: str | None
    calibration: CalibrationFacts | None = None
    card: Card | None
    next: str

    def text(self) -> str:
        """A few lines, and the next command."""
        origin = " imported from nnU-Net" if self.is_imported else ""
        lines = [
            f"{self.path}: model {self.form}{origin} of {self.dataset}, channels {', '.join(self.channels)}, labels "
            f"{', '.join(self.labels)}"
        ]
        for name, folds in self.trained_folds.items():
            lines.append(f"{name}: " + (f"fold {listed(folds, 'and')} trained" if folds else "nothing is trained"))
        if self.selection:
            lines.append(f"selection: {self.selection}")
        lines.append(f"calibration: {calibration_text(self.calibration)}")
        if self.card is not None:
            lines.append(self.card.text())
        return "\n".join([*lines, f"next: {self.next}"])


def model_standing(path: Path) -> ModelStanding | None:
    """What a model is; None if there is none. UserError if it is damaged."""
    if not (is_model_file_of_segfw(path) if is_model_file(path) else (path / PLAN_FILE).is_file()):
        return None
    with ModelSource.open(path) as source:
        plan = PlanFacts.parse(source.read(PLAN_FILE), path / PLAN_FILE)
        trained = {name: tuple(source.trained_folds(name)) for name in plan.configurations}
        selection = read_selection(source)
        calibration = read_calibration(source)
        card = source.card
    return ModelStanding(
        path=path,
        form="folder" if card is None else "file",
        is_imported=plan.is_imported,
        dataset=plan.dataset,
        channels=plan.channel_names,
        labels=plan.label_names,
        trained_folds={name: folds for name, folds in trained.items() if folds or card is None},
        selection=None if selection is None else selection.name,
        calibration=calibration,
        card=card,
        next=shell_line("segfw", "predict", path, "NEW_IMAGES", "MASKS"),
    )

"""Which model made the drafts of a folder of masks: told by the file that ``predict`` or ``ensemble`` left there."""

from __future__ import annotations

from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.file_names import ENSEMBLE_SETTINGS_FILE, MASK_SETTINGS_FILE
from segfw.inference.ensemble_settings import EnsembleSettings
from segfw.inference.prediction_settings import PredictionSettings


def is_folder_of_drafts(folder: Path) -> bool:
    """Whether ``predict`` or ``ensemble`` wrote masks there."""
    return any((folder / name).is_file() for name in (MASK_SETTINGS_FILE, ENSEMBLE_SETTINGS_FILE))


def draft_model_digest(folder: Path) -> str:
    """The digest of weights, plan and options, as masks and quality/CASE.json say it; UserError if there is none."""
    if (folder / MASK_SETTINGS_FILE).is_file():
        return PredictionSettings.load(folder / MASK_SETTINGS_FILE).digest
    if (folder / ENSEMBLE_SETTINGS_FILE).is_file():
        return EnsembleSettings.load(folder / ENSEMBLE_SETTINGS_FILE).maker(()).digest
    raise UserError(f"{folder}: is no folder of segfw's masks; give one that segfw predict or ensemble wrote")

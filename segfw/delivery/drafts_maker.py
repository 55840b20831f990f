"""What made the draft that a delivered mask came from, as files name it."""

from __future__ import annotations

from segfw.base.file_names import ENSEMBLE_SETTINGS_FILE, MASK_SETTINGS_FILE
from segfw.dataset.finished_mask import MaskMaker
from segfw.inference.prediction_settings import PredictionSettings
from segfw.reviewing.review_store import ReviewStore


def maker_of(store: ReviewStore, digest: str) -> MaskMaker:
    """The model of that digest; its configuration is known only of the model whose drafts lie in the folder now."""
    if digest != store.model_digest():
        return MaskMaker(digest=digest)
    if (store.folder / MASK_SETTINGS_FILE).is_file():
        configuration = PredictionSettings.load(store.folder / MASK_SETTINGS_FILE).configuration
        return MaskMaker(name=f"segfw {configuration}", digest=digest)
    is_ensemble = (store.folder / ENSEMBLE_SETTINGS_FILE).is_file()
    return MaskMaker(name="segfw ensemble" if is_ensemble else "segfw", digest=digest)

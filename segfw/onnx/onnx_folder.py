"""The folder that is handed out: a network for each fold, ``pipeline.json``, and the runner as ``predict.py``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import segfw.onnx.runner
from segfw.base.file_names import PIPELINE_FILE as PIPELINE_FILE
from segfw.base.files import new_folder
from segfw.base.records import UserError
from segfw.model.load import Model
from segfw.model.selection import read_selection
from segfw.model.source import ModelSource, postprocessing_name
from segfw.networks import BuildNetwork
from segfw.onnx.pipeline import LICENCE_FILE, pipeline_of
from segfw.onnx.write_network import write_network

RUNNER_FILE = "predict.py"


def require_free_place(folder: Path, *, overwrite: bool) -> None:
    """UserError if the folder cannot be written: only a folder that was written before may be replaced."""
    if folder.suffix or folder.is_file():
        raise UserError(f"{folder}: ONNX networks and their description go into a folder; give a name without ending")
    is_ours = (folder / PIPELINE_FILE).is_file()
    if folder.exists() and not (overwrite and is_ours):
        remedy = "or --overwrite" if is_ours else "which is not there yet"
        raise UserError(f"{folder}: exists; give another name, {remedy}")


def left_out(model: Path, configuration: str) -> list[str]:
    """What a model holds beside the networks of a configuration that ONNX does not, a sentence each."""
    notes = []
    with ModelSource.open(model) as source:
        if read_selection(source) is not None:
            notes.append("the decoding, postprocessing and ensemble of selection.json are not part of it")
        postprocessing = postprocessing_name(configuration)
        if source.has(postprocessing):
            notes.append(f"{postprocessing} is not part of it")
    return notes


def write_onnx_folder(
    folder: Path,
    model: Model,
    *,
    licence: str | None,
    notes: Sequence[str],
    build: BuildNetwork,
    overwrite: bool,
) -> float:
    """Writes the folder, whole or not at all.

    Returns by how much the logits of any network differ from PyTorch's at most, as a share of the largest logit.
    """
    with new_folder(folder, overwrite=overwrite) as partial:
        files = {fold: f"network_fold_{fold}.onnx" for fold in model.weights}
        differences = [
            write_network(partial / file, model.configuration, model.weights[fold], build)
            for fold, file in files.items()
        ]
        text = json.dumps(pipeline_of(model, list(files.values()), licence, notes), indent=1) + "\n"
        (partial / PIPELINE_FILE).write_text(text, encoding="utf-8", newline="\n")
        shutil.copyfile(segfw.onnx.runner.__file__, partial / RUNNER_FILE)
        if licence and Path(licence).is_file():
            shutil.copyfile(licence, partial / LICENCE_FILE)
    return max(differences)

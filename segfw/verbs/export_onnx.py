"""``segfw export --onnx``: ONNX networks, a description of everything around them, and a runner that needs no segfw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.options import takes_options
from segfw.model.export_options import OnnxOptions

if TYPE_CHECKING:
    from segfw.networks import BuildNetwork

RUNNER_FILE = "predict.py"


@takes_options(options=OnnxOptions)
def export_onnx(
    model: Path, folder: Path, options: OnnxOptions = OnnxOptions(), *, build: BuildNetwork | None = None
) -> str:
    """Writes ``folder`` with one ONNX file per fold, pipeline.json and predict.py; whole or not at all.

    Each network takes (batch, C, Z, Y, X) float32 with any batch and gives logits, and has been compared with PyTorch
    on noise.

    Parameters
    ----------
    model
        Work folder or model file.
    folder
        A new folder, or with ``overwrite`` an earlier export.
    options
        Which configuration, folds and weights are written. ``licence`` is a name, such as CC-BY-4.0, or a text file.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    str
        What was written and how far it agrees, in words.

    Raises
    ------
    UserError
        For cascades, and where a package is missing, the folder is in the way, or the network has an operation that
        ONNX lacks.
    """
    import json
    import shutil

    import segfw.onnx.runner
    from segfw.base.files import partial_path, put_in_place, remove_partials
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.model.load import load_model
    from segfw.networks import build_network
    from segfw.onnx.pipeline import LICENCE_FILE, PIPELINE_FILE, left_out, pipeline_of
    from segfw.onnx.write_network import OPSET, require_packages, write_network

    require_packages()
    folder = Path(folder)
    if folder.suffix or folder.is_file():
        raise UserError(f"{folder}: ONNX networks and their description go into a folder; give a name without ending")
    if folder.exists() and not (options.overwrite and (folder / PIPELINE_FILE).is_file()):
        remedy = "or --overwrite" if (folder / PIPELINE_FILE).is_file() else "which is not there yet"
        raise UserError(f"{folder}: exists; give another name, {remedy}")
    loaded = load_model(Path(model), options.configuration, options.folds, best=options.best)
    if loaded.previous is not None:
        raise UserError(
            f"{model}: {loaded.configuration.name} is the second stage of a cascade, which --onnx does not write; "
            "export it without --onnx, or give --configuration 3d_fullres"
        )

    partial = partial_path(folder)
    partial.mkdir(parents=True)
    try:
        files = []
        difference = 0.0
        for fold, weights in loaded.weights.items():
            files.append(f"network_fold_{fold}.onnx")
            of_this = write_network(partial / files[-1], loaded, weights, build or build_network)
            difference = max(difference, of_this)
        notes = left_out(Path(model), loaded.configuration.name)
        text = json.dumps(pipeline_of(loaded, files, options.licence, notes), indent=1) + "\n"
        (partial / PIPELINE_FILE).write_text(text, encoding="utf-8")
        shutil.copyfile(segfw.onnx.runner.__file__, partial / RUNNER_FILE)
        if options.licence and Path(options.licence).is_file():
            shutil.copyfile(options.licence, partial / LICENCE_FILE)
        put_in_place(partial, folder)
        remove_partials(folder.parent, name=folder.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

    lines = [
        f"written: {folder} ({count(len(files), 'network')} of {loaded.configuration.name}, opset {OPSET})",
        f"on noise the logits of PyTorch and onnxruntime differ by {difference:.1g} of the largest at most",
        *(f"note: {note}" for note in notes),
    ]
    return "\n".join(lines)

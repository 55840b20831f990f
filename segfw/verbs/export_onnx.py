"""``segfw export --onnx``: ONNX networks, a description of everything around them, and a runner that needs no segfw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.options import takes_options
from segfw.model.export_options import OnnxOptions

if TYPE_CHECKING:
    from segfw.networks import BuildNetwork


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
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.model.load import load_model
    from segfw.model.source import kept_folders
    from segfw.networks import build_network
    from segfw.onnx.onnx_folder import left_out, require_free_place, write_onnx_folder
    from segfw.onnx.write_network import OPSET, require_packages

    require_packages()
    folder = Path(folder)
    require_free_place(folder, overwrite=options.overwrite)
    require_outside(folder, kept_folders(model))
    loaded = load_model(model, options.configuration, options.folds, best=options.best)
    name = loaded.configuration.name
    if loaded.previous is not None:
        raise UserError(
            f"{model}: {name} is the second stage of a cascade, which --onnx does not write; export it without --onnx, "
            "or give --configuration 3d_fullres"
        )
    notes = left_out(model, name)
    difference = write_onnx_folder(
        folder,
        loaded,
        licence=options.licence,
        notes=notes,
        build=build or build_network,
        overwrite=options.overwrite,
    )
    lines = [
        f"written: {folder} ({count(len(loaded.weights), 'network')} of {name}, opset {OPSET})",
        f"on noise the logits of PyTorch and onnxruntime differ by {difference:.1g} of the largest at most",
        *(f"note: {note}" for note in notes),
    ]
    return "\n".join(lines)

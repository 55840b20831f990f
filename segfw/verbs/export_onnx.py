"""A trained model as ONNX networks, a description of everything around them, and a runner that needs no segfw."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.model.load import load_model
from segfw.networks import BuildNetwork, build_network
from segfw.onnx.onnx_folder import left_out, require_free_place, write_onnx_folder
from segfw.onnx.pipeline import OPSET


def export_onnx(
    model: Path,
    folder: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    best: bool = False,
    licence: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> str:
    """Writes ``folder`` with one ONNX file per fold, pipeline.json and predict.py, and returns what it did in words.

    Each network takes (batch, C, Z, Y, X) float32 with any batch and gives logits, and has been compared with PyTorch
    on noise. The folder appears whole or not at all. Raises UserError for cascades, and where a package is missing or
    the network has an operation that ONNX lacks.
    """
    _check_packages()
    model = Path(model)
    folder = Path(folder)
    require_free_place(folder, overwrite=overwrite)
    loaded = load_model(model, configuration, folds, best=best)
    name = loaded.configuration.name
    if loaded.previous is not None:
        raise UserError(
            f"{model}: {name} is the second stage of a cascade, which --onnx does not write; export it without --onnx, "
            "or give --configuration 3d_fullres"
        )
    notes = left_out(model, name)
    difference = write_onnx_folder(folder, loaded, licence=licence, notes=notes, build=build)
    lines = [
        f"written: {folder} ({count(len(loaded.weights), 'network')} of {name}, opset {OPSET})",
        f"on noise the logits of PyTorch and onnxruntime differ by {difference:.1g} of the largest at most",
        *(f"note: {note}" for note in notes),
    ]
    return "\n".join(lines)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}; install it with pip install 'segfw[onnx]'") from None

"""segfw: self-configuring training, prediction and evaluation of medical image segmentation."""

from __future__ import annotations

from importlib import import_module

# Name -> module. Imported on first use, so that ``import segfw`` and ``segfw --help`` do not wait for torch.
_PUBLIC = {
    "check_dataset": "segfw.checkup.check",
    "plan_and_preprocess": "segfw.planning.prepare",
    "train": "segfw.pipeline",
    "predict": "segfw.prediction",
    "run": "segfw.pipeline",
    "evaluate": "segfw.evaluation.evaluate",
    "select": "segfw.selection",
    "ensemble": "segfw.inference.averaging",
    "export_model": "segfw.export",
    "export_onnx": "segfw.onnx_export",
    "import_nnunet": "segfw.nnunet.importing",
    "export_nnunet": "segfw.nnunet.exporting",
    "load_model": "segfw.model.load",
    "Predictor": "segfw.inference.predictor",
    "read_volume": "segfw.images.formats",
    "UserError": "segfw.base.records",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segfw' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

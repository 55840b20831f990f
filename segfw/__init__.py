"""segfw: self-configuring training, prediction and evaluation of medical image segmentation."""

from __future__ import annotations

from importlib import import_module

# Name -> module. Imported on first use, so that ``import segfw`` and ``segfw --help`` do not wait for torch.
_PUBLIC = {
    "check_dataset": "segfw.verbs.check",
    "plan_and_preprocess": "segfw.verbs.plan_and_preprocess",
    "train": "segfw.verbs.train",
    "predict": "segfw.verbs.predict",
    "run": "segfw.verbs.run",
    "evaluate": "segfw.verbs.evaluate",
    "select": "segfw.verbs.select",
    "ensemble": "segfw.verbs.ensemble",
    "export_model": "segfw.verbs.export",
    "export_onnx": "segfw.verbs.export_onnx",
    "import_nnunet": "segfw.verbs.import_nnunet",
    "export_nnunet": "segfw.verbs.export_nnunet",
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

"""Self-configuring training, prediction and evaluation of medical image segmentation.

The public names are imported on first use, so that ``import segfw`` and ``segfw --help`` do not wait for PyTorch. What
they are, type checkers read in ``__init__.pyi``, which is generated: ``python tests/public_stub.py`` writes it anew.
"""

from __future__ import annotations

from importlib import import_module

# Name -> module
_PUBLIC = {
    # What is done
    "check_dataset": "segfw.verbs.check",
    "plan_and_preprocess": "segfw.verbs.plan_and_preprocess",
    "pretrain": "segfw.verbs.pretrain",
    "compare_starts": "segfw.verbs.compare_starts",
    "train": "segfw.verbs.train",
    "predict": "segfw.verbs.predict",
    "run": "segfw.verbs.run",
    "evaluate": "segfw.verbs.evaluate",
    "measure": "segfw.verbs.measure",
    "outcome": "segfw.verbs.outcome",
    "stress": "segfw.verbs.stress",
    "refine": "segfw.verbs.refine",
    "queue": "segfw.verbs.queue",
    "review": "segfw.verbs.review",
    "deliver": "segfw.verbs.deliver",
    "join": "segfw.verbs.join",
    "retrain": "segfw.verbs.retrain",
    "accept": "segfw.verbs.accept",
    "reject": "segfw.verbs.reject",
    "import_corrected": "segfw.verbs.import_corrected",
    "find": "segfw.verbs.find",
    "select": "segfw.verbs.select",
    "calibrate": "segfw.verbs.calibrate",
    "ensemble": "segfw.verbs.ensemble",
    "export_model": "segfw.verbs.export",
    "export_onnx": "segfw.verbs.export_onnx",
    "import_nnunet": "segfw.verbs.import_nnunet",
    "export_nnunet": "segfw.verbs.export_nnunet",
    # Its options
    "CheckOptions": "segfw.checkup.check_options",
    "JoinOptions": "segfw.joining.join_options",
    "PlanRequest": "segfw.planning.request",
    "PrepareOptions": "segfw.planning.request",
    "CompareOptions": "segfw.pretraining.compare_options",
    "PretrainOptions": "segfw.pretraining.pretrain_options",
    "TrainSettings": "segfw.training.settings",
    "TrainOptions": "segfw.training.settings",
    "RunOptions": "segfw.training.settings",
    "RetrainOptions": "segfw.retraining.retrain_options",
    "PredictOptions": "segfw.inference.prediction_options",
    "SelectOptions": "segfw.inference.prediction_options",
    "EnsembleOptions": "segfw.inference.prediction_options",
    "EvaluateOptions": "segfw.evaluation.evaluation_options",
    "MeasureOptions": "segfw.measurements.measure_options",
    "OutcomeOptions": "segfw.outcomes.outcome_options",
    "RefineOptions": "segfw.interaction.refine_options",
    "AcceptOptions": "segfw.reviewing.step_options",
    "RejectOptions": "segfw.reviewing.step_options",
    "CorrectedOptions": "segfw.reviewing.step_options",
    "FindOptions": "segfw.verbs.find",
    "ExportOptions": "segfw.model.export_options",
    "OnnxOptions": "segfw.model.export_options",
    "ImportOptions": "segfw.verbs.import_nnunet",
    # A model in memory
    "load_model": "segfw.model.load",
    "Predictor": "segfw.inference.predictor",
    "Refiner": "segfw.interaction.refiner",
    "OpenCase": "segfw.interaction.refiner",
    "read_volume": "segfw.images.formats",
    # What may go wrong
    "UserError": "segfw.base.records",
    "AsksFirst": "segfw.clicks.click",
    "CasesFailed": "segfw.base.parallel",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name == "__version__":
        from segfw.base.own_version import own_version

        return own_version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segfw' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, "__version__"})

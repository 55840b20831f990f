"""Which model a quality.json is of: a predicted quality of another model's masks would be worth nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.base.words import listed
from segfw.inference.mask_settings import plan_digest, weights_digest
from segfw.model.load import Model


class ModelIdentity(Record):
    """A configuration, a digest of each fold's network, one of what else decides masks, and the structures' names.

    Networks of a first stage are not in it: of a cascade they differ between calibration, where each fold has its own,
    and prediction, where all are averaged.
    """

    configuration: str
    folds: dict[str, str]
    plan_digest: str
    structures: tuple[str, ...]

    @staticmethod
    def of(model: Model) -> ModelIdentity:
        """Of a model in memory."""
        digests = {}
        for fold, weights in model.weights.items():
            digests[fold] = weights_digest([replace(model, weights={fold: weights}, previous=None)])
        return ModelIdentity(
            configuration=model.configuration.name,
            folds=digests,
            plan_digest=plan_digest([model]),
            structures=tuple(model.plan.labels.structures),
        )

    def require(self, used: ModelIdentity, path: Path) -> None:
        """UserError, which names the file ``path``, if this is of another model than the one ``used``.

        Some of the folds are the same model; a fold that was not there when it was calibrated makes it another one.
        """
        problem = self.difference(used)
        if problem:
            raise UserError(
                f"{path}: is of another model ({problem}); run segfw calibrate anew, or predict with --no-quality"
            )

    def difference(self, used: ModelIdentity) -> str:
        """In words what is not the same in a model that is ``used``; '' if nothing is."""
        if self.configuration != used.configuration:
            return f"it is of {self.configuration}, not of {used.configuration}"
        if self.structures != used.structures:
            return "its structures have other names"
        if self.plan_digest != used.plan_digest:
            return "its plan prepares images otherwise, or these folds were trained on patches of another size"
        other = [fold for fold, digest in used.folds.items() if self.folds.get(fold) != digest]
        if other:
            return f"it has not these weights of {'fold' if len(other) == 1 else 'folds'} {listed(other, 'and')}"
        return ""

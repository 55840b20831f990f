"""Which model a quality.json is of: a predicted quality of another model's masks would be worth nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.base.words import named
from segfw.inference.mask_settings import plan_digest, weights_digest
from segfw.model.load import Model, Tiling

UNLIKE_LENGTHS = 2.0  # of trainings: by so many times the steps of folds may differ, and still count as alike


class ModelIdentity(Record):
    """A configuration, a digest of each fold's network, one of what else decides masks, and the structures' names.

    Networks of a first stage are not in it: of a cascade they differ between calibration, where each fold has its own,
    and prediction, where all are averaged. ``tiling`` is how images were cut, as all of the folds together do it, and
    ``untiled_digest`` of all else that ``plan_digest`` is of; both are None in files of earlier versions. ``steps`` are
    those of the training of each fold, where they are known.
    """

    configuration: str
    folds: dict[str, str]
    plan_digest: str
    structures: tuple[str, ...]
    tiling: Tiling | None = None
    untiled_digest: str | None = None
    steps: dict[str, int] = {}

    @staticmethod
    def of(model: Model, steps: Mapping[str, int] | None = None) -> ModelIdentity:
        """Of a model in memory, whose folds were trained for so many steps."""
        digests = {}
        for fold, weights in model.weights.items():
            digests[fold] = weights_digest([replace(model, weights={fold: weights}, previous=None)])
        return ModelIdentity(
            configuration=model.configuration.name,
            folds=digests,
            plan_digest=plan_digest([model]),
            structures=tuple(model.plan.labels.structures),
            tiling=model.tiling,
            untiled_digest=plan_digest([_untiled(model)]),
            steps=dict(steps or {}),
        )

    @property
    def has_unlike_folds(self) -> bool:
        """Whether some folds were trained for much longer than others, so that one does not stand for all."""
        return bool(self.steps) and max(self.steps.values()) >= UNLIKE_LENGTHS * max(1, min(self.steps.values()))

    def require(self, used: ModelIdentity, path: Path) -> None:
        """UserError, which names the file ``path``, if this is of another model than the one ``used``.

        Some of the folds are the same model, also where they know larger tiles than all together; a fold that was not
        there when it was calibrated makes it another one.
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
        if self.plan_digest != used.plan_digest and self.untiled_digest is None:
            return "its plan prepares images otherwise, or cuts them otherwise for these folds than for all together"
        if self.plan_digest != used.plan_digest and self.untiled_digest != used.untiled_digest:
            return "its plan prepares images otherwise"
        other = [fold for fold, digest in used.folds.items() if self.folds.get(fold) != digest]
        if other:
            return f"it has not these weights of {named('fold', other)}"
        return ""


def _untiled(model: Model) -> Model:
    """The model without how it cuts images, nor its first stage."""
    return replace(
        model,
        configuration=model.configuration.model_copy(update={"patch_size": (1, 1, 1)}),
        mirror_axes=(),
        previous=None if model.previous is None else _untiled(model.previous),
    )

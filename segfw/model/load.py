"""A trained model in memory: its plan and the weights of its folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from segfw.base.options import named_by_keyword
from segfw.base.records import Record, UserError
from segfw.images.geometry import Shape
from segfw.model.default_configuration import default_configuration
from segfw.model.export_options import OnnxOptions
from segfw.model.source import ModelSource
from segfw.model.weights import read_tensors, require_usable, shared_mirror_axes, shared_patch_size
from segfw.planning.plan import REFINE, Configuration, Plan


class Tiling(Record):
    """How an image is cut for a network: tiles in voxels, and the axes along which they are also seen mirrored."""

    patch_size: Shape
    mirror_axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained configuration: its plan and the weights of one network per fold, by fold name.

    The configuration's patch is the one that all of the networks know; ``own_tilings`` are what each one was trained
    on in the end, by fold.
    """

    plan: Plan
    configuration: Configuration
    weights: Mapping[str, Mapping[str, Tensor]]
    mirror_axes: tuple[int, ...]  # along which all of the networks saw mirrored images in training
    previous: Model | None = None  # the first stage, where this is the second one of a cascade
    own_tilings: Mapping[str, Tiling] = field(default_factory=dict)

    @property
    def tiling(self) -> Tiling:
        """How the networks predict together."""
        return Tiling(patch_size=self.configuration.patch_size, mirror_axes=self.mirror_axes)

    def tiled_like(self, other: Model) -> Model:
        """The same networks with the tiles of other folds of this configuration, first stages as well."""
        previous = self.previous
        if previous is not None and other.previous is not None:
            previous = previous.tiled_like(other.previous)
        return replace(self, configuration=other.configuration, mirror_axes=other.mirror_axes, previous=previous)


@named_by_keyword((OnnxOptions,))
def load_model(
    model_dir: str | Path,
    configuration: str | None = None,
    folds: Sequence[str | int] | None = None,
    *,
    previous_folds: Sequence[str | int] | None = None,
    best: bool = False,
) -> Model:
    """Opens a model, a folder or a file of ``segfw export``.

    The second stage of a cascade brings its first one, whichever folds are taken of the second: their mean is better,
    and new images are no fold's.

    Parameters
    ----------
    model_dir
        A work folder, or a model file.
    configuration
        By default the only one that is trained; of several what ``segfw select`` chose, or the calibrated one. Where
        ``select`` averages two, name one of them.
    folds
        Such as ``(0, 1)`` or ``("all",)``; by default all trained ones.
    previous_folds
        Those of a cascade's first stage; by default all trained ones.
    best
        Takes the weights of the best validation in training instead of the last ones.

    Returns
    -------
    Model
        With all weights in memory, float32.

    Raises
    ------
    UserError
        If there is no plan, no trained fold, or several configurations to choose from; or if a file is damaged.
    """
    with ModelSource.open(model_dir) as source:
        return read_model(
            source, configuration, _fold_names(folds), previous_folds=_fold_names(previous_folds), best=best
        )


def load_refiner(model_dir: str | Path, folds: Sequence[str | int] | None = None) -> Model:
    """Opens the refiner of a model, a folder or a file of ``segfw export``, alone: it is given its masks.

    Parameters
    ----------
    model_dir
        A work folder, or a model file.
    folds
        Such as ``(0, 1)`` or ``("all",)``; by default all trained ones.

    Returns
    -------
    Model
        With the weights of the refiner's folds in memory, float32.

    Raises
    ------
    UserError
        If the model has no refiner, which says how to train one; or if a file is damaged.
    """
    with ModelSource.open(model_dir) as source:
        plan = source.plan()
        if REFINE in plan.configurations and source.trained_folds(REFINE):
            return _read_configuration(source, plan.configurations[REFINE], plan, _fold_names(folds))
        is_file = source.card is not None
    if plan.is_imported:
        raise UserError(
            f"{model_dir}: was imported from nnU-Net, without the data that a refiner learns from; train one beside it "
            f"with segfw run RAW WORK --configurations {REFINE}"
        )
    if is_file:
        raise UserError(
            f"{model_dir}: holds no refiner; train one where the model was trained, with segfw run RAW WORK "
            f"--configurations {REFINE}, and export it again"
        )
    raise UserError(f"{model_dir}: no refiner is trained; segfw run RAW {model_dir} --configurations {REFINE} adds one")


def require_predicting(configuration: Configuration, source: Path | str) -> None:
    """Raises UserError naming ``source``, of what model it is, for a refiner, which needs masks."""
    if configuration.is_refiner:
        raise UserError(
            f"{source}: {configuration.name} corrects masks around clicks and finds none itself; use segfw refine, "
            f"or take {configuration.previous_stage} to predict"
        )


def _fold_names(folds: Sequence[str | int] | None) -> tuple[str, ...] | None:
    if folds is None:
        return None
    return (folds,) if isinstance(folds, str) else tuple(str(fold) for fold in folds)


def read_model(
    source: ModelSource,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    *,
    previous_folds: tuple[str, ...] | None = None,
    best: bool = False,
) -> Model:
    """As ``load_model``, of a model that is open."""
    plan = source.plan()
    name = configuration or default_configuration(source, plan)
    require_predicting(plan.configuration(name), source.path)
    return _read_configuration(source, plan.configuration(name), plan, folds, previous_folds=previous_folds, best=best)


def _read_configuration(
    source: ModelSource,
    configuration: Configuration,
    plan: Plan,
    folds: tuple[str, ...] | None,
    *,
    previous_folds: tuple[str, ...] | None = None,
    best: bool = False,
) -> Model:
    names = source.weight_names(configuration.name, folds, best=best)
    loaded = {fold: read_tensors(source, name) for fold, name in names.items()}
    for fold, (tensors, _) in loaded.items():
        require_usable(tensors, source.path / names[fold])
    previous = None
    if configuration.previous_stage and not configuration.is_refiner:  # which is given its masks by the user
        previous = _read_configuration(source, plan.configuration(configuration.previous_stage), plan, previous_folds)
    metadata = [text for _, text in loaded.values()]
    return Model(
        plan=plan,
        configuration=configuration.with_patch(
            shared_patch_size(metadata, configuration.patch_size), source.path / next(iter(names.values()), "")
        ),
        weights={fold: tensors for fold, (tensors, _) in loaded.items()},
        mirror_axes=shared_mirror_axes(metadata),
        previous=previous,
        own_tilings={
            fold: Tiling(
                patch_size=shared_patch_size([text], configuration.patch_size), mirror_axes=shared_mirror_axes([text])
            )
            for fold, (_, text) in loaded.items()
        },
    )

"""From the first stage of a cascade to its second: labels of every training case by networks that never saw it.

A second stage that was trained on labels which the first one found in its own training cases would trust it too much.
So each case is predicted by the fold that it was held out of, for every fold of the second stage and for fold 'all'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segfw.base.array_files import save_array
from segfw.base.files import file_sha256
from segfw.base.progress import progress_bar
from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.grid.store import load_stored, open_case
from segfw.inference.held_out import validating_folds
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import WEIGHTS_FILE, fold_folder, trained_folds
from segfw.networks import BuildNetwork, build_network
from segfw.planning.plan import Configuration, Plan
from segfw.planning.splits import Splits

FIRST_STAGE_FILE = "first_stage.json"


class HandedOn(Record):
    """Marks one case's labels as whole: by which fold, and a digest of its weights and of the case on both grids."""

    fold: str
    made_from: str


class FirstStage(Record):
    """What a fold of the second stage was trained on: a digest of the weights of each fold of the first one."""

    configuration: str
    weights: dict[str, str]


def check_first_stage(work: Path, configuration: Configuration, splits: Splits, coming: Collection[str] = ()) -> None:
    """Raises UserError if some case cannot be predicted by a first stage that never saw it.

    That takes all folds, whichever fold of the second stage is to be trained: the training cases of one are the
    validation cases of the others. ``coming`` are folds that will be trained before.
    """
    first = configuration.previous_stage
    if first is None:
        raise ValueError(f"{configuration.name} is no second stage")
    present = {*trained_folds(work, first), *coming}
    missing = [fold for fold in validating_folds(splits) if fold not in present]
    if missing:
        which = f"folds {', '.join(missing)} of {first} are"
        if len(missing) == 1:
            which = f"fold {missing[0]} of {first} is"
        raise UserError(
            f"{configuration.name} learns from what each fold of {first} finds in cases it was not trained on, "
            f"but {which} not trained to the end in {work}; use segfw train {work} {first} {missing[0]}, or segfw run "
            "without --folds"
        )
    _holding_out(splits)


def trainable(
    work: Path,
    plan: Plan,
    splits: Splits,
    wanted: Collection[str] | None,
    folds_of: Mapping[str, Collection[str]],
) -> list[str]:
    """The configurations of which those folds can be trained, first stages before second ones.

    All that are planned, without a cascade or a refiner that ``check_first_stage`` finds to lack something, and why is
    printed; UserError if that one is ``wanted``.
    """
    names = []
    for name in wanted or plan.configurations:
        chosen = plan.configuration(name)
        if chosen.previous_stage is not None:
            try:
                coming = folds_of[chosen.previous_stage] if chosen.previous_stage in names else ()
                check_first_stage(work, chosen, splits, coming)
            except UserError as error:
                if wanted:
                    raise
                print(f"left out: {error}")
                continue
        names.append(name)
    return names


def first_stage_of(work: Path, configuration: Configuration, splits: Splits) -> FirstStage | None:
    """The trained first stage of a cascade, None for a configuration without one; UserError if it lacks folds."""
    first = configuration.previous_stage
    if first is None:
        return None
    check_first_stage(work, configuration, splits)
    paths = {fold: fold_folder(work, first, fold) / WEIGHTS_FILE for fold in validating_folds(splits)}
    digests = {fold: file_sha256(path) for fold, path in paths.items()}
    return FirstStage(configuration=first, weights=digests)


def _holding_out(splits: Splits) -> dict[str, str]:
    """The fold that each case is held out of, the first one if there are several; UserError if there is none."""
    holding: dict[str, str] = {}
    trained: set[str] = set()
    for number, fold in enumerate(splits.folds):
        trained.update(fold.train)
        for case in fold.validation:
            holding.setdefault(case, str(number))
    never = sorted(trained - holding.keys())
    if never:
        raise UserError(
            f"the folds ({splits.source}) hold {never[0]!r} out of no training, so that no first stage of a cascade "
            "is blind to it; give --splits in which every case validates once, or train 3d_fullres"
        )
    return holding


def hand_on_labels(
    work: Path,
    configuration: Configuration,
    splits: Splits,
    stage: FirstStage,
    *,
    device: str = "auto",
    precision: str = "auto",
    build: BuildNetwork = build_network,
    share: Callable[[Sequence[str]], Sequence[str]] = list,
) -> Path:
    """Makes what the first stage finds in every case, on the second one's grid, and returns the folder they are in.

    Per case ``ID.b2nd`` (Z, Y, X) of classes and, written last, ``ID.json``. Labels made from the same weights and the
    same preprocessed case are kept, so an interrupted call goes on where it stopped. ``stage`` comes from
    ``first_stage_of``; ``share`` picks what this process is to make, where several share the cases.
    """
    folder = work / "runs" / stage.configuration / "next_stage"
    grids = _BothGrids(
        first=work / "preprocessed" / stage.configuration,
        second=work / "preprocessed" / configuration.data_name,
    )
    waiting: dict[str, dict[str, HandedOn]] = {}
    holding = _holding_out(splits)
    for case in share(sorted(holding)):  # before it is looked what is there, which others may be making
        fold = holding[case]
        stored = "".join(load_stored(grid, case).model_dump_json() for grid in (grids.first, grids.second))
        made_from = hashlib.sha256(f"{stage.weights[fold]}{stored}".encode()).hexdigest()
        mark = HandedOn(fold=fold, made_from=made_from)
        if not _is_kept(folder / f"{case}.json", mark):
            waiting.setdefault(fold, {})[case] = mark
    total = sum(len(marks) for marks in waiting.values())
    if total:
        print(f"predicting {count(total, 'case')} with {stage.configuration} for {configuration.name}")
    with progress_bar(f"{stage.configuration} for the next stage", total=total) as bar:
        for fold, marks in sorted(waiting.items()):
            model = load_model(work, stage.configuration, (fold,))
            predictor = Predictor.of(model, device=device, precision=precision, build=build)
            for case, mark in marks.items():
                _hand_on(predictor, case, grids, folder, mark)
                bar.update()
    return folder


def _is_kept(path: Path, mark: HandedOn) -> bool:
    try:
        return HandedOn.load(path) == mark
    except UserError:  # not there, or of another version
        return False


@dataclass(frozen=True, kw_only=True)
class _BothGrids:
    """Folders of the preprocessed cases of both stages."""

    first: Path
    second: Path


def _hand_on(predictor: Predictor, case: str, grids: _BothGrids, folder: Path, mark: HandedOn) -> None:
    image = torch.from_numpy(open_case(grids.first, case).image[:])
    record = load_stored(grids.first, case).record
    target = load_stored(grids.second, case).record
    classes = predictor.hand_on(predictor.network_slabs(image), record, target)
    (folder / f"{case}.json").unlink(missing_ok=True)  # if this is interrupted, no old mark must stand by new labels
    save_array(folder / f"{case}.b2nd", classes)
    mark.save(folder / f"{case}.json")


def remember_first_stage(folder: Path, stage: FirstStage, *, is_started: bool) -> None:
    """Keeps beside a fold of the second stage what it is trained on; warns if that changed since it was started."""
    path = folder / FIRST_STAGE_FILE
    if not is_started or not path.is_file():
        stage.save(path)
    elif FirstStage.load(path) != stage:
        print(
            f"warning: {stage.configuration} was trained again since {folder} was started; train with --overwrite to "
            "learn from what it finds now"
        )

"""Which configuration or pair of them is best in cross-validation, and which postprocessing helps: selection.json."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from pathlib import Path

import torch

from segfw.base.parallel import CasesFailed, Outcome, progress
from segfw.base.records import GIGABYTE, Record, UserError, count, write_text
from segfw.dataset.cases import DatasetManifest, LabelSet
from segfw.grid.slabs import dense
from segfw.inference.held_out import (
    FOLDER,
    SEPARATOR,
    CaseCounts,
    HeldOut,
    Trial,
    count_case,
    dice,
    find_postprocessing,
    masks_of,
    mean,
    model_digest,
    predict_held_out,
)
from segfw.inference.predictor import Predictor
from segfw.inference.tiles import tile_count
from segfw.model.load import load_model, read_model_file, trained_folds
from segfw.model.postprocess import Postprocessing
from segfw.networks import BuildNetwork, build_network
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.splits import Splits
from segfw.verbs.plan_and_preprocess import MANIFEST_FILE, SPLITS_FILE

SELECTION_FILE, TABLE_FILE = "selection.json", "selection.txt"
TOLERANCE = 0.001  # of the mean Dice: a candidate that takes longer must be better by more
BYTES_PER_PROBABILITY = 0.5  # on disk; 0.33 were measured of three classes, fewer of many


class Candidate(Record):
    """One configuration, or two whose probabilities are averaged, and its mean Dice in cross-validation."""

    configurations: tuple[str, ...]
    stages: int  # networks that run one after the other: a cascade has two
    foreground_mean: float | None
    labels: dict[str, float | None]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.configurations)


class Selection(Record):
    """What ``predict`` uses without further options, and how it came about."""

    configurations: tuple[str, ...]
    folds: dict[str, tuple[str, ...]]  # by configuration: all trained ones, which predict together
    postprocessing: Postprocessing
    compared_folds: tuple[str, ...]  # whose validation cases all candidates were scored on
    cases: int
    is_whole_cross_validation: bool
    tolerance: float
    candidates: tuple[Candidate, ...]  # without postprocessing, best first
    trials: tuple[Trial, ...]  # steps of postprocessing
    labels: dict[str, float | None]  # mean Dice of what was selected, after postprocessing
    foreground_mean: float | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.configurations)


def load_selection(work: Path) -> Selection | None:
    """What ``select`` found best, None if it was not run.

    Prints a warning if folds have been trained since. UserError if the file is damaged.
    """
    path = Path(work) / SELECTION_FILE
    content = read_model_file(path)  # also where the model is one file
    if content is None:
        return None
    selection = Selection.parse(content, path)
    for name, folds in selection.folds.items():
        if set(folds) != set(trained_folds(Path(work), name)) - {"all"}:
            print(f"warning: the trained folds of {name} have changed since {path} was made; run segfw select again")
    return selection


def select(
    work: Path,
    *,
    configurations: Sequence[str] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: str = "auto",
    device: str = "auto",
    build: BuildNetwork = build_network,
) -> Selection:
    """Scores all trained configurations (or those asked for) and all pairs, and writes selection.json and .txt.

    Each validation case is predicted by the fold that did not see it; what is there from the same weights is kept. Only
    folds that all configurations have trained are compared. Raises UserError if there is nothing to compare, and
    CasesFailed if cases could not be predicted, after all others are done.
    """
    work = Path(work)
    plan, splits, manifest = (
        kind.load(work / name)
        for kind, name in ((Plan, PLAN_FILE), (Splits, SPLITS_FILE), (DatasetManifest, MANIFEST_FILE))
    )
    names = tuple(configurations or plan.configurations)
    trained = {name: _validating_folds(work, plan.configuration(name).name, splits) for name in names}
    folds, notes = compared_folds(trained, splits)
    trained = {name: own for name, own in trained.items() if own}
    for note in notes:
        print(f"note: {note}")
    options = f"step {step}, mirroring {mirroring}, precision {precision}"
    digests = {(name, fold): model_digest(work, plan, name, fold, options) for name in trained for fold in folds}
    cases = {case.id: case for case in manifest.cases}
    fold_of = {case: fold for fold in reversed(folds) for case in splits.fold(fold).validation if case in cases}
    items = [
        HeldOut.of(cases[case], name, fold, digests[name, fold])
        for name in trained
        for case, fold in sorted(fold_of.items())
    ]

    def predictor_of(configuration: str, fold: str) -> Predictor:
        model = load_model(work, configuration, (fold,), previous_folds=(fold,))
        return Predictor.of(model, device=device, precision=precision, step=step, mirroring=mirroring, build=build)

    waiting = [item for item in items if not item.is_there(work)]
    if waiting:
        names = dict.fromkeys(item.configuration for item in waiting)
        _announce(work, plan, waiting, {name: predictor_of(name, folds[0]) for name in names})
    failures = predict_held_out(work, waiting, predictor_of)
    candidates = [*((name,) for name in trained), *combinations(trained, 2)]
    counted, failed = {}, {failure.item for failure in failures}  # of which probabilities of old weights may be there
    for case in progress("scoring", sorted(fold_of.keys() - failed)):
        try:
            own = [item for item in items if item.case.id == case]
            counted[case] = count_case(work, cases[case], own, candidates)
        except Exception as error:  # one bad case must not cost the user the others
            failures.append(Outcome(item=case, error=error))
    if failures:
        raise CasesFailed("in cross-validation, so that nothing is selected", failures, work / FOLDER)
    ranked = rank(candidates, counted, plan)
    best = simplest_of_the_best(ranked)
    pairs = masks_of(work, items, best.configurations, plan.labels)
    postprocessing, trials, dice_of = find_postprocessing(pairs, plan.labels)
    selection = Selection(
        configurations=best.configurations,
        folds={name: tuple(trained[name]) for name in best.configurations},
        postprocessing=postprocessing,
        compared_folds=tuple(folds),
        cases=len(counted),
        is_whole_cross_validation=set(folds) == set(_all_folds(splits)),
        tolerance=TOLERANCE,
        candidates=tuple(ranked),
        trials=tuple(trials),
        labels=dice_of,
        foreground_mean=mean(dice_of.values()),
        notes=tuple(notes),
    )
    write_text(work / TABLE_FILE, selection_table(selection, plan.labels))
    selection.save(work / SELECTION_FILE)
    return selection


def _all_folds(splits: Splits) -> list[str]:
    return [str(number) for number, fold in enumerate(splits.folds) if fold.validation]


def _validating_folds(work: Path, configuration: str, splits: Splits) -> list[str]:
    return [fold for fold in _all_folds(splits) if fold in trained_folds(work, configuration)]


def compared_folds(trained: Mapping[str, Sequence[str]], splits: Splits) -> tuple[list[str], list[str]]:
    """Folds that all configurations with any have trained, and what is not compared, a sentence each."""
    able = {name: folds for name, folds in trained.items() if folds}
    if not able:
        raise UserError(f"no fold that validates is trained to its end for {', '.join(trained)}; run segfw train first")
    common = [fold for fold in _all_folds(splits) if all(fold in folds for folds in able.values())]
    if not common:
        what = "; ".join(f"{name} has {', '.join(folds)}" for name, folds in able.items())
        raise UserError(f"the configurations have no trained fold in common ({what}); train one for all")
    notes = [f"{name} has no trained fold and is left out" for name in trained if name not in able]
    for name, folds in able.items():
        extra = [fold for fold in folds if fold not in common]
        if extra:
            notes.append(f"{name} is compared without its folds {', '.join(extra)}, which others have not trained")
    missing = [fold for fold in _all_folds(splits) if fold not in common]
    if missing:
        notes.append(
            f"this is no whole cross-validation: folds {', '.join(missing)} are not trained for all, so that fewer "
            "cases decide; train them and select again before relying on it"
        )
    return common, notes


def _announce(work: Path, plan: Plan, waiting: Sequence[HeldOut], predictors: Mapping[str, Predictor]) -> None:
    """Says beforehand how long it will take, from the time of one tile, and how much disk; UserError if that lacks."""
    seconds = gigabytes = 0.0
    for name, predictor in predictors.items():
        number = sum(item.configuration == name for item in waiting)
        seconds += number * sum(_seconds_per_case(stage) for stage in (predictor, predictor.previous) if stage)
        voxels = prod(plan.configuration(name).median_shape)
        gigabytes += number * voxels * plan.labels.outputs * BYTES_PER_PROBABILITY / GIGABYTE
    print(
        f"predicting {count(len(waiting), 'validation case')} with {', '.join(predictors)}, each by the fold that did "
        f"not see it: about {max(1, round(seconds / 60))} min for the network and {gigabytes:.2g} GB in {work / FOLDER}"
    )
    free = shutil.disk_usage(work).free / GIGABYTE
    if gigabytes > free:
        raise UserError(f"{work}: {free:.2g} GB are free and about {gigabytes:.2g} GB are needed; make room first")


def _seconds_per_case(predictor: Predictor) -> float:
    """The network's time for a case of median size, from one tile."""
    chosen = predictor.configuration
    shape = tuple(round(size) for size in chosen.median_shape)
    image = torch.zeros((len(predictor.plan.channels), *chosen.patch_size))
    previous = torch.zeros(chosen.patch_size) if chosen.previous_stage else None
    for _ in range(2):  # the first one is slower
        started = time.perf_counter()
        dense(predictor.network_slabs(image, previous)).sum().item()
    return tile_count(shape, chosen.patch_size, predictor.step) * (time.perf_counter() - started)


def rank(candidates: Sequence[tuple[str, ...]], counted: Mapping[str, CaseCounts], plan: Plan) -> list[Candidate]:
    """All candidates by their mean Dice over cases and then over structures, best first."""
    result = []
    for candidate in candidates:
        own = [case.counts[SEPARATOR.join(candidate)] for case in counted.values()]
        labels = {name: mean(dice(counts[name]) for counts in own) for name in plan.labels.structures}
        stages = sum(2 if plan.configuration(name).previous_stage else 1 for name in candidate)
        result.append(
            Candidate(configurations=candidate, stages=stages, foreground_mean=mean(labels.values()), labels=labels)
        )
    return sorted(result, key=lambda candidate: -(candidate.foreground_mean or 0))


def simplest_of_the_best(ranked: Sequence[Candidate]) -> Candidate:
    """Of those within TOLERANCE of the best that which runs the fewest networks, and of these the best."""
    limit = (ranked[0].foreground_mean or 0) - TOLERANCE
    near = [candidate for candidate in ranked if (candidate.foreground_mean or 0) >= limit]
    return min(near, key=lambda candidate: (candidate.stages, len(candidate.configurations)))


def selection_table(selection: Selection, labels: LabelSet) -> str:
    """All candidates, what was selected and why, as plain text."""
    names = list(labels.structures)
    rows = [("candidate", "mean Dice", *(names if len(names) <= 6 else ()))]
    for candidate in selection.candidates:
        values = (candidate.foreground_mean, *(candidate.labels[name] for name in names if len(names) <= 6))
        rows.append((candidate.name, *map(_digits, values)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    which = f"{count(selection.cases, 'validation case')} of folds {', '.join(selection.compared_folds)}"
    lines += ["", f"selected: {selection.name}, by {which}"]
    if selection.name != selection.candidates[0].name:
        lines.append(f"{selection.candidates[0].name} is better by no more than {selection.tolerance} and takes longer")
    for trial in selection.trials:
        verdict = "kept" if trial.is_kept else "not kept"
        change = f"{(trial.after or 0) - (trial.before or 0):+.5f}"
        lines.append(f"only the largest component of {trial.name}: {change} mean Dice, {verdict}")
    lines.append(
        f"with postprocessing ({selection.postprocessing.text}): mean Dice {_digits(selection.foreground_mean)}"
    )
    return "\n".join([*lines, *(f"note: {note}" for note in selection.notes)]) + "\n"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

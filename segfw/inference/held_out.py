"""Cases predicted by the fold that did not see them, for every trained configuration, kept from call to call.

``WORK/selection/CONFIGURATION/CASE.b2nd`` are the probabilities. What is there and made from the same weights is kept.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from segfw.base.parallel import Outcome
from segfw.base.progress import progress_bar
from segfw.base.records import GIGABYTE, UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.grid.slabs import dense
from segfw.grid.store import read_case
from segfw.images.geometry import as_shape
from segfw.inference.output_folder import sources_of
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ENDING, ProbabilityInfo, ProbabilityWriter, read_probabilities
from segfw.inference.tiles import tile_count
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.planning.plan import Plan
from segfw.planning.splits import Splits

FOLDER = "selection"
BYTES_PER_PROBABILITY = 0.5  # on disk; 0.33 were measured of three classes, fewer of many


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One validation case of one configuration, and the fold that did not see it.

    ``model`` is a digest of what its probabilities are made from: that fold's network, and the image's files.
    """

    case: Case
    configuration: str
    fold: str
    model: str

    @staticmethod
    def of(case: Case, configuration: str, fold: str, network: str) -> HeldOut:
        """By the digest of the fold's network, and the image's files as they are now."""
        model = hashlib.sha256(f"{network}{sources_of(case)}".encode()).hexdigest()
        return HeldOut(case=case, configuration=configuration, fold=fold, model=model)

    def path(self, work: Path) -> Path:
        return work / FOLDER / self.configuration / f"{self.case.id}{ENDING}"

    def is_there(self, work: Path) -> bool:
        """Whether the case's probabilities are stored, whole, by the same network of the same image."""
        try:
            return read_probabilities(self.path(work)).info.model == self.model
        except UserError:
            return False


def validating_folds(splits: Splits) -> list[str]:
    """Names of the folds that hold cases out."""
    return [str(number) for number, fold in enumerate(splits.folds) if fold.validation]


def model_digest(work: Path, plan: Plan, configuration: str, fold: str, options: str) -> str:
    """Of one fold's weights, the first stage's of a cascade included, and of how it predicts."""
    digest = hashlib.sha256(options.encode())
    name: str | None = configuration
    while name is not None:
        digest.update((fold_folder(work, name, fold) / WEIGHTS_FILE).read_bytes())
        name = plan.configuration(name).previous_stage
    return digest.hexdigest()


def held_out_items(
    work: Path,
    plan: Plan,
    splits: Splits,
    cases: Sequence[Case],
    configurations: Sequence[str],
    folds: Sequence[str],
    options: str,
) -> list[HeldOut]:
    """Every validation case of ``folds`` in every configuration; ``options`` are those of the prediction."""
    by_id = {case.id: case for case in cases}
    fold_of: dict[str, str] = {}
    for fold in reversed(folds):  # a case that several folds validate on is of the first
        fold_of |= {case: fold for case in splits.fold(fold).validation if case in by_id}
    items = []
    for configuration in configurations:
        digests = {fold: model_digest(work, plan, configuration, fold, options) for fold in folds}
        for case, fold in sorted(fold_of.items()):
            items.append(HeldOut.of(by_id[case], configuration, fold, digests[fold]))
    return items


def announce_held_out(work: Path, plan: Plan, waiting: Sequence[HeldOut], predictors: Mapping[str, Predictor]) -> None:
    """Says beforehand how long it will take, from the time of one tile, and how much disk; UserError if that lacks."""
    seconds = 0.0
    gigabytes = 0.0
    for name, predictor in predictors.items():
        number = sum(item.configuration == name for item in waiting)
        seconds += number * seconds_per_case(predictor)
        voxels = prod(plan.configuration(name).median_shape)
        gigabytes += number * voxels * plan.labels.outputs * BYTES_PER_PROBABILITY / GIGABYTE
    print(
        f"predicting {count(len(waiting), 'validation case')} with {', '.join(predictors)}, each by the fold that did "
        f"not see it: about {max(1, round(seconds / 60))} min for the network and {gigabytes:.2g} GB in {work / FOLDER}"
    )
    free = shutil.disk_usage(work).free / GIGABYTE
    if gigabytes > free:
        raise UserError(f"{work}: {free:.2g} GB are free and about {gigabytes:.2g} GB are needed; make room first")


def seconds_per_case(predictor: Predictor) -> float:
    """The networks' time for a case of median size, by all stages, from one tile of each."""
    configuration = predictor.configuration
    patch_size = configuration.patch_size
    image = torch.zeros((len(predictor.plan.channels), *patch_size))
    previous = torch.zeros(patch_size) if configuration.previous_stage else None
    for _ in range(2):  # the first one is slower
        started = time.perf_counter()
        dense(predictor.network_slabs(image, previous)).sum().item()
        seconds_per_tile = time.perf_counter() - started
    shape = as_shape(map(round, configuration.median_shape))
    seconds = tile_count(shape, patch_size, predictor.step) * seconds_per_tile
    return seconds if predictor.previous is None else seconds + seconds_per_case(predictor.previous)


def predict_held_out(
    work: Path, waiting: Sequence[HeldOut], predictor_of: Callable[[str, str], Predictor]
) -> list[Outcome[str, None]]:
    """Stores the probabilities of all ``waiting`` cases and returns the failures, which do not stop the others.

    ``predictor_of`` makes the predictor of a configuration and fold.
    """
    failures: list[Outcome[str, None]] = []
    groups: dict[tuple[str, str], list[HeldOut]] = {}
    for item in waiting:
        groups.setdefault((item.configuration, item.fold), []).append(item)
    with progress_bar("predicting", total=len(waiting)) as bar:
        for (configuration, fold), items in sorted(groups.items()):
            predictor = predictor_of(configuration, fold)
            for item in items:
                try:
                    _store_probabilities(predictor, item, item.path(work))
                except Exception as error:  # one bad case must not cost the user the others
                    failures.append(Outcome(item=item.case.id, error=error))
                bar.update()
    return failures


def _store_probabilities(predictor: Predictor, item: HeldOut, path: Path) -> None:
    volume, _ = read_case(item.case.model_copy(update={"label": None}))
    prepared = predictor.prepare(volume)
    info = ProbabilityInfo(
        configuration=item.configuration,
        folds=(item.fold,),
        model=item.model,
        labels=predictor.plan.labels,
        record=prepared.record,
    )
    with ProbabilityWriter(path, info) as writer:
        for slab in predictor.slabs(prepared):
            writer.add(slab)
        writer.finish()

"""Two rounds of review and retraining of one seed, each step of which goes on where it stopped.

WORK/test                  68 cases that are kept out of everything, the same for all seeds
WORK/seed_S/raw, pool      cases that there are, and cases without labels
WORK/seed_S/base           the model before any review
WORK/seed_S/queue_1, _2    retrained with batches that segfw queue chose; random_1, random_2 with batches drawn
WORK/seed_S/control_1, _2  as many steps on the old labels alone; control_1 is that of queue_1
WORK/seed_S/scratch_*      new weights on all labels of queue_2, for the minutes of both rounds, or of everything
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.accuracy.sets import raw_folder
from bench.retrain.retrain_results import ModelResult, RetrainResult, scores_of
from bench.retrain.simulated_expert import sign_all
from bench.runs import linked_work, processor_name
from segfw.base.own_version import own_version
from segfw.base.ranks import ALONE
from segfw.dataset.cases import Case
from segfw.dataset.layouts import find_dataset
from segfw.images.formats import split_ending
from segfw.inference.whole_cases import validate
from segfw.model.default_configuration import default_configuration
from segfw.model.load import load_model
from segfw.model.source import ModelSource, fold_folder
from segfw.model.training_record import read_run_record
from segfw.networks import build_network
from segfw.retraining.arm_settings import arm_settings, base_settings, precision_found, weights_file
from segfw.retraining.retraining_record import CONTROL_FOLDER, read_retraining
from segfw.training.checkpoint import CHECKPOINT_FILE
from segfw.training.settings import TrainOptions, TrainSettings
from segfw.verbs.calibrate import calibrate
from segfw.verbs.predict import predict
from segfw.verbs.queue import queue
from segfw.verbs.retrain import retrain
from segfw.verbs.run import run
from segfw.verbs.train import train

TEST_SEED = 0
LENGTH_SHARE = 0.3
FOLD = "0"
ROUNDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many cases there are of what, and the minutes of the first training."""

    old: int
    validation: int
    batch: int
    test: int
    minutes: float


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One seed: its folder, and where each case's image and expert mask lie."""

    number: int
    folder: Path
    images: dict[str, Path]
    truth: dict[str, Path]
    old: tuple[str, ...]
    pool: tuple[str, ...]
    test: tuple[Case, ...]

    def work(self, name: str) -> Path:
        """The work folder of a model."""
        return self.folder / name


def rounds_of_seed(data: Path, work: Path, number: int, sizes: Sizes) -> RetrainResult:
    """All arms of one seed, and what each of them reaches on the test cases."""
    seed = _seed(data, work, number, sizes)
    _first_model(seed, sizes)
    before = dict.fromkeys(("queue", "random"), "base")
    signed: dict[str, list[str]] = {"queue": [], "random": []}
    for round_number in ROUNDS:
        for arm in before:
            new = f"{arm}_{round_number}"
            masks = _reviewed(seed, arm, before[arm], new, signed[arm], sizes)
            retrain(
                seed.work(before[arm]),
                seed.work(new),
                [masks],
                length_share=LENGTH_SHARE,
                seed=100 + number,
                device="cpu",
            )
            before[arm] = new
    _second_control(seed)
    minutes = {name: _minutes(seed, name) for name in ("base", "queue_1", "queue_2")}
    _scratch(seed, "scratch_extra", minutes["queue_1"] + minutes["queue_2"])
    _scratch(seed, "scratch_all", sum(minutes.values()))
    return _result(seed, sizes, signed)


def _seed(data: Path, work: Path, number: int, sizes: Sizes) -> Seed:
    """Draws old cases, pool and test, and links them into folders."""
    found = find_dataset(raw_folder(data, "hippocampus"))
    images = {case.id: case.images[0] for case in found.cases}
    truth = {case.id: case.label for case in found.cases if case.label is not None}
    ids = sorted(truth)
    test_ids = set(np.random.default_rng(TEST_SEED).choice(ids, sizes.test, replace=False).tolist())
    rest = [case for case in ids if case not in test_ids]
    order = np.random.default_rng(1000 + number).permutation(len(rest))
    drawn = [rest[index] for index in order]
    folder = work / f"seed_{number}"
    seed = Seed(
        number=number,
        folder=folder,
        images=images,
        truth=truth,
        old=tuple(drawn[: sizes.old]),
        pool=tuple(sorted(drawn[sizes.old :])),
        test=tuple(Case(id=case, images=(images[case],), label=truth[case]) for case in sorted(test_ids)),
    )
    _link(seed, folder / "raw" / "images", seed.old)
    for case in seed.old:
        _link_file(truth[case], folder / "raw" / "labels" / f"{case}{split_ending(truth[case])[1]}")
    (folder / "raw" / "labels.csv").write_text("value,name\n1,anterior\n2,posterior\n", encoding="utf-8")
    judges = list(seed.old[: sizes.validation])
    folds = [{"train": list(seed.old[sizes.validation :]), "val": judges}]
    (folder / "raw" / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    return seed


def _link(seed: Seed, folder: Path, cases: Sequence[str]) -> None:
    for case in cases:
        _link_file(seed.images[case], folder / f"{case}{split_ending(seed.images[case])[1]}")


def _link_file(source: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(source.resolve())


def _first_model(seed: Seed, sizes: Sizes) -> None:
    run(
        seed.folder / "raw",
        seed.work("base"),
        configurations=("3d_fullres",),
        folds=(FOLD,),
        time_budget_s=60 * sizes.minutes,
        seed=seed.number,
        device="cpu",
    )


def _reviewed(seed: Seed, arm: str, model: str, new: str, signed: list[str], sizes: Sizes) -> Path:
    """Drafts of what is left of the pool, of which the simulated expert corrects a batch; adds it to ``signed``."""
    if not (seed.work(model) / "quality.json").is_file():
        calibrate(seed.work(model), device="cpu")
    left = [case for case in seed.pool if case not in signed]
    drafts = seed.folder / "drafts" / f"{model}_for_{'all' if model == 'base' else arm}"
    _link(seed, drafts / "images", left)
    predict(seed.work(model), drafts / "images", drafts / "masks", device="cpu")
    masks = seed.folder / "reviews" / new / "masks"
    if not masks.is_dir():
        shutil.copytree(drafts / "images", masks.with_name("images"), symlinks=True)
        shutil.copytree(drafts / "masks", masks)
    chosen = _chosen(seed, arm, masks, left, sizes.batch)
    sign_all(masks, chosen, seed.truth)
    signed += chosen
    return masks


def _chosen(seed: Seed, arm: str, masks: Path, left: Sequence[str], number: int) -> list[str]:
    """The batch: the first of the queue for the model, or drawn. Kept: what is signed leaves the queue."""
    kept = masks.with_name("batch.json")
    if not kept.is_file():
        if arm == "queue":
            made = queue(masks, goal="model")
            cases = list(dict.fromkeys(made.item(place).case for place in range(len(made))))
        else:
            order = np.random.default_rng([2000, seed.number, len(left)]).permutation(len(left))
            cases = [left[index] for index in order]
        kept.write_text(json.dumps(cases[:number]), encoding="utf-8")
    batch: list[str] = json.loads(kept.read_text(encoding="utf-8"))
    return batch


def _configuration(seed: Seed) -> str:
    with ModelSource.open(seed.work("base")) as source:
        return default_configuration(source, source.plan())


def _second_control(seed: Seed) -> None:
    """The control of both rounds: from the first control, as many steps as round 2, on the old labels alone."""
    name = _configuration(seed)
    first = seed.work("queue_1") / CONTROL_FOLDER
    retraining = read_retraining(seed.work("queue_2"))
    assert retraining is not None
    settings = arm_settings(
        base_settings(first, name, FOLD),
        retraining.folds[0],
        retraining.asked.seed,
        scratch=False,
        precision=precision_found(seed.work("queue_2"), name, FOLD),
    )
    work = linked_work(first, seed.work("control_2"))
    _train(work, name, settings, weights_file(first, name, FOLD))


def _scratch(seed: Seed, model: str, minutes: float) -> None:
    """New weights on the cases of both rounds, drawn as retrain draws them, for so many minutes."""
    name = _configuration(seed)
    base = base_settings(seed.work("base"), name, FOLD)
    settings = TrainSettings(time_budget_s=60 * minutes, seed=base.seed)
    _train(linked_work(seed.work("queue_2"), seed.work(model)), name, settings, None)


def _train(work: Path, configuration: str, settings: TrainSettings, start: Path | None) -> None:
    is_begun = (fold_folder(work, configuration, FOLD) / CHECKPOINT_FILE).is_file()
    options = TrainOptions(init_from=start, resume=is_begun, device="cpu", tells_length=False)
    train(work, configuration, FOLD, settings, options)


def _minutes(seed: Seed, model: str) -> float:
    record = read_run_record(fold_folder(_folder(seed, model), _configuration(seed), FOLD))
    assert record is not None
    assert record.end is not None
    return record.end.seconds / 60


def _folder(seed: Seed, model: str) -> Path:
    """Controls of a round lie in the folder of that round's model."""
    if model == "control_1":
        return seed.work("queue_1") / CONTROL_FOLDER
    if model.endswith("_control"):
        return seed.work(model.removesuffix("_control")) / CONTROL_FOLDER
    return seed.work(model)


MODELS = (
    *("base", "control_1", "queue_1", "random_1", "control_2", "queue_2", "queue_2_control"),
    *("random_2", "random_2_control", "scratch_extra", "scratch_all"),
)


def _result(seed: Seed, sizes: Sizes, signed: dict[str, list[str]]) -> RetrainResult:
    """Predicts the test cases by every model."""
    name = _configuration(seed)
    models = {}
    for model in MODELS:
        folder = _folder(seed, model)
        found = validate(
            load_model(folder, name, (FOLD,)),
            seed.test,
            seed.folder / "tested" / model,
            device="cpu",
            precision="auto",
            build=build_network,
            ranks=ALONE,
            curve=(),
        )
        record = read_run_record(fold_folder(folder, name, FOLD))
        assert record is not None
        assert record.end is not None
        models[model] = ModelResult(
            steps=record.end.steps, minutes=round(record.end.seconds / 60, 3), cases=scores_of(found)
        )
    return RetrainResult(
        seed=seed.number,
        old_cases=sizes.old,
        validation_cases=sizes.validation,
        batch=sizes.batch,
        first_minutes=sizes.minutes,
        length_share=LENGTH_SHARE,
        processor=processor_name(),
        version=own_version(),
        configuration=name,
        shared_by_queue_and_random=len(set(signed["queue"]) & set(signed["random"])),
        models=models,
    )

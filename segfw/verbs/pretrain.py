"""``segfw pretrain``: the plan's own network learns of images alone what hidden blocks of them look like."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import say_next
from segfw.planning.work_log import log_in_work
from segfw.pretraining.pretrain_options import PretrainOptions

if TYPE_CHECKING:
    import torch

    from segfw.model.pretraining_record import PretrainingRecord
    from segfw.planning.plan import Configuration, Plan
    from segfw.planning.splits import Splits
    from segfw.training.train_request import TrainRequest


@takes_options(options=PretrainOptions)
def pretrain(work: Path, configuration: str, options: PretrainOptions = PretrainOptions()) -> PretrainingRecord:
    """Pretrains the network of a configuration on images alone, by masked reconstruction.

    Blocks of every patch are hidden, and the network learns to say what was there; ``train`` with ``init_from`` then
    begins with all its weights but the heads. No mask is read. Images that the folds validate on stay unseen, and so do
    all in ``keep_out``, found by their bytes and as near copies. What is interrupted goes on by the same call.

    Parameters
    ----------
    work
        Work folder of ``plan_and_preprocess``.
    configuration
        Whose network is pretrained: 2d, 3d_fullres or 3d_lowres.
    options
        Further images, which must stay unseen, and for how long.

    Returns
    -------
    PretrainingRecord
        Which images were seen and which were kept out; ``WORK/pretrained/CONFIGURATION`` holds it and the weights.

    Raises
    ------
    UserError
        If there is no such plan, no image is left, or it was begun with other options.
    CasesFailed
        If images could not be read.
    """
    from segfw.model.pretraining_record import pretrained_folder
    from segfw.planning.work_folder import load_plan_and_splits

    work = Path(work)
    plan, splits = load_plan_and_splits(work)
    chosen = plan.configuration(configuration)
    require_pretrainable(chosen)
    return pretrain_into(pretrained_folder(work, configuration), work, plan, splits, chosen, options)


def require_pretrainable(chosen: Configuration) -> None:
    """UserError for networks that see more than the image."""
    from segfw.base.records import UserError

    if chosen.previous_stage is not None:
        raise UserError(
            f"{chosen.name}: sees masks beside the image, so that images alone cannot pretrain it; pretrain "
            "3d_fullres, and begin with that"
        )


def pretrain_into(
    folder: Path, work: Path, plan: Plan, splits: Splits, chosen: Configuration, options: PretrainOptions
) -> PretrainingRecord:
    """Pretrains into ``folder``; Busy if another process is at it."""
    from segfw.base.locks import held

    lock = folder.with_name(f".{folder.name}.lock")
    with held(lock, f"{folder}: is being pretrained", "wait until it ends"):
        return _pretrain(folder, work, plan, splits, chosen, options)


def _pretrain(
    folder: Path, work: Path, plan: Plan, splits: Splits, chosen: Configuration, options: PretrainOptions
) -> PretrainingRecord:
    """All that is written, by one process at a time."""
    import shutil

    import segfw.training.loop
    from segfw.base.ranks import local_device
    from segfw.model.pretraining_record import PRETRAINING_FILE, read_pretraining
    from segfw.model.source import WEIGHTS_FILE
    from segfw.pretraining.image_pool import images_in
    from segfw.training.checkpoint import CHECKPOINT_FILE

    if options.overwrite:
        for further in (*options.images, *options.keep_out):
            images_in(Path(further), plan)  # a wrong folder is told before what is there is deleted
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)  # first: what is half deleted must not count as finished
        shutil.rmtree(folder, ignore_errors=True)
    record = read_pretraining(folder)
    if record is None:
        record = _begin(work, plan, splits, chosen, folder, options)
        record.save(folder / PRETRAINING_FILE)
    else:
        _require_same(record, options, folder)
        _require_same_work(record, chosen, _unseen(splits, options.folds), folder)
    _say_images(record)
    device = local_device(options.device)
    if not (folder / WEIGHTS_FILE).is_file():
        resume = (folder / CHECKPOINT_FILE).is_file()
        print(f"{'going on with' if resume else 'pretraining'} {chosen.name} on {len(record.learnt)} images")
        segfw.training.loop.train(_request(chosen, record, folder, options, str(device), resume=resume))
    elif record.end is not None:
        print(f"{folder}: is already pretrained")
        return record
    return _finish(chosen, record, folder, device)


def _begin(
    work: Path, plan: Plan, splits: Splits, chosen: Configuration, folder: Path, options: PretrainOptions
) -> PretrainingRecord:
    """Gathers the images, and decides what is learnt of."""
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.model.pretraining_record import PretrainingRecord
    from segfw.networks import build_network
    from segfw.networks.transfer import head_names
    from segfw.pretraining.image_pool import IMAGES, ImageSources, gather_images
    from segfw.pretraining.reconstruction import reconstructing_network
    from segfw.pretraining.seen_images import save_signatures

    manifest = DatasetManifest.load(work / MANIFEST_FILE)
    sources = ImageSources(
        work=work,
        data_name=chosen.data_name,
        preprocessing=chosen.preprocessing,
        plan=plan,
        cases=manifest.cases,
        unseen=_unseen(splits, options.folds),
        folders=tuple(map(Path, options.images)),
        keep_out=tuple(map(Path, options.keep_out)),
    )
    pool = gather_images(sources, folder / IMAGES, options.workers)
    save_signatures(folder, pool.signatures)
    network = reconstructing_network(chosen.network)
    return PretrainingRecord(
        configuration=chosen.name,
        network=network,
        heads=tuple(sorted(head_names(network, build_network))),
        asked=options.decisive(),
        folds=options.folds,
        seen=pool.seen,
        judged=pool.judged,
        kept_out=pool.kept_out,
    )


def _unseen(splits: Splits, folds: Sequence[str]) -> dict[str, str]:
    """The cases of the work folder that must stay unseen, with the reason for each."""
    unseen: dict[str, str] = {}
    for fold in folds:
        for case in splits.fold(fold).validation:
            unseen.setdefault(case, f"fold {fold} validates on")
    return unseen


def _require_same_work(
    record: PretrainingRecord, chosen: Configuration, unseen: Mapping[str, str], folder: Path
) -> None:
    """UserError if the work folder was planned anew since: for another network, or with folds that it has seen."""
    from segfw.base.records import UserError
    from segfw.pretraining.reconstruction import reconstructing_network

    if record.network != reconstructing_network(chosen.network):
        raise UserError(f"{folder}: was begun with another plan's network; give --overwrite to begin anew")
    seen = [image.id for image in record.seen if image.id in unseen]
    if seen:
        raise UserError(
            f"{folder}: was begun with other folds and has seen {seen[0]}, which {unseen[seen[0]]}; give --overwrite "
            "to begin anew"
        )


def _require_same(record: PretrainingRecord, options: PretrainOptions, folder: Path) -> None:
    from segfw.base.records import UserError

    for name, now in options.decisive().items():
        before = record.asked.get(name)
        if before != now:
            raise UserError(
                f"{folder}: was begun with {name} {_said(before)}, not {_said(now)}; give the same again, or "
                "--overwrite to begin anew"
            )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _say_images(record: PretrainingRecord) -> None:
    from segfw.base.words import count

    judged = f", {len(record.judged)} more to judge it on" if record.judged else ""
    print(f"{count(len(record.learnt), 'image')} to learn of{judged}; none that fold {', '.join(record.folds)} scores")
    for image in record.kept_out:
        print(f"  note: {image.id} stays unseen: it {image.reason}")


def _request(
    chosen: Configuration,
    record: PretrainingRecord,
    folder: Path,
    options: PretrainOptions,
    device: str,
    *,
    resume: bool,
) -> TrainRequest:
    """The training of one fold whose cases are images, and whose lesson is what is hidden in them."""
    from segfw.planning.splits import Fold
    from segfw.pretraining.image_pool import IMAGES
    from segfw.pretraining.reconstruction import reconstruction
    from segfw.training.settings import TrainSettings
    from segfw.training.train_request import TrainRequest

    return TrainRequest(
        folder=folder,
        preprocessed=folder / IMAGES,
        configuration=chosen.model_copy(update={"network": record.network}),
        fold=Fold(train=record.learnt, validation=record.judged),
        settings=TrainSettings(
            epochs=options.epochs,
            steps_per_epoch=options.steps_per_epoch,
            time_budget_s=options.time_budget_s,
            batch_size=options.batch_size,
            seed=options.seed,
            precision=options.precision,
        ),
        label_names=(),
        lesson=reconstruction(chosen.network),
        device=device,
        resume=resume,
    )


def _finish(chosen: Configuration, record: PretrainingRecord, folder: Path, device: torch.device) -> PretrainingRecord:
    """Pictures, and what came of it."""
    from segfw.model.pretraining_record import PRETRAINING_FILE, PretrainingEnd
    from segfw.model.source import WEIGHTS_FILE
    from segfw.model.training_record import read_metrics, read_run_record
    from segfw.model.weights import load_tensors
    from segfw.networks import build_network
    from segfw.pretraining.image_pool import IMAGES
    from segfw.pretraining.reconstruction import PICTURES_FILE
    from segfw.pretraining.reconstruction_pictures import reconstruct, write_pictures

    network = build_network(record.network).to(device)
    network.load_state_dict(load_tensors(folder / WEIGHTS_FILE)[0])
    shown = record.judged or record.learnt
    found = reconstruct(network, folder / IMAGES, shown, chosen.patch_size, chosen.network.downsampling)
    write_pictures(folder / PICTURES_FILE, found)
    run = read_run_record(folder)
    rows = read_metrics(folder)
    end = PretrainingEnd(
        steps=run.end.steps if run is not None and run.end is not None else sum(row["steps"] for row in rows),
        seconds=run.end.seconds if run is not None and run.end is not None else rows[-1]["elapsed_s"],
        explained=rows[-1]["val_explained"] if rows else None,
    )
    finished = record.model_copy(update={"end": end})
    finished.save(folder / PRETRAINING_FILE)
    return finished


def _say_result(typed: argparse.Namespace, record: PretrainingRecord) -> None:
    from segfw.model.pretraining_record import pretrained_folder

    folder = pretrained_folder(typed.work, typed.configuration)
    if record.end is not None and record.end.explained is not None:
        print(f"explained: {record.end.explained:.1%} of the squares of hidden voxels after {record.end.steps:,} steps")
    print(f"pictures: {folder / 'reconstructions.png'}")
    say_next("train", typed.work, typed.configuration, record.folds[0], "--init-from", folder)


COMMAND = Command(
    function=pretrain,
    what="Let the plan's network learn of images alone, without masks, before it is trained.",
    example="segfw pretrain work 3d_fullres --images unlabelled --time-budget 4h",
    arguments=(
        Argument(name="work", help="work folder of plan-and-preprocess"),
        Argument(name="configuration", help="2d, 3d_fullres or 3d_lowres", parse=str),
    ),
    say_result=_say_result,
    log_place=log_in_work,
)

"""From a request to a run: the network and where it stands, then all that is decided before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from segfw.base.device import compiling_pays, keep_to_device_memory, pick_precision, tune_convolutions
from segfw.base.device_timer import DeviceTimer
from segfw.base.durations import duration_text
from segfw.base.file_names import RUN_SETTINGS_FILE as SETTINGS_FILE
from segfw.base.gpu_faults import require_right_gpu
from segfw.base.ranks import local_device
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.grid.store import CaseArrays
from segfw.kernels.trial import has_triton
from segfw.model.short_runs import features_that_tell, too_few_steps, usefulness
from segfw.model.training_record import RunRecord
from segfw.networks import ENCODER_LAYERS, BuildNetwork, build_network, fastest_layout
from segfw.networks.fused_layers import with_fused_norms
from segfw.networks.losses import LOSSES, Loss
from segfw.networks.refiner_loss import build_refiner_loss
from segfw.networks.spec import PLAIN
from segfw.planning.memory import CONTEXT_GB
from segfw.planning.plan import Configuration
from segfw.planning.published import STEPS_PER_EPOCH
from segfw.training.batches import Batches
from segfw.training.captured_steps import CapturedSteps, why_not_captured
from segfw.training.checkpoint import CHECKPOINT_FILE, Checkpoints, TrainState, load_checkpoint, require_checkpoint
from segfw.training.feeding import open_cases
from segfw.training.metrics_log import keep_metrics_before
from segfw.training.pace import Pace, measured_pace
from segfw.training.patch_stages import PatchStage, smaller_patches, stages_text
from segfw.training.progress_page import ProgressPage
from segfw.training.refiner_batches import RefinerBatches
from segfw.training.refiner_samples import RefinerRules
from segfw.training.run_record import describe_session, facts_of, note_session
from segfw.training.sampling import TRAINING_STREAM, VALIDATION_STREAM
from segfw.training.schedule import FittedSettings, extended, fit_to_length, stages_of, steps_within
from segfw.training.settings import TrainSettings
from segfw.training.step import Compute, TriedWorkspace, memory_errors_named, prepare_forward
from segfw.training.stop_file import StopFile
from segfw.training.train_request import TrainRequest
from segfw.training.train_run import TrainRun
from segfw.training.training_kernels import TrainingKernels, training_kernels
from segfw.training.whole_case_validation import WholeCases
from segfw.training.writers import Writer, open_writers


def training_device(name: str) -> torch.device:
    """This rank's device, set up for training; raises UserError if there is none of that name."""
    device = local_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # or pinning memory would also occupy the first card
        keep_to_device_memory(device)
        tune_convolutions(device)  # all patches of a stage have one size
    return device


def limit_of_tensors_gb(settings: TrainSettings) -> float | None:
    """What PyTorch may take of a GPU, where a training keeps to so much of it: less by what CUDA takes by itself."""
    return None if settings.gpu_limit_gb is None else settings.gpu_limit_gb - CONTEXT_GB


def settings_of_begun_run(request: TrainRequest) -> FittedSettings | None:
    """What the run that is to go on was begun with; None for a new run. Raises UserError without a checkpoint."""
    if not request.resume:
        return None
    require_checkpoint(request.folder)
    return FittedSettings.load(request.folder / SETTINGS_FILE)


def fresh_or_resumed(request: TrainRequest, settings: TrainSettings, device: torch.device) -> TrainState:
    """A new network with its optimiser, or one that stands where the last checkpoint left it.

    Raises UserError if the checkpoint is of another network.
    """
    torch.manual_seed(settings.seed)
    state = new_state(request.configuration, settings, device, request.build)
    if request.resume:
        load_checkpoint(request.folder / CHECKPOINT_FILE, state)
        return state
    if request.start is not None:
        request.start(state.network)
    state.counters.parts = settings.accumulate
    return state


def new_state(
    configuration: Configuration, settings: TrainSettings, device: torch.device, build: BuildNetwork
) -> TrainState:
    """A network with weights drawn anew, and its optimiser."""
    network = fastest_layout(build(configuration.network).to(device))
    if settings.kernels and has_triton(device):
        network = with_fused_norms(network, device)
    optimizer = torch.optim.SGD(
        rate_groups(network, configuration.network.architecture, settings.encoder_rate),
        lr=0.01,  # rate and momentum are set anew in every step
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    for parameter in network.parameters():
        # Zeros give the same first step, and a first fp16 step that overflows leaves no uninitialised momentum behind.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    needs_scaling = pick_precision(settings.precision, device, for_training=True) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=needs_scaling)
    return TrainState(network=network, optimizer=optimizer, scaler=scaler, forward=network)


def rate_groups(network: nn.Module, architecture: str, encoder_rate: float) -> list[dict[str, Any]]:
    """The weights in groups of one learning rate, each with its factor on it: the encoder's, and the others.

    A single group where all are alike, so that the order of sums is that of every run of before.
    """
    if encoder_rate == 1:
        return [{"params": list(network.parameters()), "rate_factor": 1.0}]
    prefixes = ENCODER_LAYERS.get(architecture, ENCODER_LAYERS[PLAIN])
    encoder = [weights for name, weights in network.named_parameters() if name.startswith(prefixes)]
    others = [weights for name, weights in network.named_parameters() if not name.startswith(prefixes)]
    groups = ((encoder, encoder_rate), (others, 1.0))
    return [{"params": params, "rate_factor": factor} for params, factor in groups if params]


def prepare_run(
    request: TrainRequest, begun_with: FittedSettings | None, device: torch.device, state: TrainState
) -> TrainRun:
    """Decides all that is left to decide, opens the cases and writes down what the run is made with.

    Here and not before the state is made: the batch of a time budget follows from the pace of its network, and an
    extension from its counters. ``begun_with`` are the settings of a run that goes on, None for a new one.
    """
    # What is computed
    configuration = request.configuration
    settings = begun_with or request.settings
    kernels = training_kernels(device, request.target, are_wanted=settings.kernels)
    compute = _compute(request, settings, device, kernels)
    require_right_gpu(device, compute.precision)
    pace = _measured(request, compute, state)
    fitted = _fitted(request, compute, pace) if begun_with is None else _continued(request, begun_with, state)
    stages = stages_of(configuration, fitted.patches, fitted.patch_size, fitted.batch_size, request.ranks.joined_batch)
    configuration = configuration.with_patch(stages[-1].patch_size, request.folder / SETTINGS_FILE)
    compute = replace(compute, patch_size=configuration.patch_size)
    counters = state.counters
    if not counters.seen_voxels:  # of a checkpoint of an earlier version, whose patches were all alike
        counters.seen_voxels = counters.step * stages[-1].voxels
    checkpoints = Checkpoints(request.folder, request.ranks.is_first, request.checkpoint_every_s, request.now_s)
    if begun_with is None and request.ranks.is_first:
        # Compiling and opening cases take minutes: what is killed in them goes on as it was begun.
        fitted.save(request.folder / SETTINGS_FILE)
        checkpoints.save(state)
        checkpoints.finish()
    with memory_errors_named(request.folder, compute, fitted.batch_size):
        prepare_forward(compute, state, fitted.batch_size, shapes=len(stages), is_compiled=bool(fitted.compile))
    print(
        f"batch {fitted.batch_size}, momentum {fitted.momentum:.3f}, "
        f"{'mirroring' if fitted.mirroring else 'no mirroring'}, {_precision_text(configuration, compute)}"
    )
    expected = "" if begun_with else _expected(request, fitted, stages, pace)
    if pace is not None and request.ranks.is_first:
        print(expected)
    if len(stages) > 1:
        print(f"patches grow: {stages_text(stages)}")

    # On which data
    train_cases = _open_cases(request, request.fold.train, fitted, device)
    val_cases = train_cases
    if request.fold.validation:
        val_cases = _open_cases(request, request.fold.validation, fitted, device)

    # Where it is written down
    writers: list[Writer] = []
    facts: dict[str, str] = {}
    if request.ranks.is_first:
        precision = used_precision(configuration, device, compute.precision)
        record = _begin_log(request, fitted, state, device, precision, expected)
        writers = open_writers(request.log, request.folder, record)
        facts = facts_of(record.sessions[-1], configuration, request.fold)
    return TrainRun(
        folder=request.folder,
        configuration=configuration,
        settings=fitted,
        label_names=tuple(request.label_names),
        target=request.target,
        compute=compute,
        train_ids=request.fold.train,
        stages=stages,
        stage_batches=tuple(
            replace(
                _batches(request, configuration, fitted, train_cases, TRAINING_STREAM, stage),
                augment=request.augment,
                augmentation=fitted.augmentation if request.lesson is None else "spatial",
                warp=kernels.warp,
                weights=request.fold.weights,
            )
            for stage in stages
        ),
        val_batches=_batches(request, configuration, fitted, val_cases, VALIDATION_STREAM, stages[-1]),
        whole_cases=_whole_cases(request, configuration, val_cases),
        checkpoints=checkpoints,
        stop_file=StopFile(request.folder, request.look_for_stop_every_s, request.now_s),
        augmentation_timer=DeviceTimer(device),
        workspace=TriedWorkspace(device),
        steps=_steps(request, fitted, compute, state),
        writers=writers,
        page=_page(request, facts),
        lesson=request.lesson,
        keep_at=request.keep_at,
        fewest_gain=request.fewest_gain,
        now_s=request.now_s,
    )


def _page(request: TrainRequest, facts: dict[str, str]) -> ProgressPage:
    lesson = request.lesson
    return ProgressPage(
        request.folder,
        request.label_names,
        facts,
        is_first=request.ranks.is_first,
        title="" if lesson is None else lesson.title,
    )


def _compute(request: TrainRequest, settings: TrainSettings, device: torch.device, kernels: TrainingKernels) -> Compute:
    configuration = request.configuration
    return Compute(
        device=device,
        precision=_precision(request, settings, device),
        loss=_loss(request, settings, kernels),
        ranks=request.ranks,
        gradient_clip=settings.gradient_clip,
        in_channels=configuration.network.in_channels,
        patch_size=configuration.patch_size,
        truth_channels=None if request.lesson is None else request.lesson.truth_channels,
        limit_gb=settings.gpu_limit_gb if device.type == "cuda" else None,
    )


def _precision(request: TrainRequest, settings: TrainSettings, device: torch.device) -> torch.dtype:
    """That of the run that goes on or, in a new one, what is faster here; the same on all ranks, as the first finds."""
    if settings.training_precision is not None:
        return pick_precision(settings.training_precision, device)
    picked = pick_precision(settings.precision, device, for_training=True)
    if device.type != "cpu" or settings.precision != "auto":
        return picked
    (is_bf16,) = request.ranks.from_first(picked == torch.bfloat16)
    return torch.bfloat16 if is_bf16 else torch.float32


def _loss(request: TrainRequest, settings: TrainSettings, kernels: TrainingKernels) -> Loss:
    """The loss that was passed or, of a lesson or by its name in the settings, one that is joined over ranks."""
    if request.lesson is not None:
        return request.lesson.build_loss(request.ranks.sum_with_gradient)
    if request.configuration.is_refiner:
        return build_refiner_loss(request.ranks.sum_with_gradient)
    if request.build_loss is not None:
        loss = request.build_loss(request.configuration, request.target)
        if _annotated_outputs(request, request.fold.train) and not _takes_annotated(loss):
            raise UserError(
                f"{request.folder}: some of its cases are annotated in part, and the loss that was passed takes no "
                "argument 'annotated'; add it, or leave these cases out"
            )
        return loss
    join = request.ranks.sum_with_gradient
    return LOSSES[settings.loss](request.configuration, request.target, join, kernels.sums)


def _takes_annotated(loss: Loss) -> bool:
    taken = signature(loss).parameters.values()
    return any(each.name == "annotated" or each.kind is Parameter.VAR_KEYWORD for each in taken)


def _measured(request: TrainRequest, compute: Compute, state: TrainState) -> Pace | None:
    """The pace of all ranks together, where the time of a new run has to be filled."""
    settings = request.settings
    if settings.time_budget_s is None or request.resume:
        return None
    patches = smaller_patches(request.configuration.patch_size, request.configuration.network.downsampling)
    with memory_errors_named(request.folder, compute, settings.batch_size):
        here = measured_pace(compute, state, patches, settings.time_budget_s, request.now_s)
    return Pace(fixed_s=here.fixed_s, voxel_s=here.voxel_s / request.ranks.count)


def _fitted(request: TrainRequest, compute: Compute, pace: Pace | None) -> FittedSettings:
    """Settings of a new run, with what depends on its length and on the device."""
    settings = request.settings
    fitted = fit_to_length(
        settings,
        request.configuration,
        pace,
        len(request.fold.train),
        request.ranks.joined_batch,
        keeps_patch=request.keeps_patch,
    )
    if compute.device.type == "cpu" and settings.precision == "auto":  # which is not measured anew when it goes on
        fitted = replace(fitted, training_precision="fp32" if compute.precision == torch.float32 else "bf16")
    if settings.compile is not None:
        return fitted
    # Kept with the settings, so that a resumed run does the same.
    steps = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
    shapes = len(stages_of(request.configuration, fitted.patches, fitted.patch_size, fitted.batch_size))
    pays = compiling_pays(compute.device, seconds=settings.time_budget_s, steps=steps, shapes=shapes)
    # The compiler would join the norms by itself, and their kernel would have nothing to do; a step that is replayed is
    # one launch already.
    is_replayed = settings.cuda_graphs == "on" and compute.device.type == "cuda"
    return replace(fitted, compile=pays and not settings.kernels and not is_replayed)


def _expected(request: TrainRequest, settings: FittedSettings, stages: Sequence[PatchStage], pace: Pace | None) -> str:
    """How many steps there will be, and what they are enough for; a warning where they are too few."""
    features = features_that_tell(request.configuration)
    if pace is None or settings.time_budget_s is None:
        steps = settings.epochs * (settings.steps_per_epoch or STEPS_PER_EPOCH)
        said = f"{steps:,} steps"
        return said if request.lesson else f"{said}: {usefulness(steps, request.structure_shares, features)}"
    steps = int(steps_within(stages, settings.time_budget_s, pace))
    said = f"measured: about {steps:,} steps fit into {duration_text(settings.time_budget_s)} on this device"
    if request.lesson:
        return said
    said += f": {usefulness(steps, request.structure_shares, features)}"
    return f"{said}\nwarning: {too_few_steps(steps)}" if too_few_steps(steps) else said


def _continued(request: TrainRequest, begun_with: FittedSettings, state: TrainState) -> FittedSettings:
    """Settings of a run that goes on, for longer if that is asked for.

    Raises UserError where the processes cannot share its batch.
    """
    if begun_with.batch_size % request.ranks.count:
        raise UserError(
            f"{request.folder}: was begun with a batch of {begun_with.batch_size}, which {request.ranks.count} "
            "processes cannot share; go on with as many as before"
        )
    if not request.is_extended:
        return begun_with
    settings = extended(begun_with, state.counters, epochs=request.extend_epochs, seconds=request.extend_s)
    more = count(request.extend_epochs, "epoch") if request.extend_epochs else f"{request.extend_s:.0f} s"
    state.counters.events["extended"] = f"extended by {more} after epoch {state.counters.epoch}"
    return settings


def _steps(request: TrainRequest, settings: FittedSettings, compute: Compute, state: TrainState) -> CapturedSteps:
    """What takes the steps; a line says why they are not replayed where that was asked for and cannot be."""
    wanted = settings.cuda_graphs
    reason = why_not_captured(
        compute,
        state,
        is_own=request.build is not build_network or request.build_loss is not None,
        is_annotated_in_part=bool(_annotated_outputs(request, request.fold.train)),
    )
    if wanted != "off" and reason:
        print(f"--cuda-graphs {wanted}: {reason}; going on without them")
        wanted = "off"
    return CapturedSteps(compute, wanted)


def used_precision(configuration: Configuration, device: torch.device, picked: torch.dtype) -> torch.dtype:
    """That in which the network computes its gradients: 32 bit on a CPU that has wrong ones in the ``picked``."""
    is_broken = configuration.network.breaks_bf16_on_the_cpu(configuration.patch_size)
    return torch.float32 if device.type == "cpu" and is_broken else picked


def _precision_text(configuration: Configuration, compute: Compute) -> str:
    used = used_precision(configuration, compute.device, compute.precision)
    name = str(used).removeprefix("torch.")
    if used == compute.precision:
        return name
    return f"{name} (in 16 bit PyTorch's gradients of two slices are wrong on the CPU)"


def _open_cases(
    request: TrainRequest, case_ids: tuple[str, ...], settings: FittedSettings, device: torch.device
) -> list[CaseArrays]:
    configuration = request.configuration
    planned_step_gb = configuration.estimate.training_memory_gb
    return open_cases(
        request.preprocessed,
        case_ids,
        configuration.preprocessing,
        device=device,
        step_gb=planned_step_gb * settings.batch_size / configuration.batch_size,
        previous=request.previous,
        sharers=request.ranks.on_host,
        limit_gb=limit_of_tensors_gb(settings),
    )


def _whole_cases(request: TrainRequest, configuration: Configuration, val_cases: list[CaseArrays]) -> WholeCases | None:
    """None where no whole case is to be predicted while the network trains."""
    if request.count_whole_case is None or not request.fold.validation:
        return None
    return WholeCases.of(
        dict(zip(request.fold.validation, val_cases)),
        request.count_whole_case,
        configuration.patch_size,
        structures=len(request.label_names),
        ranks=request.ranks,
        share=request.whole_cases_share,
    )


def _batches(
    request: TrainRequest,
    configuration: Configuration,
    settings: FittedSettings,
    cases: list[CaseArrays],
    stream: int,
    stage: PatchStage,
) -> Batches:
    is_training = stream == TRAINING_STREAM
    channels = configuration.preprocessing.normalization
    validates = not is_training and request.fold.validation
    case_ids = request.fold.validation if validates else request.fold.train
    make: Callable[..., Batches] = Batches
    if configuration.is_refiner:
        rules = RefinerRules(
            structures=tuple(request.structures),
            ignored=request.target.ignore,
            spacing_mm=configuration.spacing_of_clicks_mm,
            is_spoilt=is_training,
        )
        make = partial(RefinerBatches, rules=rules)
    return make(
        cases=cases,
        patch_size=stage.patch_size,
        batch_size=stage.batch_size,
        seed=settings.seed,
        stream=stream,
        augmentation=settings.augmentation if is_training else "none",
        mirror_axes=configuration.mirror_axes if settings.mirroring else (),
        foreground_share=settings.foreground_share,
        elastic=is_training and settings.elastic,
        swapped=configuration.swapped_pairs,
        previous_classes=configuration.previous_classes,
        zero_outside=tuple(index for index, rule in enumerate(channels) if rule.inside_mask),
        annotated_outputs=_annotated_outputs(request, case_ids),
        output_orders=request.output_orders,
        pose=None if request.lesson is None else request.lesson.pose,
    )


def _annotated_outputs(request: TrainRequest, case_ids: Sequence[str]) -> tuple[tuple[bool, ...], ...]:
    """Of every case which outputs are annotated; nothing where all are in all of these cases."""
    in_part = [request.annotated[case] for case in case_ids if case in request.annotated]
    if not in_part:
        return ()
    everything = (True,) * len(in_part[0])
    return tuple(request.annotated.get(case, everything) for case in case_ids)


def _begin_log(
    request: TrainRequest,
    settings: FittedSettings,
    state: TrainState,
    device: torch.device,
    precision: torch.dtype,
    expected: str,
) -> RunRecord:
    """Settings and run.json of a run that begins, with what is ``expected`` of it, or goes on at the state's epoch."""
    keep_metrics_before(request.folder, state.counters.epoch)
    settings.save(request.folder / SETTINGS_FILE)
    session = describe_session(
        how="extended" if request.is_extended else "resumed" if request.resume else "started",
        first_epoch=state.counters.epoch + 1,
        settings=settings,
        device=device,
        precision=precision,
        preprocessed=request.preprocessed,
        training_ids=request.fold.train,
        processes=request.ranks.count,
        expected=expected.partition("\n")[0],
    )
    return note_session(request.folder, session, request.label_names, request.start_facts)

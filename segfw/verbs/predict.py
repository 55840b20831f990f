"""Masks for a folder of new images: resumable, shared by any number of processes, never mixed with another model's."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segfw.base.cluster import cluster_pool
from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.dataset.labels import LABELS_FILE
from segfw.dataset.new_images import find_images
from segfw.grid.preprocess import PreprocessRecord
from segfw.images.formats import check_mask_ending
from segfw.inference.disk_space import require_space
from segfw.inference.host_memory import room_bytes
from segfw.inference.many_cases import Cohort, Lane, Worked, predict_cases, share_out
from segfw.inference.mask_settings import PredictionSettings, agree, plan_digest, weights_digest
from segfw.inference.output_folder import HIDDEN, Extra, OutputFolder
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ENDING, ProbabilityInfo, ProbabilityWriter
from segfw.inference.probabilities import FOLDER as PROBABILITIES
from segfw.inference.selected_predictor import SelectedPredictor
from segfw.inference.uncertainty import FOLDER as UNCERTAINTY
from segfw.inference.uncertainty import UncertaintySink, write_table
from segfw.model.load import Model, load_model
from segfw.model.postprocess import Postprocessing, require_steps
from segfw.model.selection import load_postprocessing, load_selection
from segfw.model.source import postprocessing_file, read_model_file
from segfw.networks import BuildNetwork, build_network

PROBABILITY_ENCODINGS = {8: "uint8", 16: "float16"}
# Of probabilities per class and byte of the image's file, and of how many classes they grow: of the others there is
# little anywhere. The maps of doubt are bytes.
PROBABILITY_SHARE, CLASSES_THAT_TAKE_SPACE, UNCERTAINTY_SHARE = 0.35, 5, 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs to predict cases, in paths and options, so that it can be sent to another machine.

    ``members`` are the configurations whose mean counts, and the folds of each; ``digest`` is of all their weights, and
    of the options.
    """

    model: Path
    output: Path
    ending: str
    members: tuple[tuple[str | None, tuple[str, ...] | None], ...]
    postprocessing: Postprocessing
    best: bool
    step: float
    mirroring: bool
    precision: str
    probability_bits: int | None
    uncertainty: bool
    max_memory_gb: float | None
    build: BuildNetwork
    digest: str = ""

    def load(self) -> list[Model]:
        return [load_model(self.model, name, folds, best=self.best) for name, folds in self.members]

    def predictor(self, loaded: Sequence[Model], device: str, *, cases: int = 1) -> SelectedPredictor:
        options = {"precision": self.precision, "step": self.step, "mirroring": self.mirroring, "build": self.build}
        how = {"device": device, "max_memory_gb": self.max_memory_gb, "cases": cases} | options
        scratch = self.output / HIDDEN
        members = tuple(Predictor.of(model, scratch=scratch, **how) for model in loaded)
        return SelectedPredictor(members=members, postprocessing=self.postprocessing, scratch=scratch)

    def folder(self, loaded: Sequence[Model]) -> OutputFolder:
        model, extras = loaded[0], []
        labels, bits = model.plan.labels, self.probability_bits

        def probabilities(path: Path, record: PreprocessRecord, _: Path) -> ProbabilityWriter:
            info = ProbabilityInfo(
                configuration=model.configuration.name,
                folds=tuple(model.weights),
                model=self.digest,
                labels=labels,
                record=record,
                encoding=PROBABILITY_ENCODINGS[bits],
            )
            return ProbabilityWriter(path, info)

        def doubt(path: Path, record: PreprocessRecord, image: Path) -> UncertaintySink:
            return UncertaintySink(path, record, labels, image)

        if bits is not None:
            share = PROBABILITY_SHARE * bits / 8 * min(labels.outputs, CLASSES_THAT_TAKE_SPACE)
            extra = Extra(folder=PROBABILITIES, ending=ENDING, open=probabilities, bytes_per_image_byte=share)
            extras.append(extra)
        if self.uncertainty:
            how = {"bytes_per_image_byte": UNCERTAINTY_SHARE, "by_member": True}
            extras.append(Extra(folder=UNCERTAINTY, ending=".json", open=doubt, **how))
        return OutputFolder(path=self.output, ending=self.ending, extras=tuple(extras))


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: str = "auto",
    device: str | Sequence[str] = "auto",
    ending: str = ".nii.gz",
    best: bool = False,
    postprocessing: Path | None = None,
    save_probabilities: int | None = None,
    uncertainty: bool = False,
    max_memory_gb: float | None = None,
    part: str | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid, and timings.json.

    Without ``configuration`` it is what ``segfw select`` chose, or the only one that is trained. Masks already there
    from the same model, options and images are kept. Any number of calls may write to one folder at the same time:
    they share the cases. ``part`` '3/8' takes every eighth case from the third on. Each of several devices takes cases
    as it can; ``cluster`` is the address of a Dask scheduler whose workers do. ``save_probabilities`` is the bits of
    each, 16 or 8. ``postprocessing`` is a selection.json, or the postprocessing.json of an imported model.

    Raises CasesFailed, at the end, if images could not be predicted, and when the disk is full; the others are done.
    """
    source, output, model = Path(source), Path(output), Path(model)
    if output.is_file() or output.resolve() == (source.resolve().parent if source.is_file() else source.resolve()):
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    check_mask_ending(ending)
    number, parts = _part(part)
    devices = (device,) if isinstance(device, str) else tuple(device)
    if cluster is not None:
        if devices != ("auto",):
            raise UserError("--device with --cluster: each worker takes its own device; leave out --device")
        source, output, model = source.absolute(), output.absolute(), model.absolute()
    if save_probabilities not in (None, *PROBABILITY_ENCODINGS):
        raise UserError(f"--save-probabilities is {save_probabilities}; give 16 or 8 bits")
    members, steps = _members(model, configuration, folds, postprocessing)
    if len(members) > 1 and (save_probabilities or uncertainty):
        names = " and ".join(name for name, _ in members)
        raise UserError(
            f"--save-probabilities and --uncertainty are of one configuration, but {names} are selected to be averaged;"
            " choose one with --configuration"
        )
    job = Job(
        model=model,
        output=output,
        ending=ending,
        members=members,
        postprocessing=steps,
        best=best,
        step=step,
        mirroring=mirroring,
        precision=precision,
        probability_bits=save_probabilities,
        uncertainty=uncertainty,
        max_memory_gb=max_memory_gb,
        build=build,
    )
    loaded = job.load()
    require_steps(steps, loaded[0].plan.labels, model)
    own = postprocessing_file(model, loaded[0].configuration.name)
    if read_model_file(own) is not None and not steps.steps and postprocessing is None:
        print(f"{own}: is not applied, as nnU-Net does not while it predicts; --postprocessing {own} does")
    found = find_images(source, loaded[0].plan.channels)
    cases = found[number - 1 :: parts]
    # On a cluster nobody but the workers needs it; it is made here to refuse wrong options, on no device.
    used = devices if cluster is None else ("cpu",)
    predictors = [job.predictor(loaded, name, cases=len(cases) // len(used)) for name in used]
    room = room_bytes(max_memory_gb) / len(used)  # now that all models are loaded
    predictors = [predictor.with_room(room) for predictor in predictors]
    settings = _settings(loaded, job)
    job = replace(job, digest=settings.digest)
    # The networks have copies of the weights; only the names of the folds are needed of them from here on.
    loaded = [replace(model, weights=dict.fromkeys(model.weights, {}), previous=None) for model in loaded]
    folder = job.folder(loaded)
    agree(folder, settings, found, cases, overwrite=overwrite)
    loaded[0].plan.labels.save(folder.path / LABELS_FILE)
    require_space([case for case in cases if not folder.is_done(case)], folder)
    which = f"{count(len(cases), 'case')}{f' (part {part} of {len(found)})' if parts > 1 else ''}"
    print(f"predicting {which} with {settings.configuration}, folds {', '.join(settings.folds)}")
    if cluster is None:
        cohort = predict_cases(predictors, cases, folder)
    else:
        with cluster_pool(cluster, reads=[model, source], writes=output) as pool:
            cohort = share_out(partial(_as_worker, secrets.token_hex(8), job), cases, folder, pool)
    _finish(cohort, folder, FAILURES_FILE if parts == 1 else f"failures_part_{number}_of_{parts}.json")


def _members(
    model: Path, configuration: str | None, folds: tuple[str, ...] | None, postprocessing: Path | None
) -> tuple[tuple[tuple[str | None, tuple[str, ...] | None], ...], Postprocessing]:
    """Configurations with their folds, None for all that are trained, and what is done to masks."""
    selection = load_selection(model) if configuration is None else None
    steps = selection.postprocessing if selection else Postprocessing()
    steps = steps if postprocessing is None else load_postprocessing(postprocessing)
    if selection is None and postprocessing is None:
        return ((configuration, folds),), steps
    which = f"as segfw select chose: {selection.name}, " if selection else ""
    print(f"{which}only the largest component of: {steps.text}")
    chosen = [(name, folds or selection.folds[name]) for name in selection.configurations] if selection else []
    return tuple(chosen) or ((configuration, folds),), steps


def _settings(loaded: Sequence[Model], job: Job) -> PredictionSettings:
    several = len(loaded) > 1
    return PredictionSettings(
        configuration=" + ".join(model.configuration.name for model in loaded),
        folds=tuple(
            f"{model.configuration.name}:{fold}" if several else fold for model in loaded for fold in model.weights
        ),
        weights_digest=weights_digest(loaded),
        plan_digest=plan_digest(loaded),
        step=job.step,
        mirroring=job.mirroring,
        postprocessing=job.postprocessing,
        precision=job.precision,
        probability_bits=job.probability_bits,
    )


def _part(text: str | None) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, parts = (int(group) for group in match.groups()) if match else (0, 0)
    if not 1 <= number <= parts:
        raise UserError(f"--part is {text!r}; give which part of how many, such as 3/8")
    return number, parts


_LANES: dict[str, Lane] = {}  # of this worker: the model of the latest call, loaded once
_LOADING = threading.Lock()


def _as_worker(call: str, job: Job, case: Case) -> Worked:
    """Does a case in a worker of a cluster."""
    with _LOADING:
        if call not in _LANES:
            _LANES.clear()
            loaded = job.load()
            _LANES[call] = Lane(job.predictor(loaded, "auto"), job.folder(loaded))
        lane = _LANES[call]
    return lane(case)


def _finish(cohort: Cohort, folder: OutputFolder, failures_file: str) -> None:
    try:
        folder.write_timings()
        is_asked = any(extra.folder == UNCERTAINTY for extra in folder.extras)
        # Also of a run that was killed before this.
        if is_asked and any((folder.path / UNCERTAINTY).glob("[!.]*.json")):
            with folder.alone():
                write_table(folder.path)
    except (OSError, UserError) as error:
        if not cohort.failures:  # else it is the full disk that they tell of
            raise UserError(f"{folder.path}: the masks are done, but not the tables beside them ({error})") from None
    print(f"{count(cohort.predicted, 'case')} predicted, {cohort.kept} were there")
    if cohort.failures:
        how = {"file_name": failures_file, "not_begun": cohort.not_begun}
        raise CasesFailed("in prediction", cohort.failures, folder.path, **how)
    (folder.path / failures_file).unlink(missing_ok=True)
    if failures_file == FAILURES_FILE:  # all cases are done, whichever part they were of
        for old in folder.path.glob("failures_part_*.json"):
            old.unlink(missing_ok=True)

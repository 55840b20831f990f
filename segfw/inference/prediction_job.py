"""What a process needs to predict the cases of a folder: which networks, with what options, and what it writes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.records import UserError
from segfw.base.shared_work import CaseResult, CohortResult
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.dataset.finished_mask import ImageFormat, MaskFormat, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import only_structures
from segfw.dataset.totalsegmentator import in_their_numbers
from segfw.images.formats import PLAIN_MASK
from segfw.inference.many_cases import CasePipeline
from segfw.inference.mask_settings import PredictionSettings, plan_digest, weights_digest
from segfw.inference.output_folder import HIDDEN, Extra, OutputFolder
from segfw.inference.predict_protocol import PreparedImage
from segfw.inference.prediction_options import PredictOptions
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import ENDING, Encoding, ProbabilityInfo, ProbabilityWriter
from segfw.inference.probabilities import FOLDER as PROBABILITIES
from segfw.inference.selected_predictor import PreparedForEach, SelectedPredictor
from segfw.inference.uncertainty import FOLDER as UNCERTAINTY
from segfw.inference.uncertainty import UncertaintySink, write_table
from segfw.model.load import Model, read_model
from segfw.model.postprocess import Postprocessing, require_steps
from segfw.model.selection import SEPARATOR, load_postprocessing, load_selection
from segfw.model.source import ModelSource, postprocessing_file, read_model_file
from segfw.networks import BuildNetwork

PROBABILITY_ENCODINGS: dict[int, Encoding] = {8: "uint8", 16: "float16"}  # by the bits of each probability
# Bytes of probabilities per class and byte of the image's file, and how many classes they grow with: of the others
# there is little anywhere. The maps of doubt are bytes.
PROBABILITY_SHARE = 0.35
CLASSES_THAT_TAKE_SPACE = 5
UNCERTAINTY_SHARE = 1.0


@dataclass(frozen=True, kw_only=True)
class ChosenFolds:
    """Folds of one configuration that predict; None stands for ``default_configuration``, and for all folds."""

    configuration: str | None
    folds: tuple[str, ...] | None


class MakesExtra(Protocol):
    """Something of a room above this one that is made of every case; it is sent along with the job."""

    def extra(self, job: PredictionJob, model: Model) -> Extra:
        """What is made of every case; of the model no weights are needed."""


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """All that a process needs to predict cases, in paths and options, so that it can be sent to another machine.

    ``members`` are the configurations whose mean counts; ``digest`` is of all their weights, and of the options.
    ``only`` are the structures that are wanted (empty: all), ``written`` the labels of the masks where they are not the
    plan's; both are known with the models (``with_wanted``). ``makers`` make what rooms above this one add to masks,
    ``quality`` is the digest of what the masks are judged by.
    """

    model: Path
    output: Path
    members: tuple[ChosenFolds, ...]
    postprocessing: Postprocessing
    options: PredictOptions
    build: BuildNetwork
    digest: str = ""
    only: tuple[str, ...] = ()
    written: LabelSet | None = None
    formats: tuple[MaskFormat, ...] = (ImageFormat(),)
    makers: tuple[MakesExtra, ...] = ()
    quality: str | None = None

    @staticmethod
    def of(model: Path, output: Path, options: PredictOptions, build: BuildNetwork) -> PredictionJob:
        """What the options ask for, or what ``select`` chose; UserError if the two do not go together."""
        if options.save_probabilities not in (None, *PROBABILITY_ENCODINGS):
            raise UserError(f"--save-probabilities is {options.save_probabilities}; give 16 or 8 bits")
        members, steps = _chosen(model, options)
        if len(members) > 1 and (options.save_probabilities or options.uncertainty):
            names = " and ".join(str(member.configuration) for member in members)
            raise UserError(
                f"--save-probabilities and --uncertainty are of one configuration, but {names} are selected to be "
                "averaged; choose one with --configuration"
            )
        return PredictionJob(
            model=model, output=output, members=members, postprocessing=steps, options=options, build=build
        )

    def load(self) -> list[Model]:
        """The model of each member."""
        with ModelSource.open(self.model) as source:
            return [
                read_model(source, member.configuration, member.folds, best=self.options.best)
                for member in self.members
            ]

    def with_wanted(self, loaded: Sequence[Model]) -> PredictionJob:
        """The same with the structures and numbers that the options ask for; UserError if the model has no such."""
        labels = loaded[0].plan.labels
        only = () if self.options.only is None else only_structures(labels, self.options.only, self.model)
        written = None
        if self.options.names is not None:
            written = in_their_numbers(labels, only or tuple(labels.structures), self.options.names, self.model)
        return replace(self, only=only, written=written)

    def labels(self, loaded: Sequence[Model]) -> LabelSet:
        """What the values in the masks mean."""
        return self.written or loaded[0].plan.labels

    def written_only(self, loaded: Sequence[Model]) -> tuple[str, ...]:
        """The wanted structures as the masks' labels call them; empty if all are wanted."""
        known = loaded[0].plan.labels.names
        return tuple(self.written.names[known.index(name)] for name in self.only) if self.written else self.only

    @property
    def image_ending(self) -> str:
        """Of masks that are image files, also where none is asked for."""
        return next((each.ending for each in self.formats if isinstance(each, ImageFormat)), PLAIN_MASK)

    def check_postprocessing(self, loaded: Sequence[Model]) -> None:
        """UserError if a step is of other labels; says so where an imported model's steps are not applied."""
        require_steps(self.postprocessing, loaded[0].plan.labels, self.model)
        file = postprocessing_file(self.model, loaded[0].configuration.name)
        is_left_out = not self.postprocessing.steps and self.options.postprocessing is None
        if is_left_out and read_model_file(file) is not None:
            print(f"{file}: is not applied, as nnU-Net does not while it predicts; --postprocessing {file} does")

    def predictor(self, loaded: Sequence[Model], device: str, *, cases: int = 1) -> SelectedPredictor:
        """The networks of all members on a device."""
        scratch = self.output / HIDDEN
        members = [
            Predictor.of(
                model,
                device=device,
                precision=self.options.precision,
                step=self.options.step,
                mirroring=self.options.mirroring,
                max_memory_gb=self.options.max_memory_gb,
                scratch=scratch,
                kernels=self.options.kernels,
                cases=cases,
                build=self.build,
            )
            for model in loaded
        ]
        return SelectedPredictor(
            members=tuple(members),
            postprocessing=self.postprocessing,
            scratch=scratch,
            only=self.only,
            written=self.written,
        )

    def settings(self, loaded: Sequence[Model]) -> PredictionSettings:
        """What the masks are made with, as it is kept beside them."""
        folds: list[str] = []
        for model in loaded:
            prefix = f"{model.configuration.name}:" if len(loaded) > 1 else ""
            folds += [f"{prefix}{fold}" for fold in model.weights]
        return PredictionSettings(
            configuration=SEPARATOR.join(model.configuration.name for model in loaded),
            folds=tuple(folds),
            weights_digest=weights_digest(loaded),
            plan_digest=plan_digest(loaded),
            step=self.options.step,
            mirroring=self.options.mirroring,
            postprocessing=self.postprocessing,
            precision=self.options.precision,
            probability_bits=self.options.save_probabilities,
            only=self.only,
            names=self.options.names,
            quality=self.quality,
            holes=self.options.holes_asked,
            seg_type=self.options.seg_type_asked,
        )

    def folder(self, loaded: Sequence[Model]) -> OutputFolder:
        """Where the masks go, and what is made besides them. Of the models no weights are needed."""
        extras = []
        if self.options.save_probabilities is not None:
            extras.append(self._probabilities(loaded[0], self.options.save_probabilities))
        if self.options.uncertainty:
            extras.append(self._uncertainty(loaded[0]))
        extras += [maker.extra(self, loaded[0]) for maker in self.makers]
        configurations = " + ".join(model.configuration.name for model in loaded)
        return OutputFolder(
            path=self.output,
            formats=self.formats,
            extras=tuple(extras),
            labels=self.labels(loaded),
            only=self.written_only(loaded),
            maker=MaskMaker(name=f"segfw {configurations}", digest=self.digest),
        )

    def _probabilities(self, model: Model, bits: int) -> Extra:
        labels = model.plan.labels
        configuration = model.configuration.name
        folds = tuple(model.weights)
        digest = self.digest

        def open_writer(path: Path, prepared: PreparedImage, _: Case) -> ProbabilityWriter:
            info = ProbabilityInfo(
                configuration=configuration,
                folds=folds,
                model=digest,
                labels=labels,
                record=prepared.record,
                encoding=PROBABILITY_ENCODINGS[bits],
            )
            return ProbabilityWriter(path, info)

        share = PROBABILITY_SHARE * bits / 8 * min(labels.outputs, CLASSES_THAT_TAKE_SPACE)
        return Extra(folder=PROBABILITIES, ending=ENDING, open=open_writer, bytes_per_image_byte=share)

    def _uncertainty(self, model: Model) -> Extra:
        labels = model.plan.labels

        def open_sink(path: Path, prepared: PreparedImage, case: Case) -> UncertaintySink:
            return UncertaintySink(path, prepared.record, labels, case.images[0])

        return Extra(
            folder=UNCERTAINTY,
            ending=".json",
            open=open_sink,
            bytes_per_image_byte=UNCERTAINTY_SHARE,
            by_member=True,
            write_table=write_table,
        )


def _chosen(model: Path, options: PredictOptions) -> tuple[tuple[ChosenFolds, ...], Postprocessing]:
    """Configurations with their folds, and what is done to masks."""
    asked = ChosenFolds(configuration=options.configuration, folds=options.folds)
    selection = load_selection(model) if options.configuration is None else None
    if options.postprocessing is not None:
        steps = load_postprocessing(options.postprocessing)
    elif selection is not None:
        steps = selection.postprocessing
    else:
        return (asked,), Postprocessing()
    choice = "" if selection is None else f"as segfw select chose: {selection.name}, "
    decoded = f"; largest expected Dice of: {steps.decoding_text}" if steps.decoding else ""
    print(f"{choice}only the largest component of: {steps.text}{decoded}")
    if selection is None:
        return (asked,), steps
    members = [
        ChosenFolds(configuration=name, folds=options.folds or selection.folds[name])
        for name in selection.configurations
    ]
    return tuple(members), steps


def without_weights(loaded: Sequence[Model]) -> list[Model]:
    """The models and their first stages with the names of folds alone, whose weights the networks have copies of."""
    emptied = []
    for model in loaded:
        previous = None if model.previous is None else without_weights([model.previous])[0]
        emptied.append(replace(model, weights=dict.fromkeys(model.weights, {}), previous=previous))
    return emptied


_PIPELINES: dict[str, CasePipeline[PreparedForEach]] = {}  # of this worker: the model of the latest call, loaded once
_LOADING = threading.Lock()


def predict_as_worker(call: str, job: PredictionJob, case: Case) -> CaseResult:
    """Does a case in a worker of a cluster; ``call`` is the same for all cases of one call of ``predict``."""
    with _LOADING:
        if call not in _PIPELINES:
            _PIPELINES.clear()
            loaded = job.load()
            _PIPELINES[call] = CasePipeline(job.predictor(loaded, "auto"), job.folder(loaded))
        pipeline = _PIPELINES[call]
    return pipeline(case)


def finish_folder(cohort: CohortResult[Case], folder: OutputFolder, failures_file: str) -> None:
    """Writes the tables beside the masks and says what was done; raises CasesFailed if some cases failed."""
    try:
        folder.write_timings()
        for extra in folder.extras:
            # Also of a run that was killed before this.
            if extra.write_table is not None and any((folder.path / extra.folder).glob(f"[!.]*{extra.ending}")):
                with folder.alone():
                    extra.write_table(folder.path)
    except (OSError, UserError) as error:
        if not cohort.failures:  # else it is the full disk that they tell of
            raise UserError(f"{folder.path}: the masks are done, but not the tables beside them ({error})") from None
    print(f"{count(cohort.done, 'case')} predicted, {cohort.kept} were there")
    if cohort.failures:
        raise CasesFailed(
            "in prediction", cohort.failures, folder.path, file_name=failures_file, not_begun=cohort.not_begun
        )
    (folder.path / failures_file).unlink(missing_ok=True)
    if failures_file == FAILURES_FILE:  # all cases are done, whichever part they were of
        for old in folder.path.glob("failures_part_*.json"):
            old.unlink(missing_ok=True)

"""From an image to a mask on the image's own grid: one case, or a folder of them.

The second stage of a cascade runs the first one by itself and hands its classes on, directly from one network's grid
to the other's; as published they take a detour over the image's own grid, which training does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segfw.data.dicom import holds_dicom, is_dicom
from segfw.data.formats import FORMATS, read_volume, split_ending, write_labels
from segfw.data.geometry import Volume
from segfw.data.layouts import group_channels, image_files, series_folders
from segfw.data.manifest import Case, Channel
from segfw.data.parallel import Outcome, progress
from segfw.data.preprocess import PreprocessRecord, carry_over, preprocess_image, restore, stack_channels
from segfw.data.verify import check_case
from segfw.device import autocast, keep_freed_pages, pick_device, pick_precision
from segfw.inference.sliding_window import sliding_window
from segfw.model import Model
from segfw.networks import build_network, fastest_layout
from segfw.planning.mirroring import input_orders, output_orders
from segfw.planning.plan import Configuration, Plan
from segfw.records import Record, UserError

SETTINGS_FILE = "prediction.json"


class PredictionSettings(Record):
    """What the masks in a folder were made with; masks of another model are never mixed in."""

    configuration: str
    folds: tuple[str, ...]
    weights_digest: str
    step: float
    mirroring: bool


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image (C, Z, Y, X) on a network's grid and how to come back; ``previous`` is the same on the first stage's."""

    image: Tensor
    record: PreprocessRecord
    previous: Prepared | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to predict: the networks of all folds in memory, used for any number of images."""

    plan: Plan
    configuration: Configuration
    networks: tuple[nn.Module, ...]
    device: torch.device
    precision: torch.dtype
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    previous: Predictor | None = None  # the first stage of a cascade

    @staticmethod
    def of(
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        step: float = 0.5,
        mirroring: bool = True,
        build: Callable[..., nn.Module] = build_network,
    ) -> Predictor:
        """Builds one network per fold of ``model`` on the device; mirrors along the axes that training mirrored."""
        if not 0 < step <= 1:
            raise UserError(f"--step is {step}; give a share of the tile between 0 and 1, such as 0.5")
        if model.configuration.previous_stage is not None and model.previous is None:
            raise ValueError(f"{model.configuration.name} is a second stage; give the model of the first one too")
        keep_freed_pages()
        chosen = pick_device(device)
        networks = []
        for weights in model.weights.values():
            network = build(model.configuration.network)
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"the weights do not fit the plan ({reason}); train again") from None
            networks.append(fastest_layout(network.to(chosen)).eval())
        return Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=tuple(networks),
            device=chosen,
            precision=pick_precision(precision, chosen),
            step=step,
            mirror_axes=model.mirror_axes if mirroring else (),
            previous=model.previous
            and Predictor.of(
                model.previous, device=device, precision=precision, step=step, mirroring=mirroring, build=build
            ),
        )

    @torch.inference_mode()
    def logits(self, image_czyx: Tensor, previous_zyx: Tensor | None = None) -> Tensor:
        """Logits (K, Z, Y, X) of a preprocessed image, on the device.

        The second stage of a cascade also takes the classes that the first one found on the same grid.
        """
        chosen, channels = self.configuration, len(self.plan.channels)
        with autocast(self.device, self.precision):
            return sliding_window(
                image_czyx,
                self.networks,
                chosen.patch_size,
                step=self.step,
                mirror_axes=self.mirror_axes,
                output_orders=output_orders(chosen.swapped_pairs, self.plan.labels),
                input_orders=input_orders(chosen.swapped_pairs, channels, chosen.network.in_channels),
                device=self.device,
                previous_zyx=previous_zyx,
                previous_classes=chosen.previous_classes,
            )

    def prepare(self, volume: Volume) -> Prepared:
        """The image on the network's grid; raises UserError if the channels do not match the model's."""
        expected, found = len(self.plan.channels), volume.array.shape[0]
        if found != expected:
            names = ", ".join(channel.name for channel in self.plan.channels)
            raise UserError(f"the image has {found} channels, but the model was trained on {expected} ({names})")
        image, record = preprocess_image(volume, self.configuration.preprocessing)
        return Prepared(image=image, record=record, previous=self.previous and self.previous.prepare(volume))

    def logits_of(self, prepared: Prepared) -> Tensor:
        """Logits (K, Z, Y, X) of a prepared image, on the device: all stages, one after the other."""
        if self.previous is None:
            return self.logits(prepared.image)
        first = prepared.previous
        found = self.previous.hand_on(self.previous.logits_of(first), first.record, prepared.record)
        return self.logits(prepared.image, torch.from_numpy(found))

    def hand_on(self, logits_kzyx: Tensor, record: PreprocessRecord, target: PreprocessRecord) -> np.ndarray:
        """Classes (Z, Y, X) that this stage found, on the grid of the next one."""
        with torch.inference_mode():
            return carry_over(logits_kzyx, record, target, self.plan.labels.painted_classes)

    def finish(self, logits_kzyx: Tensor, record: PreprocessRecord) -> np.ndarray:
        """Label values (Z, Y, X) as in the training files, on the original file's grid."""
        with torch.inference_mode():
            labels = self.plan.labels
            return labels.to_values(restore(logits_kzyx, record, labels.painted_classes))

    def __call__(self, volume: Volume) -> np.ndarray:
        """Label values (Z, Y, X) on the volume's own grid."""
        prepared = self.prepare(volume)
        return self.finish(self.logits_of(prepared), prepared.record)


def find_images(source: Path, channels: Sequence[Channel]) -> list[Case]:
    """Cases in a folder, or of a single file or DICOM series: CASE.nii.gz, CASE_0000.nii.gz, ..., or named by channel.

    Folders that hold DICOM files are images like files. Raises UserError if there is nothing to predict, or if two
    images would be one case.
    """
    source = Path(source)
    if source.is_file():
        if not split_ending(source)[1] and is_dicom(source):
            raise UserError(f"{source}: is one file of a DICOM series; give the folder {source.parent}")
        return [Case(id=split_ending(source)[0].removesuffix("_0000"), images=(source,))]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder; give the images to predict")
    files = image_files(source)
    if holds_dicom(source):
        if files:
            what = f"holds DICOM files and {files[0].name} beside them"
            raise UserError(f"{source}: {what}; give each series a folder of its own")
        return [Case(id=source.resolve().name.removesuffix("_0000"), images=(source,))]
    files = sorted({*(path for path in files if path.is_file()), *series_folders(source)})
    if not files:
        raise UserError(f"{source}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    stem_of = _stems(files, source).__getitem__
    groups = _group_by_channel_name(files, channels, stem_of) or group_channels(files, len(channels), stem_of)
    return [Case(id=case_id, images=tuple(paths)) for case_id, paths in sorted(groups.items())]


def _stems(files: Sequence[Path], source: Path) -> dict[Path, str]:
    """What each image is called: by its name, or by its folders too where series in several have one name."""
    stems = {path: split_ending(path)[0] for path in files}
    if len(set(stems.values())) < len(files):
        stems = {path: "_".join((*path.relative_to(source).parts[:-1], stem)) for path, stem in stems.items()}
    first: dict[str, Path] = {}
    for path, stem in stems.items():
        if stem in first:
            names = " and ".join(str(file.relative_to(source)) for file in (first[stem], path))
            raise UserError(f"{source}: {names} would both be the case {stem}; rename or move one of them")
        first[stem] = path
    return stems


def _group_by_channel_name(
    files: Sequence[Path], channels: Sequence[Channel], stem_of: Callable[[Path], str]
) -> dict[str, list[Path]]:
    """Files by case where every name holds exactly one channel's name, in channel order; empty if they do not."""
    if len(channels) < 2:
        return {}
    groups: dict[str, dict[int, Path]] = {}
    for path in files:
        stem = stem_of(path)
        # As a word of its own: 't1' is no part of 't1ce'.
        found = [re.search(rf"(?<![^\W_]){re.escape(channel.name)}(?![^\W_])", stem) for channel in channels]
        fitting = [index for index, match in enumerate(found) if match]
        if len(fitting) != 1:
            return {}
        start, end = found[fitting[0]].span()
        case_id = (stem[:start].rstrip("_-. ") + stem[end:]).strip("_-. ")
        groups.setdefault(case_id, {})[fitting[0]] = path
    return {case_id: [paths[index] for index in sorted(paths)] for case_id, paths in groups.items()}


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], output: Path, *, ending: str = ".nii.gz"
) -> list[Outcome]:
    """Writes ``output/CASE.nii.gz`` for every case and returns the failures; masks already there are kept.

    The next image is read and the last mask written while the network works. A failing case does not stop the others.
    """
    output.mkdir(parents=True, exist_ok=True)
    waiting = [case for case in cases if not (output / f"{case.id}{ending}").is_file()]
    failures: list[Outcome] = []
    said: set[str] = set()  # a doubt that many images share is told once
    writing: tuple[Case, Future] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = [reader.submit(_read, predictor, waiting[0])] if waiting else []
        for index, case in enumerate(progress("predicting", waiting)):
            if index + 1 < len(waiting):
                coming.append(reader.submit(_read, predictor, waiting[index + 1]))
            try:
                prepared, notes = coming.pop(0).result()
                for note in notes - said:
                    print(f"warning: {case.id}: {note}")
                said |= notes
                logits = predictor.logits_of(prepared)
            except Exception as error:  # one bad image must not cost the user the others
                failures.append(Outcome(item=case, error=error))
                continue
            if writing:
                failures += _wait(*writing)
            writing = case, writer.submit(_write, predictor, logits, prepared.record, output / f"{case.id}{ending}")
            del prepared, logits
        if writing:
            failures += _wait(*writing)
    return failures


def _read(predictor: Predictor, case: Case) -> tuple[Prepared, set[str]]:
    volumes = [read_volume(path) for path in case.images]
    problems = check_case(case, volumes, None, channel_count=len(predictor.plan.channels), labels=None)
    if problems:
        raise UserError("; ".join(str(problem) for problem in problems))
    notes = {note for volume in volumes for note in volume.notes}
    return predictor.prepare(stack_channels(volumes)), notes


def _write(predictor: Predictor, logits: Tensor, record: PreprocessRecord, path: Path) -> None:
    write_labels(path, predictor.finish(logits, record), record.original)


def _wait(case: Case, future: Future) -> list[Outcome]:
    error = future.exception()
    return [] if error is None else [Outcome(item=case, error=error)]

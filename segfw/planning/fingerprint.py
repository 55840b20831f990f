"""One read of every case: verifies it and collects what planning needs to know of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segfw.base.parallel import map_bounded
from segfw.base.records import Record, UserError
from segfw.base.resources import ran_out_of_memory
from segfw.base.words import count, with_folder
from segfw.dataset.cases import Case, Channel, DatasetManifest, Finding, FoundDataset, has_errors, read_label
from segfw.dataset.dataset_json import DESCRIPTION_FILE
from segfw.dataset.label_names import with_present_labels
from segfw.dataset.labels import LabelSet, apply_map
from segfw.dataset.own_names import own_names
from segfw.dataset.verify import COLOURS_SHOWN, IN_COLOURS, MOST_COLOURS, SMOOTHED, check_case, file_notes
from segfw.grid.normalize import IntensityStats
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import UnreadableFile, read_volume, size_and_change
from segfw.images.mask_colours import value_in_words
from segfw.images.units import PICTURE, SCAN
from segfw.images.values import as_integers, count_values
from segfw.images.volume import Volume, stored_like
from segfw.planning.case_measure import CaseMeasure, measure_case

FINGERPRINT_FILE = "fingerprint.json"
SAMPLED_VOXELS = 4_000_000  # over all cases and per channel; nnU-Net draws 1e8, for the same percentiles
MOST_SAMPLED_PER_CASE = 1_000_000  # few cases need more of each: percentiles are of data sets, not of draws


class Fingerprint(Record):
    """What a data set looks like: every case's figures and the intensities of each channel in the foreground."""

    cases: tuple[CaseMeasure, ...]
    intensities: tuple[IntensityStats | None, ...]

    @property
    def median_crop_ratio(self) -> float:
        """Median share of a case's voxels that the crop to non-zero keeps."""
        return float(np.median([prod(case.cropped_shape) / prod(case.shape) for case in self.cases]))

    @property
    def length_unit(self) -> str:
        """What spacings are in: 'mm', or 'px' where no image tells the size of its pixels."""
        return PICTURE.length if all(case.in_pixels for case in self.cases) else SCAN.length


@dataclass(frozen=True, kw_only=True)
class CaseScan:
    """What reading one case gave: what is wrong with it and, unless it could not be read, its figures."""

    findings: list[Finding]
    notes: list[Finding] = field(default_factory=list)  # doubts about files, which many cases may share
    image_digest: bytes = b""
    colours: Mapping[int, int] = field(default_factory=dict)  # pixels of each in a mask that nothing tells how to read
    measured: MeasuredCase | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredCase:
    """What is kept of a case without errors, and the intensities that are pooled over all cases; C channels."""

    measure: CaseMeasure
    channel_minima: list[float]
    samples: list[np.ndarray]  # float32 foreground intensities, per channel
    moments: list[Moments]  # per channel; empty without foreground


class Moments(NamedTuple):
    """Of a channel's intensities in the foreground of one case."""

    mean: float
    mean_of_squares: float
    minimum: float
    maximum: float


# What else is to be done with a case while it is in memory: the case, its image with all channels as the first of them
# is stored, and its mask in the same order.
AlsoDo = Callable[[Case, Volume, Volume], None]


def scan_dataset(
    found: FoundDataset, *, workers: int | None = None, also: AlsoDo | None = None
) -> tuple[DatasetManifest, Fingerprint]:
    """Reads every case once, verifies all of them, and returns the completed manifest and the fingerprint.

    Raises DataProblems with everything that is wrong with any case; warnings alone do not raise and are kept in the
    manifest's notes. For ``also`` see ``scan_cases``.
    """
    scans, findings = scan_cases(found, workers=workers, also=also)
    if has_errors(findings):
        raise DataProblems(found, findings)
    return complete(found, scans, findings)


def scan_cases(
    found: FoundDataset, *, workers: int | None = None, also: AlsoDo | None = None
) -> tuple[list[CaseScan], list[Finding]]:
    """Reads every case once; returns what each gave, in the order of ``found.cases``, and all that is wrong.

    ``also`` is called, in the thread that reads, for every case whose files could all be read and measured.
    """
    if not found.cases and not has_errors(found.findings):
        raise UserError(f"{found.root}: no training cases found; is it the right folder?")
    samples = max(1000, min(MOST_SAMPLED_PER_CASE, SAMPLED_VOXELS // max(1, len(found.cases))))
    channel_count = None if found.channels is None else len(found.channels)

    def scan(case: Case) -> CaseScan:
        return scan_case(
            case,
            channel_count=channel_count,
            labels=found.labels,
            labels_source=found.labels_source,
            samples=samples,
            also=also,
        )

    scan_of: dict[str, CaseScan] = {}
    for outcome in map_bounded(scan, found.cases, cost_bytes=_file_cost, workers=workers, what="reading cases"):
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None  # it is the error, or the result
        scan_of[outcome.item.id] = outcome.result
    scans = [scan_of[case.id] for case in found.cases]
    findings = [
        *found.findings,
        *chain.from_iterable(scan.findings for scan in scans),
        *_colours_without_names(found, scans),
        *_uneven_channels(found, scans),
        *_same_images(found, scans),
        *_merged_notes(scans),
    ]
    return scans, findings


class DataProblems(UserError):
    """Everything that is wrong with a data set; the message lists it all, a line each."""

    def __init__(self, found: FoundDataset, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        errors = sum(finding.severity == "error" for finding in findings)
        lines = "\n".join(f"  {finding.full_sentence}" for finding in findings)
        size = f"{count(errors, 'problem')} in {count(len(found.cases), 'case')}"
        super().__init__(f"{found.root}: {size}; nothing was started\n{lines}")


def scan_case(
    case: Case,
    *,
    channel_count: int | None,
    labels: LabelSet | None,
    samples: int,
    labels_source: str = DESCRIPTION_FILE,
    also: AlsoDo | None = None,
) -> CaseScan:
    """Reads, verifies and measures one case; what cannot be read becomes a finding, not an exception.

    ``samples`` voxels of each channel's foreground are drawn.
    """
    findings: list[Finding] = []

    def read(path: Path, reader: Callable[[Path], Volume]) -> Volume | None:
        try:
            return reader(path)
        except UnreadableFile as error:
            if ran_out_of_memory(error):  # no fault of the file: it may be read when less else is under way
                raise
            findings.append(_unreadable(case, path, error))
            return None

    images = [read(path, read_volume) for path in case.images]
    on_grid = images[0] if images else None
    mask = None if case.label is None else read(case.label, lambda _: read_label(case, on_grid))
    findings += check_case(case, images, mask, channel_count=channel_count, labels=labels, labels_source=labels_source)
    readable = [volume for volume in images if volume is not None]
    notes = []
    for path, volume in zip(case.images, images):
        if volume is not None:
            notes += file_notes(case, path, volume)
    if case.label is not None and mask is not None and mask.is_placed:
        notes += file_notes(case, case.label, mask)
    if has_errors(findings):
        # Colours are the same in most cases, and told once.
        colours = count_values(mask.array) if mask is not None and any(f.kind == IN_COLOURS for f in findings) else {}
        findings = [finding for finding in findings if finding.kind != IN_COLOURS]
        return CaseScan(findings=findings, notes=notes, colours=colours)
    image = stack_channels(readable)
    digest = _digest(image)
    if mask is None:  # a folder of images alone, which can be checked but not planned for
        return CaseScan(findings=findings, notes=notes, image_digest=digest)
    mask = stored_like(mask, image)
    if also is not None:
        also(case, image, mask)
    measured = _measure(case, image, mask, labels, samples)
    return CaseScan(findings=findings, notes=notes, image_digest=digest, measured=measured)


def _unreadable(case: Case, path: Path, error: UnreadableFile) -> Finding:
    what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return Finding(kind="unreadable", severity="error", case=case.id, file=with_folder(path), what=what, remedy=remedy)


def _colours_without_names(found: FoundDataset, scans: Sequence[CaseScan]) -> list[Finding]:
    """Masks that are painted in colours of which nothing says what they mean: which, how often, and what to do."""
    pixels: Counter[int] = Counter()
    times: Counter[int] = Counter()
    for scan in scans:
        pixels.update(scan.colours)
        times.update(scan.colours.keys())
    cases = [case.id for case, scan in zip(found.cases, scans) if scan.colours]
    if not cases:
        return []
    listed = ", ".join(
        f"{value_in_words(value).removeprefix('the colour ')} ({number:,} pixels in {count(times[value], 'case')})"
        for value, number in pixels.most_common(COLOURS_SHOWN)
    )
    more = f" and {len(pixels) - COLOURS_SHOWN} more" if len(pixels) > COLOURS_SHOWN else ""
    where = f"{cases[0]} and {count(len(cases) - 1, 'other case')}" if len(cases) > 1 else cases[0]
    remedy = (
        "write labels.csv into the folder, with the header name,r,g,b and a line such as tumour,255,0,0 for each "
        "colour that is a label, or give such a table as --label-names"
    )
    if len(pixels) > MOST_COLOURS:
        remedy = f"{SMOOTHED}; then {remedy}"
    what = f"the masks of {where} are painted in {count(len(pixels), 'colour')}, not in label values: {listed}{more}"
    return [Finding(kind=IN_COLOURS, severity="error", what=what, remedy=remedy, others=tuple(cases))]


def _measure(case: Case, image: Volume, mask: Volume, labels: LabelSet | None, samples: int) -> MeasuredCase:
    values = apply_map(as_integers(mask.array), case.label_map)
    background = labels.values[0] if labels else 0
    foreground = values[0] != background
    if labels and labels.ignore is not None:  # the reference counts these voxels, which nobody has called foreground
        foreground &= values[0] != labels.ignore
    rng = np.random.default_rng(1234)
    drawn = []
    moments = []
    for channel in image.array:
        inside = channel[foreground].astype(np.float32)
        if not len(inside):
            drawn.append(inside)
            continue
        drawn.append(inside[rng.integers(len(inside), size=samples)])
        exact = inside.astype(np.float64)
        moments.append(
            Moments(
                mean=float(exact.mean()),
                mean_of_squares=float(np.square(exact).mean()),
                minimum=float(inside.min()),
                maximum=float(inside.max()),
            )
        )
    return MeasuredCase(
        measure=measure_case(case.id, image, replace(mask, array=values), labels),
        channel_minima=[float(channel.min()) for channel in image.array],
        samples=drawn,
        moments=moments,
    )


def _digest(image: Volume) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image.array).data, digest_size=16).digest()


def _measured(scans: Sequence[CaseScan]) -> list[MeasuredCase]:
    return [scan.measured for scan in scans if scan.measured is not None]


def _uneven_channels(found: FoundDataset, scans: Sequence[CaseScan]) -> list[Finding]:
    """Where no dataset.json says how many channels there are, all cases must agree with the first."""
    channels_of = {case.measure.id: len(case.samples) for case in _measured(scans)}
    if found.channels is not None or not channels_of:
        return []
    first = next(iter(channels_of))
    return [
        Finding(
            kind="channel-count",
            severity="error",
            case=case_id,
            what=f"has {count(channels, 'channel')}, but {first} has {channels_of[first]}",
            remedy="give every case the same channels",
        )
        for case_id, channels in channels_of.items()
        if channels != channels_of[first]
    ]


def _same_images(found: FoundDataset, scans: Sequence[CaseScan]) -> list[Finding]:
    """Copies of one image under several ids would let a fold validate on what it was trained on."""
    findings = []
    first_with: dict[bytes, str] = {}
    for case, scan in zip(found.cases, scans):
        if not scan.image_digest:
            continue
        first = first_with.setdefault(scan.image_digest, case.id)
        if first != case.id:
            findings.append(
                Finding(
                    kind="same-image",
                    severity="warning",
                    case=case.id,
                    file=with_folder(case.images[0]),
                    what=f"the image is the same as that of {first}",
                    remedy="keep one of them",
                    others=(first,),
                )
            )
    return findings


def _merged_notes(scans: Sequence[CaseScan]) -> list[Finding]:
    """Doubts that several cases share, said once: a thousand photographs without a spacing are one warning."""
    sharing: dict[tuple[str, str], list[Finding]] = {}
    for note in chain.from_iterable(scan.notes for scan in scans):
        sharing.setdefault((note.what, note.remedy), []).append(note)
    merged = []
    for notes in sharing.values():
        cases = list(dict.fromkeys(note.case for note in notes))
        note = notes[0]
        if len(cases) > 1:
            shared_by = f"{cases[0]} and {count(len(cases) - 1, 'other case')}"
            note = note.model_copy(update={"case": shared_by, "file": ""})
        merged.append(note)
    return merged


def complete(
    found: FoundDataset, scans: Sequence[CaseScan], findings: Sequence[Finding]
) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint of scanned cases without errors; labels and channels not described are inferred."""
    measured = _measured(scans)
    found = with_present_labels(found, values_in(case.measure for case in measured))
    notes = [*found.notes, *(finding.full_sentence for finding in findings)]
    labels = found.labels
    if labels is None:
        labels, own_notes = own_names(_labels_in_masks(found, measured), found.root)
        notes += own_notes
        notes.append(f"labels found in the masks: {', '.join(str(value) for value in labels.values[1:])}")
    else:
        unlearnable = {str(labels.values[0]), str(labels.ignore)}
        if all(set(case.measure.label_voxels) <= unlearnable for case in measured):
            raise UserError(f"{found.root}: every mask is empty; draw at least one structure")
    channels = found.channels
    if channels is None:
        channels = _guess_channels(measured)
        notes.append(f"channels found in the images: {', '.join(channel.name for channel in channels)}")
    manifest = DatasetManifest(
        name=found.name,
        root=found.root.resolve(),
        layout=found.layout,
        channels=channels,
        labels=labels,
        cases=tuple(_absolute(case) for case in found.cases),
        notes=tuple(notes),
    )
    intensities = tuple(_pool(measured, index) for index in range(len(channels)))
    return manifest, Fingerprint(cases=tuple(case.measure for case in measured), intensities=intensities)


def values_in(measures: Iterable[CaseMeasure]) -> set[int]:
    """The values that the masks of cases hold."""
    return {int(value) for measure in measures for value in measure.label_voxels}


def _labels_in_masks(found: FoundDataset, measured: Sequence[MeasuredCase]) -> LabelSet:
    values = sorted(values_in(case.measure for case in measured) - {0})
    if not values:
        raise UserError(f"{found.root}: every mask is empty; draw at least one structure")
    return LabelSet(names=("background", *(f"label_{value}" for value in values)), values=(0, *values))


def _absolute(case: Case) -> Case:
    # Links are not followed: what they point to may have another ending, and no side file.
    images = tuple(Path(os.path.abspath(path)) for path in case.images)
    label = None if case.label is None else Path(os.path.abspath(case.label))
    return case.model_copy(update={"images": images, "label": label})


def _guess_channels(measured: Sequence[MeasuredCase]) -> tuple[Channel, ...]:
    """'CT' where most images reach far below zero, as air does in Hounsfield units; 'image' otherwise."""
    names = []
    for minima in zip(*(case.channel_minima for case in measured)):
        names.append("CT" if np.median(minima) <= -500 else "image")
    return tuple(
        Channel(name=name if names.count(name) == 1 or name == "CT" else f"{name}_{index}")
        for index, name in enumerate(names)
    )


def _pool(measured: Sequence[MeasuredCase], channel: int) -> IntensityStats | None:
    """Statistics over all cases that have foreground, each case counted alike."""
    used = [case for case in measured if case.moments]
    if not used:
        return None
    moments = [case.moments[channel] for case in used]
    low, median, high = np.percentile(np.concatenate([case.samples[channel] for case in used]), (0.5, 50, 99.5))
    mean = float(np.array([each.mean for each in moments]).mean())
    mean_of_squares = np.array([each.mean_of_squares for each in moments]).mean()
    return IntensityStats(
        mean=mean,
        std=float(np.sqrt(max(0.0, mean_of_squares - mean**2))),
        minimum=min(each.minimum for each in moments),
        maximum=max(each.maximum for each in moments),
        median=float(median),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _file_cost(case: Case) -> int:
    """Rough bytes that reading a case takes: compressed scans grow about eightfold as float32, plus copies."""
    return 16 * sum(size_and_change(path)[0] for path in case.files)

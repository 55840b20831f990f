"""One read of every case: verifies it and collects what planning needs to know of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np

from segfw.base.parallel import map_bounded, ran_out_of_memory
from segfw.base.records import Record, UserError, count
from segfw.dataset.cases import Case, Channel, DatasetManifest, FoundDataset, LabelSet, Problem, apply_map
from segfw.dataset.verify import as_integers, check_case, count_values, file_notes
from segfw.grid.normalize import IntensityStats
from segfw.grid.preprocess import cut, nonzero_box, stack_channels
from segfw.images.formats import UnreadableFile, read_mask, read_volume, size_and_change
from segfw.images.geometry import Shape, Spacing, Volume, stored_like, to_canonical
from segfw.planning.left_right import label_centroids_mm

SAMPLED_VOXELS = 4_000_000  # over all cases and per channel; nnU-Net draws 1e8, for the same percentiles
MOST_SAMPLED_PER_CASE = 1_000_000  # few cases need more of each: percentiles are of data sets, not of draws


class CaseStats(Record):
    """Figures of one case; shapes and spacing (z, y, x) in canonical orientation."""

    id: str
    shape: Shape
    spacing_mm: Spacing
    cropped_shape: Shape  # box of the voxels that are not zero
    label_voxels: dict[str, int]  # label value -> voxels
    label_centroids_mm: dict[str, tuple[float, float, float]] = {}  # (z, y, x); empty where sides cannot matter


class Fingerprint(Record):
    """What a data set looks like: every case's figures and the intensities of each channel in the foreground."""

    cases: tuple[CaseStats, ...]
    intensities: tuple[IntensityStats | None, ...]

    @property
    def median_crop_ratio(self) -> float:
        """Median share of a case's voxels that the crop to non-zero keeps."""
        return float(np.median([prod(case.cropped_shape) / prod(case.shape) for case in self.cases]))


@dataclass(frozen=True, kw_only=True)
class CaseScan:
    """What reading one case gave: its problems and, unless it could not be read, its figures."""

    problems: list[Problem]
    notes: list[Problem] = field(default_factory=list)  # doubts about files, which many cases may share
    stats: CaseStats | None = None
    channel_minima: list[float] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)  # float32 foreground intensities, per channel
    moments: list[tuple[float, float, float, float]] = field(default_factory=list)  # mean, mean of squares, min, max
    image_digest: bytes = b""


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
    scans, problems = scan_cases(found, workers=workers, also=also)
    if any(not problem.is_warning for problem in problems):
        raise DataProblems(found, problems)
    return complete(found, scans, problems)


def scan_cases(
    found: FoundDataset, *, workers: int | None = None, also: AlsoDo | None = None
) -> tuple[list[CaseScan], list[Problem]]:
    """Reads every case once; returns what each gave, in the order of ``found.cases``, and all problems.

    ``also`` is called, in the thread that reads, for every case whose files could all be read and measured.
    """
    if not found.cases and all(problem.is_warning for problem in found.problems):
        raise UserError(f"{found.root}: no training cases found; is it the right folder?")
    per_case = max(1000, min(MOST_SAMPLED_PER_CASE, SAMPLED_VOXELS // max(1, len(found.cases))))
    expected = None if found.channels is None else len(found.channels)

    def scan(case: Case) -> CaseScan:
        return scan_case(case, channel_count=expected, labels=found.labels, samples=per_case, also=also)

    scans: dict[str, CaseScan] = {}
    for outcome in map_bounded(scan, found.cases, cost_bytes=_file_cost, workers=workers, what="reading cases"):
        if outcome.error is not None:
            raise outcome.error
        scans[outcome.item.id] = outcome.result
    ordered = [scans[case.id] for case in found.cases]
    problems = [*found.problems, *(problem for scan in ordered for problem in scan.problems)]
    problems += [*_uneven_channels(found, ordered), *_same_images(found, ordered), *_merged_notes(ordered)]
    return ordered, problems


class DataProblems(UserError):
    """Everything that is wrong with a data set; the message lists it all, a line each."""

    def __init__(self, found: FoundDataset, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        errors = sum(not problem.is_warning for problem in problems)
        lines = "\n".join(f"  {problem}" for problem in problems)
        size = f"{count(errors, 'problem')} in {count(len(found.cases), 'case')}"
        super().__init__(f"{found.root}: {size}; nothing was started\n{lines}")


def scan_case(
    case: Case,
    *,
    channel_count: int | None,
    labels: LabelSet | None,
    samples: int,
    also: AlsoDo | None = None,
) -> CaseScan:
    """Reads, verifies and measures one case; what cannot be read becomes a problem, not an exception."""
    problems: list[Problem] = []

    def read(path: Path, reader: Callable[[Path], Volume]) -> Volume | None:
        try:
            return reader(path)
        except UnreadableFile as error:
            if ran_out_of_memory(error):  # no fault of the file: it may be read when less else is under way
                raise
            what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
            problems.append(Problem(kind="unreadable", case=case.id, file=path.name, what=what, remedy=remedy))
            return None

    images = [read(path, read_volume) for path in case.images]
    mask = None if case.label is None else read(case.label, read_mask)
    problems += check_case(case, images, mask, channel_count=channel_count, labels=labels)
    files = [*zip(case.images, images), (case.label, mask if mask and mask.is_placed else None)]
    notes = [note for path, volume in files if volume for note in file_notes(case, path, volume)]
    if any(not problem.is_warning for problem in problems):
        return CaseScan(problems=problems, notes=notes)
    image = stack_channels(images)
    if mask is None:  # a folder of images alone, which can be checked but not planned for
        return CaseScan(problems=problems, notes=notes, image_digest=_digest(image))
    mask = stored_like(mask, image)
    if also is not None:
        also(case, image, mask)
    return replace(_measure(case, image, mask, labels, samples, problems), notes=notes)


def _measure(
    case: Case, image: Volume, mask: Volume, labels: LabelSet | None, samples: int, problems: list[Problem]
) -> CaseScan:
    canonical = to_canonical(image)
    values = apply_map(as_integers(mask.array), case.label_map)
    background = labels.values[0] if labels else 0
    foreground = values[0] != background
    if labels and labels.ignore is not None:  # the reference counts these voxels, which nobody has called foreground
        foreground &= values[0] != labels.ignore
    rng = np.random.default_rng(1234)
    chosen, moments = [], []
    for channel in image.array:
        inside = channel[foreground].astype(np.float32)
        if not len(inside):
            chosen.append(inside)
            continue
        chosen.append(inside[rng.integers(len(inside), size=samples)])
        exact = inside.astype(np.float64)
        moments.append((exact.mean(), np.square(exact).mean(), float(inside.min()), float(inside.max())))
    stats = CaseStats(
        id=case.id,
        shape=canonical.geometry.shape,
        spacing_mm=canonical.geometry.spacing_mm,
        cropped_shape=cut(canonical.array, nonzero_box(canonical.array)).shape[1:],
        label_voxels={str(value): voxels for value, voxels in count_values(values).items()},
        label_centroids_mm=label_centroids_mm(replace(mask, array=values), labels),
    )
    return CaseScan(
        problems=problems,
        stats=stats,
        channel_minima=[float(channel.min()) for channel in image.array],
        samples=chosen,
        moments=moments,
        image_digest=_digest(image),
    )


def _digest(image: Volume) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image.array), digest_size=16).digest()


def _uneven_channels(found: FoundDataset, scans: list[CaseScan]) -> list[Problem]:
    """Where no dataset.json says how many channels there are, all cases must agree with the first."""
    counts = {case.id: len(scan.samples) for case, scan in zip(found.cases, scans) if scan.samples}
    if found.channels is not None or not counts:
        return []
    expected = next(iter(counts.values()))
    return [
        Problem(
            kind="channel-count",
            case=case_id,
            file="",
            what=f"has {count} channels, but {next(iter(counts))} has {expected}",
            remedy="give every case the same channels",
        )
        for case_id, count in counts.items()
        if count != expected
    ]


def _same_images(found: FoundDataset, scans: list[CaseScan]) -> list[Problem]:
    """Copies of one image under several ids would let a fold validate on what it was trained on."""
    problems, first_with = [], {}
    for case, scan in zip(found.cases, scans):
        first = first_with.setdefault(scan.image_digest or case.id, case.id)
        if first != case.id:
            what, remedy = f"the image is the same as that of {first}", "keep one of them"
            problems.append(
                Problem(
                    kind="same-image",
                    case=case.id,
                    file=case.images[0].name,
                    what=what,
                    remedy=remedy,
                    is_warning=True,
                    others=(first,),
                )
            )
    return problems


def _merged_notes(scans: list[CaseScan]) -> list[Problem]:
    """Doubts that several cases share, said once: a thousand photographs without a spacing are one warning."""
    sharing: dict[tuple[str, str], list[Problem]] = {}
    for note in (note for scan in scans for note in scan.notes):
        sharing.setdefault((note.what, note.remedy), []).append(note)
    merged = []
    for notes in sharing.values():
        cases = list(dict.fromkeys(note.case for note in notes))
        others = "" if len(cases) == 1 else f" and {count(len(cases) - 1, 'other case')}"
        merged.append(replace(notes[0], case=f"{cases[0]}{others}", file=notes[0].file if not others else ""))
    return merged


def complete(
    found: FoundDataset, scans: list[CaseScan], problems: list[Problem]
) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint of scanned cases without errors; labels and channels not described are inferred."""
    notes = [*found.notes, *(str(problem) for problem in problems)]
    labels, channels = found.labels, found.channels
    if labels is None:
        values = sorted({int(value) for scan in scans for value in scan.stats.label_voxels} - {0})
        if not values:
            raise UserError(f"{found.root / 'labels'}: every mask is empty; draw at least one structure")
        labels = LabelSet(names=("background", *(f"label_{value}" for value in values)), values=(0, *values))
        notes.append(f"labels found in the masks: {', '.join(str(value) for value in values)}")
    elif all(set(scan.stats.label_voxels) <= {str(labels.values[0]), str(labels.ignore)} for scan in scans):
        raise UserError(f"{found.root}: every mask is empty; draw at least one structure")
    if channels is None:
        channels = _guess_channels(scans)
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
    intensities = tuple(_pool(scans, index) for index in range(len(channels)))
    return manifest, Fingerprint(cases=tuple(scan.stats for scan in scans), intensities=intensities)


def _absolute(case: Case) -> Case:
    # Links are not followed: what they point to may have another ending, and no side file.
    images = tuple(Path(os.path.abspath(path)) for path in case.images)
    label = None if case.label is None else Path(os.path.abspath(case.label))
    return case.model_copy(update={"images": images, "label": label})


def _guess_channels(scans: list[CaseScan]) -> tuple[Channel, ...]:
    """'CT' where most images reach far below zero, as air does in Hounsfield units; 'image' otherwise."""
    names = []
    for minima in zip(*(scan.channel_minima for scan in scans)):
        names.append("CT" if np.median(minima) <= -500 else "image")
    return tuple(
        Channel(name=name if names.count(name) == 1 or name == "CT" else f"{name}_{index}")
        for index, name in enumerate(names)
    )


def _pool(scans: list[CaseScan], channel: int) -> IntensityStats | None:
    """Statistics over all cases that have foreground, each case counted alike."""
    used = [scan for scan in scans if scan.moments]
    if not used:
        return None
    means, squares, lows, highs = np.array([scan.moments[channel] for scan in used]).T
    pooled = np.concatenate([scan.samples[channel] for scan in used])
    low, median, high = np.percentile(pooled, (0.5, 50, 99.5))
    mean = float(means.mean())
    return IntensityStats(
        mean=mean,
        std=float(np.sqrt(max(0.0, squares.mean() - mean**2))),
        minimum=float(lows.min()),
        maximum=float(highs.max()),
        median=float(median),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _file_cost(case: Case) -> int:
    """Rough bytes that reading a case takes: compressed scans grow about eightfold as float32, plus copies."""
    files = [path for path in (*case.images, case.label) if path is not None]
    return 16 * sum(size_and_change(path)[0] for path in files)

"""Preprocessed cases on disk: chunked and compressed arrays, so that a patch is read without its volume.

Per case: ``ID.image.b2nd`` (C, Z, Y, X), ``ID.classes.b2nd`` (Z, Y, X), ``ID.foreground.b2nd`` (flat voxel indices,
structure after structure, then annotated voxels where some are not) and, written last as the mark that the case is
whole, ``ID.json``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from segfw.base.array_files import StoredArray, open_array, open_checked_array, save_array
from segfw.base.files import remove_partials
from segfw.base.output_paths import require_distinct
from segfw.base.parallel import Outcome, Pool, map_bounded
from segfw.base.records import Record, UserError
from segfw.dataset.cases import Case, read_label
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.grid.preprocess import (
    Preprocessing,
    PreprocessRecord,
    preprocess_classes,
    preprocess_image,
    stack_channels,
)
from segfw.images.formats import read_volume, size_and_change
from segfw.images.named_mask import DrawnAs
from segfw.images.values import as_integers
from segfw.images.volume import Volume, stored_like

FOREGROUND_VOXELS_PER_CLASS = 4000  # enough to draw patch centres from; nnU-Net keeps 10 000 or more
REMEDY_OF_PREVIOUS = "delete it, and train the second stage again, which makes it anew"
RULES_VERSION = 3  # raised when the same data and rules give other arrays than before


class StoredCase(Record):
    """One preprocessed case: what was done, from which files, and how many voxels of each structure are listed.

    Without ``label_values`` it is an image alone, whose mask nobody has or nobody is to read.
    """

    id: str
    preprocessing: Preprocessing
    record: PreprocessRecord
    sources: tuple[tuple[str, int, int], ...]  # path, bytes, time of last change in ns
    label_values: tuple[int, ...]  # value in the mask of each class
    foreground_counts: dict[str, int]  # class index, or region from 1 on -> entries in ID.foreground.b2nd
    annotated_count: int | None = None  # the last entries there; None where every voxel is annotated
    ignored_class: int | None = None
    region_classes: tuple[tuple[int, ...], ...] = ()
    label_map: LabelMap = ()
    drawn_as: tuple[DrawnAs, ...] = ()
    rules_version: int = 1

    @property
    def has_mask(self) -> bool:
        """False of an image alone."""
        return bool(self.label_values)


@dataclass(frozen=True, kw_only=True)
class CaseArrays:
    """Open arrays of one case; slicing decompresses only what is asked for."""

    image: StoredArray  # (C, Z, Y, X)
    classes: StoredArray  # (Z, Y, X)
    foreground: dict[int, np.ndarray]  # class index, or region from 1 on -> flat voxel indices
    annotated: np.ndarray | None = None  # flat indices of voxels that count; None where all do
    previous: StoredArray | None = None  # (Z, Y, X), the classes that the first stage of a cascade finds


def read_case(case: Case) -> tuple[Volume, Volume | None]:
    """Image with all channels as the first one is stored, and mask in the same order (None if the case has none)."""
    image = stack_channels([read_volume(path) for path in case.images])
    return image, None if case.label is None else stored_like(read_label(case, image), image)


class DecodedCases:
    """Cases that were read once and wait in memory to be preprocessed, up to ``budget_bytes``; the rest is read again.

    One decode per case is most of the work of reading compressed files.
    """

    def __init__(self, budget_bytes: float) -> None:
        self._left = budget_bytes
        self._kept: dict[str, tuple[Volume, Volume | None]] = {}
        self._lock = threading.Lock()

    def keep(self, case: Case, image: Volume, mask: Volume) -> None:
        """Keeps a case if there is room for it."""
        size = image.array.nbytes + mask.array.nbytes
        with self._lock:
            if size <= self._left:
                self._left -= size
                self._kept[case.id] = (image, mask)

    def read(self, case: Case) -> tuple[Volume, Volume | None]:
        """The case from memory, where it is then forgotten, or from its files."""
        with self._lock:
            kept = self._kept.pop(case.id, None)
        return kept or read_case(case)


def preprocess_dataset(
    cases: tuple[Case, ...],
    labels: LabelSet,
    configurations: Mapping[str, Preprocessing],
    folder: Path,
    *,
    case_bytes: Mapping[str, int],
    decoded: DecodedCases | None = None,
    workers: int | None = None,
    pool: Pool | None = None,
) -> list[Outcome]:
    """Preprocesses every case for every configuration into ``folder/CONFIGURATION``; returns the failures.

    Each file is read once for all configurations. Cases that are already there, from the same files and by the same
    rules, are not done again; a failing case does not stop the others. ``case_bytes`` is the size of each image as
    float32 on its own grid or on the finest network grid, whichever is larger; ``decoded`` holds cases that were read
    before. The work is done in ``workers`` threads, or in ``pool``, which without ``decoded`` may be on other machines.
    """
    require_distinct([case.id for case in cases], folder)
    for name in configurations:
        remove_partials(folder / name)
    read = decoded.read if decoded else read_case
    run = partial(_preprocess_missing, labels=labels, configurations=configurations, folder=folder, read=read)
    waiting = [case for case in cases if _missing(case, labels, configurations, folder)]
    # Measured as the growth of a process's resident memory, for one 150x256x256 int16 CT with 15 labels and two
    # configurations, in sizes of the larger grid as float32: 5.1 without resampling (most for the mask's class lookup)
    # and at 0.5 times the voxels, 4.5 at 1.4 times and 3.8 at 2.7 times (the spline's intermediate results).
    outcomes = map_bounded(
        run, waiting, cost_bytes=lambda case: 6 * case_bytes[case.id], workers=workers, what="preprocessing", pool=pool
    )
    return [outcome for outcome in outcomes if outcome.error is not None]


def _missing(
    case: Case, labels: LabelSet, configurations: Mapping[str, Preprocessing], folder: Path
) -> dict[str, Preprocessing]:
    return {
        name: preprocessing
        for name, preprocessing in configurations.items()
        if not _is_done(folder / name, case, labels, preprocessing)
    }


def _preprocess_missing(
    case: Case,
    *,
    labels: LabelSet,
    configurations: Mapping[str, Preprocessing],
    folder: Path,
    read: Callable[[Case], tuple[Volume, Volume | None]],
) -> None:
    missing = _missing(case, labels, configurations, folder)
    sources = _sources(case)
    image, mask = read(case)
    if mask is None:
        raise UserError(f"{case.id}: has no mask; give it one, or leave the case out")
    # The image's geometry for both: verified to be the same grid, it must also be oriented by the same rounding.
    classes = Volume(array=labels.to_classes(as_integers(mask.array), case.label_map), geometry=image.geometry)
    for name, preprocessing in missing.items():
        # Float16 keeps 0.05 % of each value, far below the noise of any scanner.
        network_image, record = preprocess_image(image, preprocessing, in_half=True)
        network_classes = preprocess_classes(classes, record)
        foreground = foreground_voxels(network_classes.numpy(), labels.region_classes, labels.ignored_class)
        annotated = annotated_voxels(network_classes.numpy(), labels.ignored_class)
        stored = StoredCase(
            id=case.id,
            preprocessing=preprocessing,
            record=record,
            sources=sources,
            foreground_counts={str(index): len(voxels) for index, voxels in foreground.items()},
            annotated_count=None if annotated is None else len(annotated),
            label_values=labels.values,
            ignored_class=labels.ignored_class,
            region_classes=labels.region_classes,
            label_map=case.label_map,
            drawn_as=case.drawn_as,
            rules_version=RULES_VERSION,
        )
        listed = [*foreground.values(), np.zeros(0, np.uint32) if annotated is None else annotated]
        _save_case(folder / name, stored, network_image, network_classes, np.concatenate(listed))
        del network_image, network_classes, foreground, listed  # before the next configuration's are made


def _save_case(folder: Path, stored: StoredCase, image: Tensor, classes: Tensor, listed: np.ndarray) -> None:
    mark = folder / f"{stored.id}.json"
    mark.unlink(missing_ok=True)  # if this is interrupted, arrays of two plans must not pass for a whole case
    save_array(folder / f"{stored.id}.image.b2nd", image.numpy())
    save_array(folder / f"{stored.id}.classes.b2nd", classes.numpy())
    save_array(folder / f"{stored.id}.foreground.b2nd", listed)
    stored.save(mark)


def preprocess_images(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    case_bytes: Mapping[str, int],
    workers: int | None = None,
) -> list[Outcome]:
    """Preprocesses images whose masks are not read, if there are any, into ``folder``; returns the failures.

    What is there from the same files, by the same rules, is not done again.
    """
    require_distinct([case.id for case in cases], folder)
    remove_partials(folder)
    images = [Case(id=case.id, images=case.images) for case in cases]
    waiting = [case for case in images if not _is_image_done(folder, case, preprocessing)]
    outcomes = map_bounded(
        partial(_preprocess_image, preprocessing=preprocessing, folder=folder),
        waiting,
        cost_bytes=lambda case: 6 * case_bytes[case.id],
        workers=workers,
        what="preprocessing",
    )
    return [outcome for outcome in outcomes if outcome.error is not None]


def _is_image_done(folder: Path, case: Case, preprocessing: Preprocessing) -> bool:
    if not (folder / f"{case.id}.json").is_file():
        return False
    try:
        stored = StoredCase.load(folder / f"{case.id}.json")
    except UserError:  # written by another version: made again
        return False
    is_alike = stored.preprocessing == preprocessing and stored.rules_version == RULES_VERSION
    return is_alike and not stored.has_mask and stored.sources == _sources(case)


def _preprocess_image(case: Case, *, preprocessing: Preprocessing, folder: Path) -> None:
    sources = _sources(case)
    image, _ = read_case(case)
    channels = len(preprocessing.normalization)
    if image.array.shape[0] != channels:
        raise UserError(f"{case.images[0]}: has {image.array.shape[0]} channels, but the plan has {channels}")
    network_image, record = preprocess_image(image, preprocessing, in_half=True)
    (folder / f"{case.id}.json").unlink(missing_ok=True)  # arrays of two plans must not pass for a whole case
    save_array(folder / f"{case.id}.image.b2nd", network_image.numpy())
    save_image_record(folder, case.id, preprocessing, record, sources)


def save_image_record(
    folder: Path,
    case_id: str,
    preprocessing: Preprocessing,
    record: PreprocessRecord,
    sources: tuple[tuple[str, int, int], ...],
) -> None:
    """Marks a stored image, whose array is written already, as a whole case without a mask."""
    StoredCase(
        id=case_id,
        preprocessing=preprocessing,
        record=record,
        sources=sources,
        label_values=(),
        foreground_counts={},
        rules_version=RULES_VERSION,
    ).save(folder / f"{case_id}.json")


def foreground_voxels(
    classes_zyx: np.ndarray,
    regions: Sequence[tuple[int, ...]] = (),
    ignored: int | None = None,
    seed: int = 1234,
) -> dict[int, np.ndarray]:
    """Flat indices (uint32) of up to FOREGROUND_VOXELS_PER_CLASS voxels of each class but 0 and ``ignored``, sorted.

    By class index or, with ``regions`` (the classes that each is the union of), by region from 1 on. What is not there
    is left out.
    """
    flat = classes_zyx.ravel()
    foreground = np.flatnonzero(flat if ignored is None else (flat != 0) & (flat != ignored)).astype(np.uint32)
    values = flat[foreground]
    present = np.unique(values).tolist()
    structures = dict(enumerate(regions, start=1)) or {index: (index,) for index in present}
    rng = np.random.default_rng(seed)
    chosen = {}
    for index, members in structures.items():
        if set(members).isdisjoint(present):
            continue
        voxels = foreground[np.isin(values, members)]
        if len(voxels) > FOREGROUND_VOXELS_PER_CLASS:
            voxels = np.sort(rng.choice(voxels, FOREGROUND_VOXELS_PER_CLASS, replace=False))
        chosen[index] = voxels
    return chosen


def annotated_voxels(classes_zyx: np.ndarray, ignored: int | None, seed: int = 1234) -> np.ndarray | None:
    """Flat indices (uint32) of up to FOREGROUND_VOXELS_PER_CLASS voxels not of class ``ignored``, sorted.

    None if there is no such class here. Goes slice by slice, since a list of all would take 8 bytes a voxel.
    """
    is_annotated = None if ignored is None else classes_zyx != ignored
    if is_annotated is None or is_annotated.all():
        return None
    ends = np.cumsum(is_annotated.sum((1, 2)))
    total = int(ends[-1])
    ranks = np.arange(total)
    if total > FOREGROUND_VOXELS_PER_CLASS:
        rng = np.random.default_rng(seed)
        ranks = np.sort(rng.choice(total, FOREGROUND_VOXELS_PER_CLASS, replace=False))
    chosen = [np.zeros(0, np.int64)]
    for index, (part, end) in enumerate(zip(is_annotated, ends)):
        voxels = np.flatnonzero(part)
        inside = ranks[(ranks >= end - len(voxels)) & (ranks < end)]
        chosen.append(index * part.size + voxels[inside - (end - len(voxels))])
    return np.concatenate(chosen).astype(np.uint32)


def load_stored(folder: Path, case_id: str) -> StoredCase:
    """The record of a preprocessed case; raises UserError if it was not preprocessed."""
    path = folder / f"{case_id}.json"
    if not path.is_file():
        raise UserError(f"{path}: case {case_id} is not preprocessed; run segfw plan-and-preprocess first")
    return StoredCase.load(path)


def open_case(folder: Path, case_id: str, *, in_memory: bool = False, previous: Path | None = None) -> CaseArrays:
    """Opens a preprocessed case, or reads it whole where memory allows.

    ``previous`` is the folder of what the first stage of a cascade finds, ``ID.b2nd`` per case. Of an image alone
    every voxel is of class 0, which takes no memory.
    """
    stored = load_stored(folder, case_id)
    remedy = f"delete {folder / case_id}.json, and run segfw plan-and-preprocess again"
    if not stored.has_mask:
        array = open_checked_array(folder / f"{case_id}.image.b2nd", remedy=f"delete {folder / case_id}.json")
        nothing = np.broadcast_to(np.uint8(0), array.shape[1:])
        return CaseArrays(image=array[:] if in_memory else array, classes=nothing, foreground={})
    listed = open_checked_array(folder / f"{case_id}.foreground.b2nd", remedy=remedy)[:]
    *parts, annotated = np.split(listed, np.cumsum(list(stored.foreground_counts.values())))

    def opened(path: Path, remedy: str = remedy) -> StoredArray:
        array = open_checked_array(path, remedy=remedy)
        return array[:] if in_memory else array

    return CaseArrays(
        image=opened(folder / f"{case_id}.image.b2nd"),
        classes=opened(folder / f"{case_id}.classes.b2nd"),
        foreground={int(index): part for index, part in zip(stored.foreground_counts, parts)},
        annotated=None if stored.annotated_count is None else annotated,
        previous=None if previous is None else opened(previous / f"{case_id}.b2nd", REMEDY_OF_PREVIOUS),
    )


def stored_bytes(folder: Path, case_ids: list[str], previous: Path | None = None) -> Iterator[int]:
    """Uncompressed bytes of image, classes and what the previous stage finds of each case, without reading them."""
    for case_id in case_ids:
        parts = ("image", "classes") if load_stored(folder, case_id).has_mask else ("image",)
        paths = [folder / f"{case_id}.{part}.b2nd" for part in parts]
        paths += [] if previous is None else [previous / f"{case_id}.b2nd"]
        yield sum(open_array(path).nbytes for path in paths)


def _is_done(folder: Path, case: Case, labels: LabelSet, preprocessing: Preprocessing) -> bool:
    """Whether the case was preprocessed by the same rules, from the same files, and its mask read in the same way.

    What the labels are called is no part of it.
    """
    path = folder / f"{case.id}.json"
    if not path.is_file():
        return False
    try:
        stored = StoredCase.load(path)
    except UserError:  # written by another version: made again
        return False
    same_labels = (
        stored.label_values == labels.values
        and stored.ignored_class == labels.ignored_class
        and stored.region_classes == labels.region_classes
        and stored.label_map == case.label_map
        and stored.drawn_as == case.drawn_as
    )
    same_rules = stored.preprocessing == preprocessing and stored.rules_version == RULES_VERSION
    return same_labels and same_rules and stored.sources == _sources(case)


def _sources(case: Case) -> tuple[tuple[str, int, int], ...]:
    files = [*case.images]
    if case.label is not None:
        files.append(case.label)
    sources = []
    for path in files:
        size, changed_ns = size_and_change(path)
        sources.append((str(Path(path).absolute()), size, changed_ns))
    return tuple(sources)

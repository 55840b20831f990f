"""Preprocessed cases on disk: chunked and compressed arrays, so that a patch is read without its volume.

Per case: ``ID.image.b2nd`` (C, Z, Y, X), ``ID.classes.b2nd`` (Z, Y, X), ``ID.foreground.b2nd`` (flat voxel indices,
class after class) and, written last as the mark that the case is whole, ``ID.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from torch import Tensor

from segfw.data.formats import read_mask, read_volume, size_and_change
from segfw.data.geometry import Volume, stored_like
from segfw.data.manifest import Case, LabelSet
from segfw.data.parallel import Outcome, map_bounded
from segfw.data.preprocess import (
    Preprocessing,
    PreprocessRecord,
    preprocess_classes,
    preprocess_image,
    stack_channels,
)
from segfw.data.verify import as_integers
from segfw.records import Record, UserError, whole_file

FOREGROUND_VOXELS_PER_CLASS = 4000  # enough to draw patch centres from; nnU-Net keeps 10 000 or more
HALF_LIMIT = 60_000.0  # float16 ends at 65 504


class StoredCase(Record):
    """One preprocessed case: what was done, from which files, and how many voxels of each class are listed."""

    id: str
    preprocessing: Preprocessing
    record: PreprocessRecord
    sources: tuple[tuple[str, int, int], ...]  # path, bytes, time of last change in ns
    label_values: tuple[int, ...]  # value in the mask of each class
    foreground_counts: dict[str, int]  # class index -> entries in ID.foreground.b2nd


@dataclass(frozen=True, kw_only=True)
class CaseArrays:
    """Open arrays of one case; slicing decompresses only what is asked for."""

    image: blosc2.NDArray | np.ndarray  # (C, Z, Y, X)
    classes: blosc2.NDArray | np.ndarray  # (Z, Y, X)
    foreground: dict[int, np.ndarray]  # class index -> flat voxel indices


def read_case(case: Case) -> tuple[Volume, Volume | None]:
    """Image with all channels as the first one is stored, and mask in the same order (None if the case has none)."""
    image = stack_channels([read_volume(path) for path in case.images])
    return image, None if case.label is None else stored_like(read_mask(case.label), image)


def preprocess_dataset(
    cases: tuple[Case, ...],
    labels: LabelSet,
    configurations: Mapping[str, Preprocessing],
    folder: Path,
    *,
    case_bytes: Mapping[str, int],
    workers: int | None = None,
) -> list[Outcome]:
    """Preprocesses every case for every configuration into ``folder/CONFIGURATION``; returns the failures.

    Each file is read once for all configurations. Cases that are already there, from the same files and by the same
    rules, are not done again; a failing case does not stop the others. ``case_bytes`` is the size of each image as
    float32.
    """

    def missing(case: Case) -> dict[str, Preprocessing]:
        return {name: how for name, how in configurations.items() if not _is_done(folder / name, case, labels, how)}

    def run(case: Case) -> None:
        _preprocess_case(case, labels, missing(case), folder)

    waiting = [case for case in cases if missing(case)]
    # Decoded file, float32 copy, its normalised copy, the resampled image and the spline's intermediate results.
    outcomes = map_bounded(
        run, waiting, cost_bytes=lambda case: 6 * case_bytes[case.id], workers=workers, what="preprocessing"
    )
    return [outcome for outcome in outcomes if outcome.error is not None]


def _preprocess_case(case: Case, labels: LabelSet, configurations: Mapping[str, Preprocessing], folder: Path) -> None:
    sources = _sources(case)
    image, mask = read_case(case)
    # The image's geometry for both: verified to be the same grid, it must also be oriented by the same rounding.
    classes = Volume(array=labels.to_classes(as_integers(mask.array)), geometry=image.geometry)
    for name, how in configurations.items():
        network_image, record = preprocess_image(image, how)
        network_classes = preprocess_classes(classes, record)
        foreground = foreground_voxels(network_classes.numpy())
        stored = StoredCase(
            id=case.id,
            preprocessing=how,
            record=record,
            sources=sources,
            label_values=labels.values,
            foreground_counts={str(index): len(voxels) for index, voxels in foreground.items()},
        )
        _save_case(folder / name, stored, network_image, network_classes, foreground)


def _save_case(
    folder: Path, stored: StoredCase, image: Tensor, classes: Tensor, foreground: dict[int, np.ndarray]
) -> None:
    mark = folder / f"{stored.id}.json"
    mark.unlink(missing_ok=True)  # if this is interrupted, arrays of two plans must not pass for a whole case
    array = image.numpy()
    if np.abs(array).max() < HALF_LIMIT:  # 0.05 % of each value, far below the noise of any scanner
        array = array.astype(np.float16)
    _save_array(folder / f"{stored.id}.image.b2nd", array)
    _save_array(folder / f"{stored.id}.classes.b2nd", classes.numpy())
    _save_array(folder / f"{stored.id}.foreground.b2nd", np.concatenate([*foreground.values(), np.zeros(0, np.uint32)]))
    stored.save(mark)


def foreground_voxels(classes_zyx: np.ndarray, seed: int = 1234) -> dict[int, np.ndarray]:
    """Flat indices (uint32) of up to FOREGROUND_VOXELS_PER_CLASS voxels of each class but 0, by class, sorted."""
    flat = classes_zyx.ravel()
    foreground = np.flatnonzero(flat).astype(np.uint32)
    values = flat[foreground]
    rng = np.random.default_rng(seed)
    chosen = {}
    for index in np.unique(values):
        voxels = foreground[values == index]
        if len(voxels) > FOREGROUND_VOXELS_PER_CLASS:
            voxels = np.sort(rng.choice(voxels, FOREGROUND_VOXELS_PER_CLASS, replace=False))
        chosen[int(index)] = voxels
    return chosen


def load_stored(folder: Path, case_id: str) -> StoredCase:
    """The record of a preprocessed case; raises UserError if it was not preprocessed."""
    path = folder / f"{case_id}.json"
    if not path.is_file():
        raise UserError(f"{path}: case {case_id} is not preprocessed; run segfw plan-and-preprocess first")
    return StoredCase.load(path)


def open_case(folder: Path, case_id: str, *, in_memory: bool = False) -> CaseArrays:
    """Opens a preprocessed case, or reads it whole where memory allows."""
    stored = load_stored(folder, case_id)
    image, classes, listed = (
        blosc2.open(str(folder / f"{case_id}.{part}.b2nd"), mode="r") for part in ("image", "classes", "foreground")
    )
    ends = np.cumsum(list(stored.foreground_counts.values()))
    parts = np.split(listed[:], ends[:-1]) if len(ends) else []
    foreground = {int(index): part for index, part in zip(stored.foreground_counts, parts)}
    if in_memory:
        image, classes = image[:], classes[:]
    return CaseArrays(image=image, classes=classes, foreground=foreground)


def stored_bytes(folder: Path, case_ids: list[str]) -> Iterator[int]:
    """Uncompressed bytes of image and classes of each case, without reading them."""
    for case_id in case_ids:
        parts = (blosc2.open(str(folder / f"{case_id}.{part}.b2nd"), mode="r") for part in ("image", "classes"))
        yield sum(part.nbytes for part in parts)


def _save_array(path: Path, array: np.ndarray) -> None:
    # Chunks near the size of a patch's part: small enough to read little too much, large enough to compress.
    chunks = tuple(min(size, limit) for size, limit in zip(array.shape, (1, 32, 64, 64)[-array.ndim :]))
    with whole_file(path) as partial:
        partial.unlink(missing_ok=True)
        settings = {"codec": blosc2.Codec.ZSTD, "clevel": 3, "nthreads": 1}
        if array.ndim == 1:
            chunks = (max(1, len(array)),)
        blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, urlpath=str(partial), mode="w", cparams=settings)


def _is_done(folder: Path, case: Case, labels: LabelSet, how: Preprocessing) -> bool:
    path = folder / f"{case.id}.json"
    if not path.is_file():
        return False
    try:
        stored = StoredCase.load(path)
    except UserError:  # written by another version: made again
        return False
    return (stored.preprocessing, stored.label_values, stored.sources) == (how, labels.values, _sources(case))


def _sources(case: Case) -> tuple[tuple[str, int, int], ...]:
    files = (*case.images, *([case.label] if case.label else []))
    return tuple((str(path), *size_and_change(path)) for path in files)

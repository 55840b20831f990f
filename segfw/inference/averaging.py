"""The mean of what several models found, on the image's own grid, made block by block from stored probabilities.

Models may have worked on different grids and in different axis orders: each one's logits are restored for a block, made
probabilities, and averaged there. Never more than a block of one size exists, whatever the image and the classes.
"""

# K classes, Z Y X space; "canonical" is the file's orientation-free axis order, before any network's own

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from segfw.base.parallel import FAILURES_FILE, CasesFailed, Outcome, progress
from segfw.base.records import Record, UserError, count
from segfw.dataset.cases import LABELS_FILE
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.restore import BlockResampler, first_largest, last_above_zero
from segfw.grid.slabs import Block
from segfw.images.formats import check_mask_ending, write_labels, write_map
from segfw.images.geometry import Shape, largest_displacement_mm
from segfw.inference.probabilities import Probabilities, probability_files, read_probabilities
from segfw.model.postprocess import Postprocessing, apply, load_postprocessing, require_steps

SETTINGS_FILE = "ensemble.json"
BLOCK_VALUES = 1 << 25  # stored values of one model in a block, about
PART = (8, 32, 32)  # voxels that are restored together: small parts have fewer classes


class EnsembleSettings(Record):
    """What the masks in a folder were averaged from; masks of other models or weights are never mixed in."""

    models: tuple[str, ...]  # digests, as in the files of probabilities
    weights: tuple[float, ...]
    postprocessing: Postprocessing


def ensemble(
    folders: Sequence[Path],
    output: Path,
    *,
    weights: Sequence[float] | None = None,
    postprocessing: Path | Postprocessing | None = None,
    maps_of: Sequence[str] = (),
    ending: str = ".nii.gz",
    overwrite: bool = False,
) -> None:
    """Writes ``output/CASE.nii.gz`` for every case of which all ``folders`` hold probabilities.

    ``weights`` are relative, one per folder. ``postprocessing`` is a selection.json, the postprocessing.json of an
    imported model, or the steps themselves. ``maps_of`` names labels whose mean probability is written as well, as
    ``output/probability/CASE_LABEL.nii.gz``. Masks already there from the same models are kept, unless a file of
    probabilities is newer. No image is at hand: its header's place is not copied, as ``predict`` does, but made of the
    affine that segfw went by, and a plane becomes a volume of one slice.

    Raises UserError if the folders hold no case in common, or differ in labels, or if there is no label of ``maps_of``
    or ``postprocessing``; CasesFailed, at the end, names the cases that lack a folder or could not be averaged.
    """
    check_mask_ending(ending)
    output, folders = Path(output), [Path(folder) for folder in folders]
    weights = _checked_weights(weights, len(folders))
    steps = postprocessing or Postprocessing()
    steps = steps if isinstance(steps, Postprocessing) else load_postprocessing(steps)
    files = [probability_files(folder) for folder in folders]
    common = sorted(set.intersection(*(set(found) for found in files)))
    if not common:
        raise UserError(f"{', '.join(map(str, folders))}: have no case in common; give folders of the same images")
    lacking = {
        case: [str(folder) for folder, found in zip(folders, files) if case not in found]
        for case in sorted(set.union(*(set(found) for found in files)) - set(common))
    }
    failures = [
        Outcome(item=case, error=UserError(f"{case}: is missing in {', '.join(where)}; predict it there too"))
        for case, where in lacking.items()
    ]
    first = [read_probabilities(found[common[0]]) for found in files]
    settings = EnsembleSettings(
        models=tuple(opened.info.model for opened in first),
        weights=weights,
        postprocessing=steps,
    )
    _check_same_kind(first)
    for name in maps_of:
        _index_of(name, first[0])
    require_steps(settings.postprocessing, first[0].info.labels, first[0].path)
    masks = {case: output / f"{case}{ending}" for case in common}
    _claim(output, settings, list(masks.values()), overwrite)
    first[0].info.labels.save(output / LABELS_FILE)
    print(f"averaging {count(len(common), 'case')} of {', '.join(opened.info.configuration for opened in first)}")
    for case, mask in progress("averaging", masks.items()):
        maps = {name: output / "probability" / f"{case}_{_in_file_name(name)}.nii.gz" for name in maps_of}
        if _is_up_to_date([mask, *maps.values()], [found[case] for found in files]):
            continue
        mask.unlink(missing_ok=True)  # lest one of old probabilities stay where the new ones fail
        try:
            opened = [read_probabilities(found[case]) for found in files]
            for model, one in zip(settings.models, opened):
                if one.info.model != model:
                    raise UserError(f"{one.path}: was made by other weights than {common[0]} beside it; predict again")
            labels, geometry = opened[0].info.labels, opened[0].info.record.original
            for name, path in maps.items():
                write_map(path, probability_of(name, opened, weights), geometry)
            classes = apply(merged(opened, weights), settings.postprocessing)
            write_labels(mask, labels.to_values(classes), geometry)
        except Exception as error:  # one bad case must not cost the user the others
            failures.append(Outcome(item=case, error=error))
    if failures:
        raise CasesFailed("in averaging", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


def _checked_weights(weights: Sequence[float] | None, models: int) -> tuple[float, ...]:
    weights = tuple(weights or (1.0,) * models)
    if len(weights) != models or not all(isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
        raise UserError(f"--weights are {', '.join(map(str, weights))}; give one that is not negative per folder")
    return weights


def _in_file_name(label: str) -> str:
    """The label without what would make a folder or no file name; no two labels become one."""
    return re.sub(r'[/\\:*?"<>|%]', lambda found: quote(found[0], safe=""), label)


def _is_up_to_date(made: Sequence[Path], sources: Sequence[Path]) -> bool:
    """Whether all files are there, and none was made before a source was made anew."""
    newest_source = max(path.stat().st_mtime_ns for path in sources)
    return all(path.is_file() and path.stat().st_mtime_ns >= newest_source for path in made)


def _claim(output: Path, settings: EnsembleSettings, masks: Sequence[Path], overwrite: bool) -> None:
    """Makes ``output`` a folder of these settings; UserError if it holds masks of others."""
    kept = output / SETTINGS_FILE
    if output.is_file():
        raise UserError(f"{output}: is a file; give a folder for the masks")
    if overwrite:
        for mask in masks:  # before the settings change, lest an old mask pass for a new one
            mask.unlink(missing_ok=True)
        for old in (output / "probability").glob("*.nii.gz"):
            old.unlink()
    elif kept.is_file() and EnsembleSettings.load(kept) != settings:
        raise UserError(
            f"{output}: holds masks of other models, weights or postprocessing; use another folder or --overwrite"
        )
    elif not kept.is_file() and any(mask.exists() for mask in masks):
        raise UserError(f"{output}: holds masks that this verb did not write; use another folder or --overwrite")
    settings.save(kept)


def merged(several: Sequence[Probabilities], weights: Sequence[float] | None = None) -> np.ndarray:
    """Classes (Z, Y, X) on the file's own grid by the weighted mean probability of several models of one image.

    Of one model they are what prediction writes. UserError if the models differ in labels or the files in their image.
    """
    return merged_each(several, [dict(enumerate(weights or (1.0,) * len(several)))])[0]


def merged_each(several: Sequence[Probabilities], mixtures: Sequence[Mapping[int, float]]) -> list[np.ndarray]:
    """As ``merged``, for several mixtures ({number of a model: weight}) of which each model is restored only once."""
    record, labels = several[0].info.record, several[0].info.labels
    painted = labels.painted_classes
    # Class of each winner; what is number ``outputs`` has no probability that is a number, or no region.
    table = np.array([*(painted or range(labels.outputs)), 0], dtype=np.uint8 if labels.classes <= 256 else np.uint16)
    results = [np.zeros(_canonical_shape(record), table.dtype) for _ in mixtures]
    for part, found, values in _parts(several):
        for mixture, result in zip(mixtures, results):
            if not values:
                result[part] = table[found[0]]
                continue
            mean = _mean(values, mixture)
            winner = last_above_zero(mean - 0.5) if painted else first_largest(mean)
            result[part] = table[np.append(found, labels.outputs)[winner.numpy()]]
    return [place_back(result.transpose(record.axis_order), record) for result in results]


def probability_of(name: str, several: Sequence[Probabilities], weights: Sequence[float] | None = None) -> np.ndarray:
    """Mean probability of one label or region, float32 (Z, Y, X) on the file's own grid; 0 outside the crop."""
    record = several[0].info.record
    index, mixture = _index_of(name, several[0]), dict(enumerate(weights or (1.0,) * len(several)))
    result = np.zeros(_canonical_shape(record), np.float32)
    for part, found, values in _parts(several):
        if index in found:
            place = int(np.flatnonzero(found == index)[0])
            result[part] = _mean([one[place] for one in values], mixture).numpy() if values else 1
    return place_back(result.transpose(record.axis_order), record)


def _index_of(name: str, of: Probabilities) -> int:
    """Which of the probabilities are of this label or region."""
    labels = of.info.labels
    names = [region.name for region in labels.regions] or list(labels.names)
    if name not in names:
        raise UserError(f"--map-of {name!r} is no label of {of.path}; choose from {', '.join(names)}")
    return names.index(name)


def _mean(values: Sequence[Tensor], mixture: Mapping[int, float]) -> Tensor:
    total = sum(mixture.values())
    return sum(values[index] * (weight / total) for index, weight in mixture.items())


def _canonical_shape(record: PreprocessRecord) -> Shape:
    return tuple(record.cropped_shape[axis] for axis in np.argsort(record.axis_order))


def _parts(several: Sequence[Probabilities]) -> Iterator[tuple[Block, np.ndarray, list[Tensor]]]:
    """Parts of the canonical crop, the classes that some model finds possible there, and each model's probabilities.

    No probabilities come where the one class found is certain; parts without any region are left out.
    """
    _check_same_image(several)
    labels, shape = several[0].info.labels, _canonical_shape(several[0].info.record)
    sources = [_Source(one) for one in several]
    rows = max(PART[1], BLOCK_VALUES // (labels.outputs * PART[0] * shape[2]))  # whole rows, as files hold them
    for block in _blocks(tuple(slice(0, size) for size in shape), (PART[0], rows, shape[2])):
        for source in sources:
            source.read(block)
        for part in _blocks(block, PART):
            found = torch.stack([source.is_near(part) for source in sources]).any(0).nonzero()[:, 0]
            is_certain = len(found) == 1 and not labels.regions
            if len(found):
                yield part, found.numpy(), [] if is_certain else [one.probabilities(part, found) for one in sources]


class _Source:
    """One model's stored values of a block of the canonical crop, restored part by part.

    Of many classes few are anywhere near: the others have the lowest logit throughout, so that their share of the
    softmax is known without restoring them.
    """

    def __init__(self, opened: Probabilities) -> None:
        record = opened.info.record
        self._opened, self._order = opened, record.axis_order
        self._resampler = BlockResampler.back(record)

    def read(self, block: Block) -> None:
        """Reads all that is needed for a block."""
        self._origin = self._resampler.source(self._own(block))
        self._stored = self._opened.stored(self._origin)

    def is_near(self, part: Block) -> Tensor:
        """Which classes or regions have more than the lowest probability somewhere in a part of the block, (K,)."""
        return (self._inside(self._own(part)) > self._opened.lowest_stored).flatten(1).any(1)

    def probabilities(self, part: Block, found: Tensor) -> Tensor:
        """Those of the classes or regions ``found``, on the image's grid in canonical order."""
        own, lowest = self._own(part), self._opened.lowest
        restored = self._resampler.resize(self._opened.logits_of(self._inside(own)[found]), own)
        restored = restored.permute(0, *(np.argsort(self._order) + 1).tolist())
        if self._opened.info.labels.regions:
            return restored.sigmoid()
        exponents = restored.exp()
        return exponents / (exponents.sum(0) + (len(self._stored) - len(found)) * np.exp(lowest))

    def _own(self, block: Block) -> Block:
        return tuple(block[axis] for axis in self._order)

    def _inside(self, own: Block) -> Tensor:
        places = zip(self._resampler.source(own), self._origin)
        return self._stored[(slice(None), *(slice(part.start - o.start, part.stop - o.start) for part, o in places))]


def _check_same_kind(several: Sequence[Probabilities]) -> None:
    first = several[0]
    for other in several[1:]:
        if other.info.labels != first.info.labels:
            raise UserError(f"{other.path}: has other labels, or in another order, than {first.path}; leave it out")
        wanted, theirs = (one.info.record.orientation for one in (first, other))
        if theirs != wanted:  # blocks of both could be mirror images of each other
            raise UserError(
                f"{other.path}: is of a model that takes images {theirs}, but {first.path} of one that takes them "
                f"{wanted}; average models of one orientation only"
            )


def _check_same_image(several: Sequence[Probabilities]) -> None:
    _check_same_kind(several)
    first, record = several[0], several[0].info.record
    for other in several[1:]:
        theirs = other.info.record
        same_grid = theirs.original.shape == record.original.shape and (
            largest_displacement_mm(theirs.original, record.original) < min(record.original.spacing_mm) / 100
        )
        if not same_grid or theirs.box != record.box:
            raise UserError(f"{other.path}: is of another image, or of another grid, than {first.path}; leave it out")


def _blocks(within: Block, size: Shape) -> Iterator[Block]:
    z, y, x = (
        [slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)]
        for part, step in zip(within, size)
    )
    yield from ((in_z, in_y, in_x) for in_z in z for in_y in y for in_x in x)

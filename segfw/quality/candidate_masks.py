"""Suspected regions on the image's own grid, and other masks that could take the place of what is there.

Candidates of a region are what each fold says, where the mean probability is above 0.35 and above 0.65, and the largest
part of the structure alone: within the region's box, and only those that differ from what was written.
"""

# Z Y X space

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, Box, common, cut, relative, shape_of
from segfw.grid.file_boxes import FileBox
from segfw.grid.preprocess import PreprocessRecord
from segfw.quality.case_quality import Candidate, CaseRegions, SuspectedRegion
from segfw.quality.member_maps import is_any_of
from segfw.quality.run_lengths import run_lengths
from segfw.quality.suspected_regions import FoundRegion, StructureInMaps

MOST_BYTES = 2_000_000  # of the candidates of one case, as JSON
THRESHOLDS = (0.35, 0.65)


def case_regions(
    case: str,
    found: Sequence[FoundRegion],
    structures: Sequence[StructureInMaps],
    classes_zyx: np.ndarray,
    folds: Sequence[str],
    *,
    called: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> CaseRegions:
    """The regions of a case with their candidates, in the order in which they were found.

    Parameters
    ----------
    case
        Its id.
    found
        Of ``suspected_regions``.
    structures
        That these were found in.
    classes_zyx
        The finished mask on the file's own grid.
    folds
        Names of the members.
    called
        What structures are called in the mask, where that is not their name.
    most_bytes
        Of all candidates; those of regions with the smallest expected error are left out first.

    Returns
    -------
    CaseRegions
        Islands that the finished mask no longer has are left out.
    """
    by_name = {each.name: each for each in structures}
    regions: list[SuspectedRegion] = []
    left_bytes = most_bytes
    resampler = None
    for region in found:
        each = by_name[region.structure]
        label = region.structure if called is None else called[region.structure]
        if region.block is None or region.mask_zyx is None:
            regions.append(_nowhere(len(regions) + 1, label, region))
            continue
        resampler = resampler or BlockResampler.back(each.maps.record)
        box = FileBox.around(region.block, each.maps.record, resampler)
        written = is_any_of(cut(classes_zyx, box.box), each.maps.labels.structures[each.name])
        mask = _on_file(region.mask_zyx, region.block, box)
        if region.kind == "island" and not (written & mask).any():
            continue
        candidates: list[Candidate] = []
        left_out = 0
        for names, runs in _candidates(each, box, written, folds):
            size = len(str(list(runs))) + len(json.dumps(names))  # numbers look in JSON as in Python
            if size > left_bytes:
                left_out += 1
                continue
            left_bytes -= size
            candidates.append(Candidate(names=names, runs=runs))
        regions.append(
            SuspectedRegion(
                id=len(regions) + 1,
                label=label,
                kind=region.kind,
                box_zyx=box.box,
                centroid_ras_mm=_centroid_mm(mask, box.box, each.maps.record),
                volume_mm3=region.voxels * float(np.prod(each.maps.record.spacing_mm)),
                expected_wrong_mm3=region.expected_wrong_mm3,
                slices=tuple((np.flatnonzero(mask.any((1, 2))) + box.box[0][0]).tolist()),
                candidates=tuple(candidates),
                candidates_left_out=left_out,
            )
        )
    return CaseRegions(case=case, shape=tuple(classes_zyx.shape), regions=tuple(regions))


def _nowhere(number: int, label: str, region: FoundRegion) -> SuspectedRegion:
    return SuspectedRegion(
        id=number,
        label=label,
        kind=region.kind,
        box_zyx=None,
        centroid_ras_mm=None,
        volume_mm3=0.0,
        expected_wrong_mm3=region.expected_wrong_mm3,
        slices=(),
        candidates=(),
    )


def _on_file(mask_zyx: np.ndarray, block: Block, box: FileBox) -> np.ndarray:
    """A mask of a block on the file's voxels; where they are coarser than it is, all of them that it touches."""
    whole = _in_source(mask_zyx, block, box)
    found = box.of_mask(whole)
    if found.any():
        return found
    return np.ones(found.shape, bool)


def _in_source(mask_zyx: np.ndarray, block: Block, box: FileBox) -> np.ndarray:
    """A mask of a block of the network's grid in the block that the box is made from.

    Voxels of a much coarser file are made from a few in their middles, so that there may be nothing of it.
    """
    whole = np.zeros(shape_of(box.source), bool)
    both = common(box.source, block)
    if all(shape_of(both)):
        whole[relative(both, box.source)] = mask_zyx[relative(both, block)]
    return whole


def _candidates(
    each: StructureInMaps, box: FileBox, written: np.ndarray, folds: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Names and runs of every mask that is not the written one, each once."""
    names_of: dict[tuple[int, ...], list[str]] = {}
    as_written = run_lengths(written)
    for name, mask in _masks(each, box.source, folds):
        runs = run_lengths(box.of_mask(mask))
        if runs != as_written:
            names_of.setdefault(runs, []).append(name)
    for runs, names in names_of.items():
        yield tuple(names), runs


def _masks(each: StructureInMaps, source: Block, folds: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and mask of each candidate on the network's grid."""
    if len(folds) > 1:
        for member, fold in enumerate(folds):
            yield f"fold {fold}", each.mask(source, member)
    probability = each.probability(source)
    for threshold in THRESHOLDS:
        yield f"p > {threshold}", probability > threshold
    if each.box is not None and each.components is not None:
        numbered, sizes = each.components
        if len(sizes) > 2:
            largest = np.zeros(each.maps.record.shape, bool)
            largest[each.box] = numbered == sizes.argmax()
            yield "largest component", largest[source]


def _centroid_mm(mask_zyx: np.ndarray, box: Box, record: PreprocessRecord) -> tuple[float, float, float]:
    """Mean place of a mask's voxels in the patient, to the right, front and head."""
    place = np.array([indices.mean() for indices in np.nonzero(mask_zyx)]) + [start for start, _ in box]
    x, y, z = (record.original.matrix @ [*place, 1.0])[:3].round(3).tolist()
    return x, y, z


def names_in_masks(labels: LabelSet, written: LabelSet | None) -> dict[str, str]:
    """What each structure is called in the masks."""
    if written is None or labels.regions:
        return {name: name for name in labels.structures}
    return {name: written.names[classes[0]] for name, classes in labels.structures.items()}


def values_in_masks(labels: LabelSet, written: LabelSet | None) -> dict[str, int]:
    """The value of each structure in the masks; of a region the one that it is painted as."""
    meant = written or labels
    if labels.regions:
        return {name: meant.values[index] for name, index in zip(labels.structures, labels.painted_classes)}
    return {name: meant.values[classes[0]] for name, classes in labels.structures.items()}

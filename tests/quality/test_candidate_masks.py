"""Regions on the file's own grid, whatever its order of axes, and candidates that fit into two megabytes."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from builders.probabilities import GRIDS, LABELS, record_of, smooth_logits
from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import blocks, cut, shape_of, whole_grid
from segfw.grid.file_boxes import FileBox
from segfw.grid.preprocess import place_back
from segfw.grid.restore import restore
from segfw.grid.slabs import Slab
from segfw.images.volume import AS_STORED
from segfw.quality.candidate_masks import _on_file, case_regions
from segfw.quality.doubtful_voxels import DoubtfulVoxels
from segfw.quality.member_maps import MemberMaps
from segfw.quality.run_lengths import mask_of_runs, run_lengths
from segfw.quality.suspected_regions import structures_in, suspected_regions

RECORDS = {
    **GRIDS,
    "kept": record_of((4.0, 1.5, 1.0)),
    "turned": record_of((3.0, 2.0, 1.5), order=(2, 0, 1)),
    "as stored": record_of((4.0, 1.0, 1.5), order=(1, 0, 2), orientation=AS_STORED),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_box_of_a_file_holds_what_place_back_puts_there(record):
    """Every voxel of the crop has a number; a block's numbers are found in its box of the file, in its order."""
    numbers = np.arange(1, 1 + np.prod(record.cropped_shape)).reshape(record.cropped_shape)
    in_file = place_back(numbers, record)
    resampler = BlockResampler.back(record)
    seen = 0
    for block in blocks(whole_grid(record.shape), (2, 3, 4)):
        box = FileBox.around(block, record, resampler)
        found = box.in_file_order(numbers[box.crop])
        np.testing.assert_array_equal(found, cut(in_file, box.box))
        seen += 1
    assert seen > 3


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_mask_on_the_file_is_that_of_the_whole_grid(record):
    """Where p of two classes is interpolated, the mask of the box is the one that restoring the whole gives."""
    mask = torch.from_numpy(smooth_logits(record, 1)[0].numpy() > 0)
    logits = torch.stack((0.5 - mask.float(), mask.float() - 0.5))
    whole = restore(logits, record) == 1
    resampler = BlockResampler.back(record)
    block = (slice(0, record.shape[0]), slice(1, 4), slice(0, record.shape[2] - 1))
    box = FileBox.around(block, record, resampler)
    found = box.of_mask(mask.numpy()[box.source])
    np.testing.assert_array_equal(found, cut(whole, box.box))


def test_runs_begin_outside_and_come_back_as_the_mask():
    mask = np.zeros((2, 2, 3), bool)
    mask[0, 0, 1:] = True
    mask[1, 1] = True
    assert run_lengths(mask) == (1, 2, 6, 3)
    assert run_lengths(~mask) == (0, 1, 2, 6, 3)
    assert run_lengths(np.zeros((1, 2, 2), bool)) == (4,)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.random((3, 4, 5)) > rng.random()
        np.testing.assert_array_equal(mask_of_runs(run_lengths(drawn), (3, 4, 5)), drawn)


def case_of(record, members: int = 3, most_bytes: int = 2_000_000, seed: int = 0):
    """The finished mask and the regions of drawn logits, by several folds that differ."""
    each = [smooth_logits(record, 3, seed + number, scale=12.0) for number in range(members)]
    slab = Slab(first=0, start=0, stop=record.shape[0], channels_azyx=torch.cat(each), members=members)
    maps = MemberMaps(record, LABELS)
    doubtful = DoubtfulVoxels(maps)
    maps.add(slab)
    doubtful.add(slab)
    structures = structures_in(maps, doubtful.by_structure())
    classes = restore(torch.stack(each).mean(0), record)
    folds = tuple(map(str, range(members)))
    found = suspected_regions(structures)
    return maps, classes, case_regions("a", found, structures, classes, folds, most_bytes=most_bytes)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_candidates_are_other_masks_of_the_structure_in_the_box(record):
    maps, classes, found = case_of(record)
    assert found.shape == classes.shape
    assert [region.id for region in found.regions] == list(range(1, 1 + len(found.regions)))
    seen = 0
    for region in found.regions:
        written = cut(classes, region.box_zyx) == LABELS.names.index(region.label)
        shape = tuple(stop - start for start, stop in region.box_zyx)
        masks = [mask_of_runs(each.runs, shape) for each in region.candidates]
        for number, mask in enumerate(masks):
            assert (mask != written).any()
            assert not any((mask == other).all() for other in masks[:number])
        assert set(region.slices) <= set(range(*region.box_zyx[0]))
        for each in region.candidates:
            if "fold 1" in each.names:
                index = LABELS.names.index(region.label)
                box = FileBox.around(whole_grid(record.shape), record, BlockResampler.back(record))
                whole = np.zeros(classes.shape, bool)
                cut(whole, box.box)[...] = box.of_mask(maps.classes[1][box.source] == index)
                np.testing.assert_array_equal(mask_of_runs(each.runs, shape), cut(whole, region.box_zyx))
                seen += 1
    assert seen > 0


def test_candidates_stop_where_their_bytes_do_and_the_largest_errors_keep_theirs():
    _, _, whole = case_of(record_of())
    total = sum(len(region.candidates) for region in whole.regions)
    assert total > 3
    first_bytes = sum(bytes_of(each) for each in whole.regions[0].candidates)
    _, _, cramped = case_of(record_of(), most_bytes=first_bytes)
    kept = [each for region in cramped.regions for each in region.candidates]
    assert len(kept) < total
    assert sum(map(bytes_of, kept)) <= first_bytes
    assert sum(region.candidates_left_out for region in cramped.regions) == total - len(kept)
    assert cramped.regions[0] == whole.regions[0]


@pytest.mark.parametrize("spacing_mm", [(0.3, 1.5, 1.0), (4.0, 0.15, 1.0)])
def test_a_file_that_is_much_coarser_than_the_network_has_a_place_for_every_region(spacing_mm):
    """A voxel of such a file is made from a few of the network's in its middle: regions beside these have none."""
    record = record_of(spacing_mm)
    axis = int(np.argmax(record.shape))
    resampler = BlockResampler.back(record)
    for start, size in product(range(record.shape[axis] - 4), (1, 2, 4)):
        z, y, x = (slice(start, start + size) if at == axis else slice(0, end) for at, end in enumerate(record.shape))
        box = FileBox.around((z, y, x), record, resampler)
        on_file = _on_file(np.ones(shape_of((z, y, x)), bool), (z, y, x), box)
        assert on_file.any()
        assert on_file.shape == tuple(stop - first for first, stop in box.box)


def bytes_of(candidate) -> int:
    return len(json.dumps(candidate.runs)) + len(json.dumps(candidate.names))


def test_the_centroid_is_in_the_patient():
    """A region's middle in millimetres, by the affine of the file."""
    record = RECORDS["turned"]
    _, classes, found = case_of(record)
    region = found.regions[0]
    corners = np.array([[start, stop - 1] for start, stop in region.box_zyx], dtype=float)
    low, high = (record.original.matrix @ [*corners[:, side], 1.0] for side in (0, 1))
    for place, first, last in zip(region.centroid_ras_mm, low, high):
        assert min(first, last) - 1e-3 <= place <= max(first, last) + 1e-3
    assert classes.shape == record.original.shape


def test_an_island_that_the_finished_mask_no_longer_has_is_no_region():
    record = RECORDS["kept"]
    p = torch.zeros(3, *record.shape)
    p[0] = 5
    p[:, :3, 0:3, 0:5] = torch.tensor([0.0, 5.0, 0.0])[:, None, None, None]
    p[:, -1:, -1:, -1:] = torch.tensor([0.0, 5.0, 0.0])[:, None, None, None]
    slab = Slab(first=0, start=0, stop=record.shape[0], channels_azyx=p)
    maps = MemberMaps(record, LABELS)
    doubtful = DoubtfulVoxels(maps)
    maps.add(slab)
    doubtful.add(slab)
    structures = structures_in(maps, doubtful.by_structure())
    found = suspected_regions(structures)
    assert [region.kind for region in found] == ["island"]
    classes = restore(p, record)
    (region,) = case_regions("a", found, structures, classes, ("0",)).regions
    (candidate,) = region.candidates
    assert candidate.names == ("largest component",)
    assert candidate.runs == (1,)  # nothing is left in the box of one voxel
    without = classes.copy()
    cut(without, region.box_zyx)[...] = 0
    assert case_regions("a", found, structures, without, ("0",)).regions == ()


def test_what_is_kept_of_a_voxel_does_not_grow_with_the_classes():
    """Bytes of all maps and doubtful voxels, for equal probabilities of 3 classes and of 100."""
    record = record_of()
    kept = []
    for classes in (3, 100):
        names = tuple(f"label {number}" for number in range(classes))
        labels = LabelSet(names=names, values=tuple(range(classes)))
        maps = MemberMaps(record, labels)
        doubtful = DoubtfulVoxels(maps)
        logits = torch.full((2 * classes, *record.shape), -9.0)
        logits[1] = logits[classes + 1] = 1.0
        logits[2] = logits[classes + 2] = 0.5
        slab = Slab(first=0, start=0, stop=record.shape[0], channels_azyx=logits, members=2)
        maps.add(slab)
        doubtful.add(slab)
        of_doubt = (*doubtful._index, *doubtful._outputs, *doubtful._probabilities)
        assert sum(map(len, doubtful._index)) == np.prod(record.shape)
        arrays = (*maps.classes, maps.mean_classes, maps.probability, maps.entropy, *of_doubt)
        kept.append(sum(array.nbytes for array in arrays))
    assert kept[0] == kept[1] == np.prod(record.shape) * (2 + 3 + 11)

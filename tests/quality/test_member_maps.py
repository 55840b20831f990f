"""What is kept of every network's logits: against sums over whole volumes, and numbers counted by hand."""

import numpy as np
import pytest
import torch

from builders.probabilities import LABELS, NESTED, in_slabs, record_of, smooth_logits
from segfw.dataset.labels import LabelSet
from segfw.grid.slabs import Slab
from segfw.grid.winners import first_largest, last_above_zero
from segfw.inference.uncertainty import entropy
from segfw.quality.member_maps import DOUBTFUL, MemberMaps, MemberSums, add_entropies, below_largest, codes_of

RECORD = record_of()


def members_in_slabs(logits_mkzyx: torch.Tensor, thickness: int = 2) -> list[Slab]:
    """The stream of several networks, told apart."""
    members, outputs, depth = logits_mkzyx.shape[:3]
    slabs = []
    for start in range(0, depth, thickness):
        first = max(0, start - 1)
        stop = min(start + thickness, depth)
        channels = logits_mkzyx[:, :, first:stop].flatten(0, 1)
        slabs.append(Slab(first=first, start=start, stop=stop, channels_azyx=channels, members=members))
    return slabs


def filled(slabs: list[Slab], labels: LabelSet, **how: int) -> MemberMaps:
    maps = MemberMaps(RECORD, labels, **how)
    for slab in slabs:
        maps.add(slab)
    return maps


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize("block_values", [1, 40, 1 << 22])
def test_maps_and_sums_are_those_of_whole_volumes(labels, block_values):
    logits = torch.stack([smooth_logits(RECORD, labels.outputs, seed) for seed in range(3)])
    maps = filled(members_in_slabs(logits), labels, block_values=block_values)
    assert maps.members == 3
    winners = last_above_zero if labels.regions else first_largest
    for member in range(3):
        codes = winners(logits[member]).numpy()
        assert np.array_equal(maps.classes[member], codes)
        p = (logits[member].sigmoid() if labels.regions else logits[member].softmax(0)).double().numpy()
        doubt = entropy(logits[member], is_regions=bool(labels.regions)).double().numpy()
        sums = maps.sums[member]
        assert sums.image_entropy == pytest.approx(doubt.sum(), rel=1e-5)
        assert sums.voxels == doubt.size
        for output, name in enumerate(labels.output_names):
            if name not in labels.structures:
                continue
            mask = np.isin(codes, codes_of(labels)[name])
            assert mask.any()
            assert np.array_equal(maps.mask(name, member), mask)
            assert sums.mask[output] == mask.sum()
            assert sums.inside[output] == pytest.approx(p[output][mask].sum(), rel=1e-5)
            assert sums.everywhere[output] == pytest.approx(p[output].sum(), rel=1e-5)
            assert sums.doubtful[output] == ((p[output] > DOUBTFUL[0]) & (p[output] < DOUBTFUL[1])).sum()
            assert sums.entropy[output] == pytest.approx(doubt[mask].sum(), rel=1e-5)
            core = slow_core(mask)
            assert sums.core[output] == core.sum()
            assert sums.core_entropy[output] == pytest.approx(doubt[core].sum(), rel=1e-5)
            faces, rim = slow_rim(mask, doubt)
            assert sums.rim[output] == 2 * faces
            assert sums.rim_entropy[output] == pytest.approx(rim, rel=1e-5)
    mean = logits.mean(0)
    assert np.array_equal(maps.mean_classes, winners(mean).numpy())
    p = mean.sigmoid() if labels.regions else mean.softmax(0)
    expected = torch.maximum(p.amax(0), 1 - p.amax(0)) if labels.regions else p.amax(0)
    assert np.abs(maps.probability / 255 - expected.numpy()).max() < 0.5 / 255 + 1e-6
    assert np.abs(maps.entropy / 255 - entropy(mean, is_regions=bool(labels.regions)).numpy()).max() < 0.5 / 255 + 1e-6


def slow_core(mask: np.ndarray) -> np.ndarray:
    core = mask.copy()
    for z, y, x in np.argwhere(mask):
        for other in ((z, y - 1, x), (z, y + 1, x), (z, y, x - 1), (z, y, x + 1)):
            is_inside = all(0 <= at < size for at, size in zip(other, mask.shape))
            if is_inside and not mask[other]:
                core[z, y, x] = False
    return core


def slow_rim(mask: np.ndarray, doubt: np.ndarray) -> tuple[int, float]:
    faces = 0
    total = 0.0
    depth, height, width = mask.shape
    for z, y, x in np.ndindex(depth, height, width):
        for other in ((z, y + 1, x), (z, y, x + 1)):
            if other[1] < height and other[2] < width and mask[z, y, x] != mask[other]:
                faces += 1
                total += doubt[z, y, x] + doubt[other]
    return faces, total


def test_a_single_network_is_a_member_too():
    logits = smooth_logits(RECORD, LABELS.outputs)
    maps = filled(in_slabs(logits), LABELS)
    assert maps.members == 1
    assert maps.classes[0] is maps.mean_classes
    assert np.array_equal(maps.mean_classes, first_largest(logits).numpy())


def test_a_cross_of_five_voxels_has_a_core_of_one_and_twelve_faces():
    codes = np.zeros((1, 5, 5), np.int32)
    codes[0, 2, 1:4] = 1
    codes[0, 1:4, 2] = 1
    doubt = np.where(codes == 1, 0.5, 0.25).astype(np.float32)
    doubt[0, 2, 2] = 0.125
    sums = MemberSums.nothing(2)
    add_entropies(sums, codes, doubt, np.eye(3, 2, dtype=bool), nothing=0)
    assert sums.core[1] == 1
    assert sums.core_entropy[1] == 0.125
    assert sums.rim[1] == 24  # both sides of twelve faces
    assert sums.rim_entropy[1] == 12 * 0.75
    assert sums.entropy[1] == 4 * 0.5 + 0.125


def test_memory_does_not_grow_with_the_number_of_classes():
    few = filled(in_slabs(smooth_logits(RECORD, LABELS.outputs)), LABELS)
    names = ("background", *(f"label {number}" for number in range(1, 40)))
    many_labels = LabelSet(names=names, values=tuple(range(40)))
    many = filled(in_slabs(smooth_logits(RECORD, 40)), many_labels)

    def bytes_of(maps: MemberMaps) -> int:
        return sum(array.nbytes for array in (*maps.classes, maps.mean_classes, maps.probability, maps.entropy))

    assert bytes_of(many) == bytes_of(few)


def test_sums_of_a_gpu_are_those_of_a_processor():
    """By one-hot codes of all voxels, or by the few that are doubtful or of a structure."""
    logits = smooth_logits(record_of(), 3, scale=8.0)
    maps = MemberMaps(record_of(), LABELS)
    below, codes = below_largest(logits)
    torch.testing.assert_close(codes, first_largest(logits))
    exponential = below.exp().flatten(1)
    share = exponential.sum(0).reciprocal()
    found = []
    for add in (maps._add_few, maps._add_all):
        sums = MemberSums.nothing(3)
        add(sums, exponential, share, codes.flatten())
        found.append(sums)
    for name in ("mask", "inside", "doubtful"):
        np.testing.assert_allclose(getattr(found[0], name), getattr(found[1], name), rtol=1e-5)
        assert getattr(found[0], name).min() > 0

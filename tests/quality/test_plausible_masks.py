"""Inner, outer and folds' masks: against full-size logits, nested, on the file's own grid."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from builders.probabilities import LABELS, NESTED, record_of, smooth_logits
from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import whole_grid
from segfw.grid.preprocess import place_back
from segfw.grid.restore import restore
from segfw.grid.slabs import Heads, Slab
from segfw.images.formats import read_mask, read_volume
from segfw.model.postprocess import DecodedStructure, KeepLargest, Postprocessing, apply
from segfw.quality.input_gate import GateVerdict
from segfw.quality.plausible_masks import PlausibleCase, PlausibleSink, guarantee_for
from segfw.quality.plausible_thresholds import PlausibleThresholds

FOLDS = ("0", "1", "4")


def thresholds(outer, inner, level=0.05):
    return PlausibleThresholds(
        outer=outer, inner=inner, level=level, patients=50, empty_share=0, outer_ratio=None, inner_ratio=None
    )


def slabs_by_member(members, *, with_heads, thickness=2):
    """The stream of an ensemble that tells its members apart."""
    classes = len(members[0])
    channels = torch.cat(members)
    heads = None
    if with_heads:
        picked = torch.eye(classes * len(members)).split(classes)
        heads = Heads(weights_ka=list(picked), biases_k=[torch.zeros(classes)] * len(members))
    depth = channels.shape[1]
    edges = [*range(0, depth, thickness), depth]
    for start, stop in pairwise(edges):
        first = max(0, start - 1)
        yield Slab(
            first=first,
            start=start,
            stop=stop,
            channels_azyx=channels[:, first:stop],
            heads=heads,
            members=1 if with_heads else len(members),
        )


def write(folder, record, members, mask, limits, labels=LABELS, *, with_heads=True, **options):
    with PlausibleSink(folder / "case.json", record, labels, limits, **options) as sink:
        for slab in slabs_by_member(members, with_heads=with_heads):
            sink.add(slab)
        assert list(folder.iterdir()) == []
        sink.finish(mask)
    return PlausibleCase.load(folder / "case.json")


def log_odds_on_file(members, record, labels):
    """Log-odds of every structure (S, Z, Y, X) on the file's own grid by full-size logits; minus infinity outside."""
    resampler = BlockResampler.back(record)
    whole = whole_grid(resampler.new_shape)
    mean = torch.stack(list(members)).mean(0)
    resized = resampler.resize(mean[(slice(None), *resampler.source(whole))], whole).double()
    if labels.regions:
        odds = resized
    else:
        p = resized.softmax(0)[1:]
        odds = p.log() - (1 - p).log()
    inside = place_back(np.ones(record.cropped_shape, bool), record)
    return np.array([np.where(inside, place_back(each.numpy(), record), -np.inf) for each in odds])


def mask_of(folder, name):
    return read_mask(folder / name).array[0]


@pytest.mark.parametrize("with_heads", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_masks_are_those_of_full_size_logits_on_the_files_grid(tmp_path, with_heads, order):
    record = record_of(order=order)
    members = [smooth_logits(record, 3, seed) for seed in range(3)]
    mask = restore(torch.stack(members).mean(0), record)
    limits = {"a": thresholds(-2.0, 1.5), "b": thresholds(-1.0, 0.7)}
    case = write(tmp_path, record, members, mask, limits, folds=FOLDS, with_heads=with_heads)
    assert case.files == (
        "case_outer_a.nii.gz",
        "case_outer_b.nii.gz",
        "case_inner.nii.gz",
        "case_fold_0.nii.gz",
        "case_fold_1.nii.gz",
        "case_fold_4.nii.gz",
    )
    odds = log_odds_on_file(members, record, LABELS)
    inner = mask_of(tmp_path, "case_inner.nii.gz")
    for index, (name, value) in enumerate([("a", 3), ("b", 7)]):
        outer = mask_of(tmp_path, f"case_outer_{name}.nii.gz")
        assert set(np.unique(outer)) == {0, value}
        np.testing.assert_array_equal(outer == value, (odds[index] >= limits[name].outer) | (mask == index + 1))
        np.testing.assert_array_equal(inner == value, (odds[index] >= limits[name].inner) & (mask == index + 1))
        assert 0 < (inner == value).sum() < (mask == index + 1).sum() < (outer == value).sum()
        np.testing.assert_allclose(
            read_volume(tmp_path / f"case_outer_{name}.nii.gz").geometry.matrix, record.original.matrix, atol=1e-5
        )
    for fold, logits in zip(FOLDS, members):
        expected = LABELS.to_values(restore(logits, record))
        np.testing.assert_array_equal(mask_of(tmp_path, f"case_fold_{fold}.nii.gz"), expected)


def test_outer_masks_of_two_structures_overlap(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3)]
    write(tmp_path, record, members, restore(members[0], record), dict.fromkeys("ab", thresholds(-3.0, 1.0)))
    both = (mask_of(tmp_path, "case_outer_a.nii.gz") > 0) & (mask_of(tmp_path, "case_outer_b.nii.gz") > 0)
    assert both.any()


@pytest.mark.parametrize(("outer", "inner"), [(9.0, -9.0), (2.0, 2.0), (-9.0, 9.0)])
def test_inner_lies_in_the_mask_and_the_mask_in_outer_whatever_the_thresholds(tmp_path, outer, inner):
    record = record_of()
    members = [smooth_logits(record, 3)]
    mask = restore(members[0], record)
    mask[:, :, : mask.shape[2] // 2] = 0  # as if postprocessing had removed half
    case = write(tmp_path, record, members, mask, dict.fromkeys("ab", thresholds(outer, inner)))
    found = mask_of(tmp_path, "case_inner.nii.gz")
    for index, structure in enumerate(case.structures):
        value = LABELS.values[index + 1]
        outer_mask = mask_of(tmp_path, f"case_outer_{structure.label}.nii.gz") == value
        assert not ((found == value) & (mask != index + 1)).any()
        assert not ((mask == index + 1) & ~outer_mask).any()
        voxel_ml = 4 * 1.5 * 1 / 1000
        assert structure.mask_ml == pytest.approx((mask == index + 1).sum() * voxel_ml)
        assert structure.outer_ml == pytest.approx(outer_mask.sum() * voxel_ml)
        assert structure.inner_ml == pytest.approx((found == value).sum() * voxel_ml)


def test_regions_have_a_file_each_in_the_value_that_they_are_painted_as(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 2, seed) for seed in range(3)]
    mean = torch.stack(members).mean(0)
    mask = restore(mean, record, NESTED.painted_classes)
    limits = {"whole": thresholds(-2.0, 1.5), "core": thresholds(-1.0, 0.7)}
    case = write(tmp_path, record, members, mask, limits, NESTED)
    assert case.files == (
        "case_outer_whole.nii.gz",
        "case_inner_whole.nii.gz",
        "case_outer_core.nii.gz",
        "case_inner_core.nii.gz",
    )
    odds = log_odds_on_file(members, record, NESTED)
    for index, (name, value, classes) in enumerate([("whole", 1, (1, 2)), ("core", 2, (2,))]):
        in_mask = np.isin(mask, classes)
        expected = (odds[index] >= limits[name].outer) | in_mask
        np.testing.assert_array_equal(mask_of(tmp_path, f"case_outer_{name}.nii.gz") == value, expected)
        expected = (odds[index] >= limits[name].inner) & in_mask
        np.testing.assert_array_equal(mask_of(tmp_path, f"case_inner_{name}.nii.gz") == value, expected)


def test_a_model_of_one_structure_has_one_outer_mask(tmp_path):
    one = LabelSet(names=("background", "liver"), values=(0, 5))
    record = record_of()
    members = [smooth_logits(record, 2)]
    case = write(tmp_path, record, members, restore(members[0], record), {"liver": thresholds(-2.0, 1.0)}, one)
    assert case.files == ("case_outer.nii.gz", "case_inner.nii.gz")
    assert set(np.unique(mask_of(tmp_path, "case_outer.nii.gz"))) == {0, 5}


def test_where_there_is_no_threshold_there_is_no_mask_and_the_note_is_kept(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3)]
    limits = {
        "a": thresholds(None, None).model_copy(update={"note": "only 3 patients have it"}),
        "b": thresholds(-1.0, None),
    }
    case = write(tmp_path, record, members, restore(members[0], record), limits)
    assert case.files == ("case_outer_b.nii.gz",)
    assert case.structures[0].outer_ml is None
    assert case.structures[0].note == "only 3 patients have it"


def test_of_wanted_structures_alone_other_classes_are_in_no_file(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3, seed) for seed in range(3)]
    mask = restore(torch.stack(members).mean(0), record)
    case = write(tmp_path, record, members, mask, {"b": thresholds(-1.0, 1.0)}, folds=FOLDS)
    assert "case_outer_a.nii.gz" not in case.files
    for name in ("case_inner.nii.gz", "case_fold_1.nii.gz"):
        assert set(np.unique(mask_of(tmp_path, name))) == {0, 7}


def test_masks_of_folds_are_postprocessed_as_the_mask_is(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3, seed) for seed in range(3)]
    steps = Postprocessing(
        steps=(KeepLargest(name="a", classes=(1,)),), decoding=(DecodedStructure(name="b", temperature=1.5),)
    )
    mask = restore(torch.stack(members).mean(0), record)
    limits = dict.fromkeys("ab", thresholds(-1.0, 1.0))
    write(tmp_path, record, members, mask, limits, folds=FOLDS, postprocessing=steps)
    expected = apply(restore(members[2], record, temperatures={2: 1.5}), steps)
    assert (expected != restore(members[2], record)).any()  # else this proves nothing
    np.testing.assert_array_equal(mask_of(tmp_path, "case_fold_4.nii.gz"), LABELS.to_values(expected))


def test_values_and_ending_are_those_of_the_masks(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3)]
    other = LABELS.model_copy(update={"values": (0, 51, 52)})
    mask = restore(members[0], record)
    limits = dict.fromkeys("ab", thresholds(-1.0, 1.0))
    case = write(tmp_path, record, members, mask, limits, written=other, ending=".nrrd")
    assert case.files[-1] == "case_inner.nrrd"
    assert set(np.unique(mask_of(tmp_path, "case_inner.nrrd"))) == {0, 51, 52}


def test_of_an_odd_image_the_guarantee_is_withdrawn_in_words(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3)]
    mask = restore(members[0], record)
    verdict = GateVerdict(score=2.0, percentile=100, verdict="odd", reasons=("noisier than any training image",))
    limits = dict.fromkeys("ab", thresholds(-1.0, 1.0))
    case = write(tmp_path, record, members, mask, limits, guarantee=guarantee_for(verdict))
    assert case.guarantee == "withdrawn: the image is odd, unlike the training images (noisier than any training image)"
    assert guarantee_for(verdict.model_copy(update={"verdict": "usual"})) == "exchangeable"
    assert case.promise.startswith("on average over images like the training images the outer mask misses at most 5%")
    assert "not in every patient" in case.promise


def test_slices_that_are_missing_are_refused(tmp_path):
    record = record_of()
    members = [smooth_logits(record, 3)]
    sink = PlausibleSink(tmp_path / "case.json", record, LABELS, dict.fromkeys("ab", thresholds(-1.0, 1.0)))
    sink.add(next(slabs_by_member(members, with_heads=True)))
    with pytest.raises(ValueError, match="slabs complete"):
        sink.finish(restore(members[0], record))

"""Maps of doubt: entropies a human can compute, folds that disagree, and the image's own grid."""

import csv

import nibabel
import numpy as np
import pytest
import torch

from builders.probabilities import LABELS, NESTED, record_of, smooth_logits
from segfw.grid.preprocess import place_back
from segfw.grid.restore import restore
from segfw.grid.slabs import Heads, Slab, one_slab
from segfw.images.formats import read_volume
from segfw.images.volume import AS_STORED
from segfw.inference.uncertainty import CaseDoubt, UncertaintySink, entropy, on_file_grid, write_table


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()[:, None, None, None]


def test_entropy_of_a_softmax_is_relative_to_that_of_equal_classes():
    assert entropy(logits_of(0.25, 0.25, 0.25, 0.25), is_regions=False).item() == pytest.approx(1)
    assert entropy(logits_of(0.5, 0.5, 1e-9, 1e-9), is_regions=False).item() == pytest.approx(0.5)  # log 2 / log 4
    assert entropy(logits_of(1.0, 1e-12, 1e-12, 1e-12), is_regions=False).item() == pytest.approx(0, abs=1e-6)


def test_entropy_of_regions_is_that_of_the_most_doubtful_one():
    logits = torch.tensor([20.0, 0.0, -20.0])[:, None, None, None]
    assert entropy(logits, is_regions=True).item() == pytest.approx(1)
    # 0.25: 0.25 * 2 bit + 0.75 * 0.415 bit
    logits = torch.tensor([20.0, -np.log(3)])[:, None, None, None]
    assert entropy(logits, is_regions=True).item() == pytest.approx(0.5 + 0.75 * np.log2(4 / 3), abs=1e-5)


def by_member(members: list[torch.Tensor]) -> Slab:
    """One slab of several folds' logits, told apart by heads that pick them."""
    classes = len(members[0])
    weights = [torch.zeros(classes, classes * len(members)) for _ in members]
    for number, weight in enumerate(weights):
        weight[:, number * classes : (number + 1) * classes] = torch.eye(classes)
    heads = Heads(weights_ka=weights, biases_k=[torch.zeros(classes)] * len(members))
    return Slab(first=0, start=0, stop=members[0].shape[1], channels_azyx=torch.cat(members), heads=heads)


def write(path, record, slab, labels=LABELS) -> CaseDoubt:
    with UncertaintySink(path, record, labels) as sink:
        sink.add(slab)
        sink.finish()
    return CaseDoubt.load(path)


def test_disagreement_is_the_share_of_folds_that_differ_from_their_mean(tmp_path):
    record = record_of(spacing_mm=(4.0, 1.5, 1.0))  # the image's own: nothing is interpolated
    sure, other = torch.zeros(2, 3, *record.shape)
    sure[1], other[2] = 9, 5  # the mean is class 1 where one of three says 2
    other[:, : record.shape[0] // 2] = sure[:, : record.shape[0] // 2]
    doubt = write(tmp_path / "case.json", record, by_member([sure, sure, other]))
    found = read_volume(tmp_path / "case_disagreement.nii.gz").array[0]
    inside = restore(sure, record) == 1
    assert inside.sum() == doubt.foreground_voxels == np.prod(record.shape)
    half = record.shape[0] - record.shape[0] // 2
    assert np.unique(found[inside].round(2)).tolist() == [0, pytest.approx(0.33, abs=0.01)]
    assert (found[inside] > 0).sum() == half * record.shape[1] * record.shape[2]
    assert doubt.disagreement == pytest.approx(half / record.shape[0] / 3)
    assert found[~inside].max() == 0


def test_maps_lie_on_the_grid_of_the_image(tmp_path):
    record = record_of(order=(2, 0, 1))
    logits = smooth_logits(record, 3)
    write(tmp_path / "case.json", record, one_slab(logits))
    assert not (tmp_path / "case_disagreement.nii.gz").exists()  # a single network has nothing to disagree with
    stored = nibabel.load(tmp_path / "case_entropy.nii.gz")
    volume = read_volume(tmp_path / "case_entropy.nii.gz")
    assert stored.get_data_dtype() == np.uint8
    assert volume.geometry.shape == record.original.shape
    np.testing.assert_allclose(volume.geometry.matrix, record.original.matrix, atol=1e-5)
    classes = restore(torch.cat((torch.zeros(1, *record.shape), torch.ones(1, *record.shape))), record)
    assert volume.array[0][classes == 0].max() == 0  # outside the crop
    assert 0.5 < volume.array.max() <= 1


def test_a_linear_map_stays_linear_on_the_file_grid():
    """13 voxels of 1.5 mm along y are 6 on the network's grid: where these rise by 10, those do by 60 / 13."""
    record = record_of(spacing_mm=(4.0, 3.25, 1.0))
    assert (record.cropped_shape[1], record.shape[1]) == (13, 6)
    ramp = (torch.arange(6) * 10).byte()[:, None].expand(record.shape)
    found = on_file_grid(ramp, record) * 255
    assert found.shape == record.original.shape == (13, 8, 15)  # stored as x, z, y
    line = found[5, 3, 2:]  # behind two empty columns
    np.testing.assert_allclose(np.abs(np.diff(line))[2:-2], 60 / 13, atol=1e-4)
    assert (line.min(), line.max()) == (0, 50)
    assert not found[:, :, :2].any()


def test_maps_of_images_that_are_taken_as_stored_are_not_turned():
    """Voxels of 1 x 4 x 1.5 mm as they are stored, which the network takes as 4 x 1 x 1.5 mm."""
    record = record_of((4.0, 1.0, 1.5), order=(1, 0, 2), orientation=AS_STORED)
    assert record.shape == record.cropped_shape  # nothing is interpolated
    values = np.random.default_rng(1).integers(0, 256, record.shape, dtype=np.uint8)
    found = on_file_grid(torch.from_numpy(values), record)
    np.testing.assert_allclose(found * 255, place_back(values, record), atol=1e-4)


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
def test_slabs_give_what_the_whole_gives(labels, tmp_path):
    record = record_of()
    logits = smooth_logits(record, labels.outputs, scale=6.0)
    whole = write(tmp_path / "whole.json", record, one_slab(logits), labels)
    with UncertaintySink(tmp_path / "parts.json", record, labels) as sink:
        for start in range(0, record.shape[0], 2):
            first = max(0, start - 1)
            stop = min(start + 2, record.shape[0])
            sink.add(Slab(first=first, start=start, stop=stop, channels_azyx=logits[:, first:stop]))
        assert not list(tmp_path.glob("parts*"))
        sink.finish()
    parts = CaseDoubt.load(tmp_path / "parts.json")
    assert parts.entropy == pytest.approx(whole.entropy, rel=1e-9)
    assert 0 < whole.entropy < 1
    maps = [read_volume(tmp_path / f"{name}_entropy.nii.gz").array for name in ("whole", "parts")]
    np.testing.assert_array_equal(*maps)


def test_cases_are_sorted_by_doubt_and_empty_ones_come_first(tmp_path):
    for case, voxels, doubt in (("calm", 9, 0.1), ("empty", 0, None), ("doubtful", 7, 0.4)):
        values = {"entropy": doubt, "disagreement": doubt}
        CaseDoubt(case=case, foreground_voxels=voxels, **values).save(tmp_path / "uncertainty" / f"{case}.json")
    rows = list(csv.DictReader(write_table(tmp_path).open()))
    assert [row["case"] for row in rows] == ["empty", "doubtful", "calm"]
    assert [row["entropy"] for row in rows] == ["", "0.4", "0.1"]


def test_a_case_without_foreground_has_no_mean(tmp_path):
    record = record_of()
    logits = torch.zeros(3, *record.shape)
    logits[0] = 9
    doubt = write(tmp_path / "case.json", record, one_slab(logits))
    assert (doubt.foreground_voxels, doubt.entropy, doubt.disagreement) == (0, None, None)

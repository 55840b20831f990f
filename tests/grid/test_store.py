"""Preprocessed cases on disk: what is stored comes back, is not done twice, and is never half a case."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from builders.data import blocks_case, write_cases, write_nifti
from builders.training import LABELS
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.grid import store
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.grid.store import (
    FOREGROUND_VOXELS_PER_CLASS,
    StoredCase,
    foreground_voxels,
    load_stored,
    open_case,
    preprocess_dataset,
    stored_bytes,
)

IDS = ("c0", "c1", "c2")
FULL = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="none"),))
COARSE = FULL.model_copy(update={"spacing_mm": (4.0, 3.0, 3.0)})


def run(cases: tuple[Case, ...], folder: Path, labels: LabelSet = LABELS, **configurations: Preprocessing) -> list:
    sizes = {case.id: 20_000 for case in cases}
    return preprocess_dataset(cases, labels, configurations or {"full": FULL}, folder, case_bytes=sizes, workers=1)


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """Ids of the cases whose files were read, in order."""
    read = []
    original = store.read_case

    def watched(case: Case):
        read.append(case.id)
        return original(case)

    monkeypatch.setattr(store, "read_case", watched)
    return read


def test_what_is_stored_comes_back(tmp_path):
    cases = write_cases(tmp_path, IDS[:2])
    assert run(cases, tmp_path / "out") == []
    image, mask = (array.transpose(2, 1, 0) for array in blocks_case(1))
    for in_memory in (False, True):
        arrays = open_case(tmp_path / "out" / "full", "c1", in_memory=in_memory)
        assert arrays.image.shape == (1, 10, 18, 20)
        assert arrays.image.dtype == np.float16
        np.testing.assert_allclose(arrays.image[:][0], image, rtol=2**-11)
        np.testing.assert_array_equal(arrays.classes[:], np.select([mask == 3, mask == 7], [1, 2]))
        np.testing.assert_array_equal(arrays.image[0, 2:4, 3:5, 6:9], arrays.image[:][0, 2:4, 3:5, 6:9])
        assert list(arrays.foreground) == [1, 2]
        for index, value in ((1, 3), (2, 7)):
            np.testing.assert_array_equal(arrays.foreground[index], np.flatnonzero(mask == value))
    stored = load_stored(tmp_path / "out" / "full", "c1")
    assert (stored.preprocessing, stored.record.shape) == (FULL, (10, 18, 20))
    assert stored.foreground_counts == {"1": 144, "2": 96}


def test_the_size_in_memory_is_known_without_reading(tmp_path):
    cases = write_cases(tmp_path, IDS[:2])
    for path, array in zip((cases[1].images[0], cases[1].label), blocks_case(1, (70, 66, 34))):  # more than one chunk
        write_nifti(path, array)
    run(cases, tmp_path / "out")
    voxels = 10 * 18 * 20, 34 * 66 * 70
    assert list(stored_bytes(tmp_path / "out" / "full", ["c0", "c1"])) == [count * (2 + 1) for count in voxels]


def test_values_beyond_half_precision_are_kept_in_single(tmp_path):
    image, mask = blocks_case(0)
    large = image.astype(np.float32) * 1000
    write_nifti(tmp_path / "c.nii.gz", large)
    write_nifti(tmp_path / "m.nii.gz", mask)
    run((Case(id="c", images=(tmp_path / "c.nii.gz",), label=tmp_path / "m.nii.gz"),), tmp_path / "out")
    arrays = open_case(tmp_path / "out" / "full", "c")
    assert arrays.image.dtype == np.float32
    np.testing.assert_array_equal(arrays.image[:][0], large.transpose(2, 1, 0))


def test_a_case_without_foreground_can_be_stored(tmp_path):
    (case,) = write_cases(tmp_path, IDS[:1])
    write_nifti(case.label, np.zeros((20, 18, 10), np.uint8))
    assert run((case,), tmp_path / "out") == []
    arrays = open_case(tmp_path / "out" / "full", "c0")
    assert arrays.foreground == {}
    assert not arrays.classes[:].any()


def test_all_configurations_share_one_reading_and_nothing_is_done_twice(tmp_path, decodings):
    cases = write_cases(tmp_path, IDS[:2])
    run(cases, tmp_path / "out", full=FULL, coarse=COARSE)
    assert decodings == ["c0", "c1"]
    assert open_case(tmp_path / "out" / "coarse", "c0").image.shape == (1, 10, 9, 7)
    run(cases, tmp_path / "out", full=FULL, coarse=COARSE)
    assert decodings == ["c0", "c1"]


def test_a_changed_file_rule_or_label_is_done_again(tmp_path, decodings):
    cases = write_cases(tmp_path, IDS[:2])
    run(cases, tmp_path / "out")
    os.utime(cases[1].label, ns=(1, 1))
    run(cases, tmp_path / "out")
    assert decodings == ["c0", "c1", "c1"]
    run(cases, tmp_path / "out", full=COARSE)
    assert decodings[3:] == ["c0", "c1"]
    swapped = LabelSet(names=("background", "dark", "bright"), values=(0, 7, 3))
    run(cases, tmp_path / "out", swapped, full=COARSE)
    assert decodings[5:] == ["c0", "c1"]
    classes = open_case(tmp_path / "out" / "full", "c0").classes[:]
    assert (classes == 2).sum() > (classes == 1).sum()  # the bright box is the larger one


def test_an_interrupted_rewrite_does_not_pass_for_a_whole_case(tmp_path, monkeypatch, decodings):
    (case,) = write_cases(tmp_path, IDS[:1])
    run((case,), tmp_path / "out")
    original = store.save_array

    def interrupted(path: Path, array: np.ndarray) -> None:
        if "classes" in path.name:
            raise KeyboardInterrupt
        original(path, array)

    monkeypatch.setattr(store, "save_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run((case,), tmp_path / "out", full=COARSE)
    monkeypatch.setattr(store, "save_array", original)
    run((case,), tmp_path / "out")  # back to the first plan, whose image is no longer there
    assert decodings == ["c0", "c0", "c0"]
    assert open_case(tmp_path / "out" / "full", "c0").image.shape == (1, 10, 18, 20)


def test_a_failing_case_is_reported_and_the_others_are_stored(tmp_path):
    cases = write_cases(tmp_path, IDS)
    cases[1].images[0].write_text("broken")
    (failure,) = run(cases, tmp_path / "out")
    assert failure.item.id == "c1"
    assert "c1.nii.gz: cannot be read" in str(failure.error)
    assert sorted(path.stem for path in (tmp_path / "out" / "full").glob("*.json")) == ["c0", "c2"]


def test_a_case_that_is_not_there_or_of_another_version_is_named(tmp_path, decodings):
    cases = write_cases(tmp_path, IDS[:1])
    with pytest.raises(UserError, match="case c0 is not preprocessed; run segfw plan-and-preprocess first"):
        load_stored(tmp_path / "out" / "full", "c0")
    run(cases, tmp_path / "out")
    path = tmp_path / "out" / "full" / "c0.json"
    path.write_text(path.read_text().replace('"label_values"', '"former_name"'))
    with pytest.raises(UserError, match=r"c0\.json: field '(label_values|former_name)'"):
        StoredCase.load(path)
    run(cases, tmp_path / "out")
    assert decodings == ["c0", "c0"]


def test_the_mask_is_oriented_like_its_image_even_where_rounding_would_decide_otherwise(tmp_path):
    image, mask = blocks_case(0)
    half = np.sqrt(0.5)
    for name, array, off in (("image", image, 1e-6), ("mask", mask, -1e-6)):
        affine = np.eye(4)
        affine[:2, :2] = [[half + off, -half], [half, half + off]]  # turned by 45 degrees: x or y?
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    case = Case(id="c", images=(tmp_path / "image.nii.gz",), label=tmp_path / "mask.nii.gz")
    assert run((case,), tmp_path / "out", full=FULL.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)})) == []
    arrays = open_case(tmp_path / "out" / "full", "c")
    bright = arrays.image[:][0][arrays.classes[:] == 1]
    assert bright.min() > 120  # 160 with a deviation of 8; the surroundings have 100


def test_a_mask_stored_in_another_order_than_its_image_gives_the_same_case(tmp_path):
    (case,) = write_cases(tmp_path, IDS[:1])
    turned = tmp_path / "turned.nii.gz"
    mask = nibabel.load(case.label).as_reoriented([[1, -1], [2, 1], [0, -1]])
    assert mask.shape != nibabel.load(case.label).shape
    nibabel.save(mask, turned)
    assert run((case,), tmp_path / "one") == []
    assert run((case.model_copy(update={"label": turned}),), tmp_path / "two") == []
    first, second = (open_case(tmp_path / name / "full", case.id) for name in ("one", "two"))
    np.testing.assert_array_equal(second.classes[:], first.classes[:])
    assert len(np.unique(first.classes[:])) == 3


def test_foreground_voxels_are_a_seeded_sample_of_each_class():
    classes = np.zeros((20, 30, 40), np.uint8)
    classes[2:, :, :] = 5
    classes[0, 0, :7] = 2
    chosen = foreground_voxels(classes)
    assert list(chosen) == [2, 5]
    assert chosen[2].tolist() == list(range(7))
    assert len(np.unique(chosen[5])) == len(chosen[5]) == FOREGROUND_VOXELS_PER_CLASS
    assert (classes.ravel()[chosen[5]] == 5).all()
    assert chosen[5].dtype == np.uint32
    np.testing.assert_array_equal(foreground_voxels(classes)[5], chosen[5])
    spread = np.unravel_index(chosen[5], classes.shape)[0]
    assert (spread.min(), spread.max()) == (2, 19)

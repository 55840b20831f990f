"""Masks of 3D Slicer in any layout: what they call their segments are the labels, in whatever layers these lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.dicom_masks import Grid, write_seg_nrrd, write_series
from segfw.base.errors import UserError
from segfw.dataset.cases import read_label
from segfw.dataset.layouts import find_dataset
from segfw.images.formats import read_volume
from segfw.planning.fingerprint import DataProblems, scan_dataset

SHAPE = Grid().shape
IMAGE = np.random.default_rng(4).normal(0, 100, SHAPE)
FIRST = np.zeros(SHAPE, bool)
FIRST[1:4, 3:6, 2:5] = True
SECOND = np.zeros(SHAPE, bool)
SECOND[2:5, 7:10, 6:9] = True


def raw_of(folder: Path, layers: np.ndarray, *names: dict[str, tuple[int, int]]) -> Path:
    for number, segments in enumerate(names):
        grid = Grid(series=f"1.2.{number}")
        write_series(folder / "images" / f"p{number}", IMAGE + number * IMAGE[::-1], grid)
        (folder / "labels").mkdir(exist_ok=True)
        write_seg_nrrd(folder / "labels" / f"p{number}.seg.nrrd", layers, segments)
    return folder


def test_names_are_labels_whatever_their_numbers(tmp_path):
    two = np.stack([FIRST, SECOND])
    raw = raw_of(tmp_path, two, {"Liver": (1, 0), "Cyst": (1, 1)}, {"cyst": (1, 1), "liver": (1, 0)})
    found = find_dataset(raw)
    assert found.labels.names == ("background", "Liver", "Cyst")
    manifest, _ = scan_dataset(found)
    assert [case.id for case in manifest.cases] == ["p0", "p1"]
    for case in manifest.cases:
        mask = read_label(case, read_volume(case.images[0]))
        np.testing.assert_array_equal(mask.array[0], FIRST * 1 + SECOND * 2)


def test_a_dataset_json_says_what_names_mean(tmp_path):
    raw = raw_of(tmp_path, np.stack([FIRST, SECOND]), {"Leber": (1, 0), "Liver": (1, 1)})
    (raw / "dataset.json").write_text('{"labels": {"background": 0, "liver": 5}, "channel_names": {"0": "CT"}}')
    assert "Leber (in 1 case) is no label; write structures.csv" in find_dataset(raw).findings[0].full_sentence
    (raw / "structures.csv").write_text("structure,label\nLeber,\nLiver,liver\n")
    found = find_dataset(raw)
    assert found.findings == ()
    case = found.cases[0]
    np.testing.assert_array_equal(read_label(case, read_volume(case.images[0])).array[0], SECOND * 5)


def test_segments_that_overlap_need_regions(tmp_path):
    raw = raw_of(tmp_path, np.stack([FIRST | SECOND, SECOND]), {"whole": (1, 0), "core": (1, 1)})
    with pytest.raises(DataProblems, match="whole and core overlap in 27 voxels, and a voxel has one label"):
        scan_dataset(find_dataset(raw))
    labels = '{"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}'
    (raw / "dataset.json").write_text(labels)
    case = find_dataset(raw).cases[0]
    mask = read_label(case, read_volume(case.images[0]))
    np.testing.assert_array_equal(mask.array[0], FIRST * 1 + SECOND * 2)


def test_a_damaged_segmentation_is_told(tmp_path):
    raw = raw_of(tmp_path, FIRST[None], {"a": (1, 0)}, {"a": (1, 0)})
    file = raw / "labels" / "p1.seg.nrrd"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="p1: labels/p1.seg.nrrd: cannot be read"):
        scan_dataset(find_dataset(raw))

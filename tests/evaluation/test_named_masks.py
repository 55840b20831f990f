"""Masks of DICOM and of 3D Slicer are scored and measured like others, by the names of their structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.dicom_masks import Grid, contours_of, write_segmentation, write_series, write_structures
from segfw.base.errors import UserError
from segfw.dataset.labels import LabelSet
from segfw.evaluation.masks import read_pair
from segfw.images.formats import read_volume, write_labels
from segfw.measurements.measure_options import MeasureOptions
from segfw.verbs.evaluate import evaluate
from segfw.verbs.measure import measure

GRID = Grid()
RNG = np.random.default_rng(6)
IMAGE = RNG.normal(0, 100, GRID.shape)
CORD = np.zeros(GRID.shape, bool)
CORD[1:4, 3:6, 2:5] = True
LEFT = np.zeros(GRID.shape, bool)
LEFT[2:5, 7:10, 6:9] = True
WIDER = CORD.copy()
WIDER[1:4, 6] |= CORD[1:4, 5]
LABELS = LabelSet(names=("background", "spinal_cord", "parotid_gland_left"), values=(0, 4, 7))
EXPERT = CORD * 4 + LEFT * 7


@pytest.fixture
def masks(tmp_path) -> dict[str, Path]:
    """One case's masks in all formats; those that are predicted are a little wider. Numbers in files differ."""
    series = write_series(tmp_path / "images" / "p1", IMAGE)
    expert = tmp_path / "nifti" / "p1.nii.gz"
    expert.parent.mkdir()
    write_labels(expert, EXPERT, read_volume(series).geometry)
    wider = {"Parotid_L": LEFT, "Spinal Cord": WIDER}
    right = {"Parotid_L": LEFT, "PTV 60": CORD | LEFT, "SpinalCord": CORD}
    write_segmentation(tmp_path / "seg" / "p1.dcm", wider)
    write_segmentation(tmp_path / "expert_seg" / "p1_seg.dcm", right)
    write_structures(tmp_path / "rs" / "p1.dcm", {name: contours_of(mask) for name, mask in wider.items()})
    contours = {name: contours_of(mask) for name, mask in right.items()}
    write_structures(tmp_path / "expert_rs" / "p1" / "1", contours)  # in a folder of its own, without an ending
    return {path.name: path for path in tmp_path.iterdir()}


def dice() -> float:
    return 2 * CORD.sum() / (CORD.sum() + WIDER.sum())


@pytest.mark.parametrize("predicted", ["seg", "rs"])
@pytest.mark.parametrize("reference", ["nifti", "expert_seg", "expert_rs"])
@pytest.mark.parametrize("has_images", [True, False])
def test_every_format_is_scored_against_every_other(masks, predicted, reference, has_images):
    if not has_images and (predicted, reference) == ("rs", "expert_rs"):
        for folder in (masks["seg"], masks["nifti"], masks["expert_seg"]):
            folder.rename(folder.with_name(f"{folder.name}_"))
    images = masks["images"] if has_images else None
    scores = evaluate(masks[predicted], masks[reference], labels=LABELS, images=images, surface=False)
    assert scores.cases["p1"]["spinal_cord"].dice == pytest.approx(dice())
    assert scores.cases["p1"]["parotid_gland_left"].dice == 1
    left_out = [note for note in scores.notes if "PTV 60 (in 1 mask)" in note]
    assert bool(left_out) == (reference != "nifti")


def test_masks_that_say_no_grid_need_their_series(masks):
    import shutil

    shutil.rmtree(masks["images"])
    with pytest.raises(UserError, match="has no grid of its own, and the series that it was drawn on is not beside it"):
        evaluate(masks["rs"], masks["expert_rs"], labels=LABELS, surface=False)


def test_labels_come_from_names_where_nothing_else_says_them(masks):
    scores = evaluate(masks["seg"], masks["seg"], surface=False)
    assert set(scores.cases["p1"]) == {"Parotid_L", "Spinal Cord"}
    assert scores.cases["p1"]["Parotid_L"].dice == 1


def test_overlaps_and_names_that_mean_nothing_are_told(masks, tmp_path):
    with pytest.raises(UserError, match="overlap in 27 voxels, and a voxel has one label"):
        evaluate(masks["expert_seg"], masks["expert_seg"], surface=False)
    other = LabelSet(names=("background", "liver"), values=(0, 1))
    with pytest.raises(UserError, match=r"none of its structures \(Parotid_L, Spinal Cord\) is one of the labels"):
        evaluate(masks["seg"], masks["nifti"], labels=other, surface=False)
    (tmp_path / "seg" / "structures.csv").write_text("structure,label\nSpinal Cord,liver\nParotid_L,\n")
    write_labels(masks["nifti"] / "p1.nii.gz", WIDER * 1, read_volume(masks["images"] / "p1").geometry)
    scores = evaluate(masks["seg"], masks["nifti"], labels=other, surface=False)
    assert scores.cases["p1"]["liver"].dice == 1


def test_two_segmentations_of_different_slices_lie_on_one_grid(tmp_path):
    place = tmp_path / "study" / "masks"  # beside no series
    first = write_segmentation(place / "a.dcm", {"x": CORD & (np.arange(5) < 3)[:, None, None]})
    second = write_segmentation(place / "b.dcm", {"x": LEFT})
    labels = LabelSet(names=("background", "x"), values=(0, 1))
    wanted, predicted, stored = read_pair(first, second, labels, ())
    assert stored.geometry.shape == (4, 12, 10)  # slices 2 to 5
    assert wanted.sum() == 18
    assert predicted.sum() == LEFT.sum()
    far = write_segmentation(place / "far" / "c.dcm", {"x": LEFT}, Grid(origin=(0, 0, 1e7)))
    with pytest.raises(UserError, match="lies far away from the other mask"):
        read_pair(first, far, labels, ())


@pytest.mark.parametrize("of", ["nifti", "seg", "rs"])
def test_every_format_is_measured(masks, tmp_path, of):
    (masks[of] / "labels.json").write_text(LABELS.model_dump_json())
    measures = measure(masks[of], tmp_path / "measures.csv", MeasureOptions(images=masks["images"]))
    rows = {row.structure: row for row in measures.cases["p1"].structures}
    assert set(rows) == {"spinal_cord", "parotid_gland_left"}
    voxels = int((CORD if of == "nifti" else WIDER).sum())
    assert rows["spinal_cord"].volume_ml == pytest.approx(voxels * 3 * 1.5 * 0.75 / 1000)

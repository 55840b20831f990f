"""Regions, the ignore label and label maps on their way from the file to the scores, counted by hand."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.data import blocks_case, touch_files, write_nifti
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet, Region, apply_map
from segfw.dataset.layouts import find_dataset
from segfw.dataset.verify import check_case
from segfw.evaluation.metrics import Scores
from segfw.evaluation.score import score_case
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.grid.resample import resample_classes
from segfw.grid.store import FOREGROUND_VOXELS_PER_CLASS, annotated_voxels, foreground_voxels, open_case
from segfw.grid.store import preprocess_dataset as preprocess
from segfw.images.formats import read_volume, write_labels
from segfw.images.geometry import Geometry
from segfw.images.values import CHUNK_VOXELS
from segfw.images.volume import Volume
from segfw.planning.fingerprint import scan_dataset
from segfw.planning.plan import Plan, target_of
from segfw.training.sampling import draw_sample, generator
from segfw.verbs.evaluate import evaluate
from segfw.verbs.info import info
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.run import run

REGIONS = (Region(name="whole", values=(3, 7), painted=3), Region(name="dark", values=(7,), painted=7))
LABELS = LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7), ignore=9, regions=REGIONS)
SPARSE = LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7), ignore=9)
HOW = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="none"),))


# Values to classes and back


@pytest.mark.parametrize("far", [7, 70_000, -70_000])  # looked up, or searched for where values are far apart
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_classes_and_values_with_an_ignore_label_and_a_map(far, chunk):
    labels = LabelSet(names=("background", "a", "b"), values=(0, 3, far), ignore=-2)
    mask = np.array([[0, 3, far, -2], [5, 3, 0, 0], [far, far, 5, -2]], np.int32)
    classes = labels.to_classes(mask, ((5, far), (3, 0), (0, 3)), chunk_voxels=chunk)  # 0 and 3 swapped
    assert classes.tolist() == [[1, 0, 2, 3], [2, 0, 1, 1], [2, 2, 2, 3]]
    assert labels.to_values(classes).tolist() == apply_map(mask, ((5, far), (3, 0), (0, 3))).tolist()
    turned = labels.to_classes(mask.T, ((5, 0),), chunk_voxels=chunk)
    assert turned.tolist() == labels.to_classes(mask, ((5, 0),), chunk_voxels=chunk).T.tolist()
    for wrong in (5, -3, far + 1):
        with pytest.raises(ValueError, match="mask holds values outside"):
            labels.to_classes(np.array([[0, 3], [0, 0], [0, wrong]]), chunk_voxels=chunk)


def test_a_mask_becomes_classes_in_little_more_memory_than_the_result():
    mask = np.random.default_rng(0).integers(0, 3, (40, 300, 400), dtype=np.uint8)
    tracemalloc.start()
    LabelSet(names=("background", "a", "b"), values=(0, 1, 2)).to_classes(mask)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < mask.nbytes + 40 * CHUNK_VOXELS < 16 * mask.nbytes


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int64, np.float32, bool])
def test_masks_of_every_kind_become_classes(kind):
    labels = LabelSet(names=("background", "a"), values=(0, 1))
    assert labels.to_classes(np.array([[0, 1, 1], [1, 0, 0]], kind)).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_a_map_leaves_the_mask_alone():
    mask = np.array([1, 2, 200], np.uint8)
    assert apply_map(mask, ()) is mask
    assert apply_map(mask, ((1, 2), (2, 300))).tolist() == [2, 300, 200]
    assert mask.tolist() == [1, 2, 200]


# Checks and figures of cases


def volume(array: np.ndarray) -> Volume:
    return Volume(array=array[None], geometry=Geometry.of(array.shape, np.diag([1.0, 2, 5, 1])))


def complaints(mask: np.ndarray, labels: LabelSet, label_map=()) -> list[str]:
    case = Case(id="c", images=(Path("c.nii"),), label=Path("m.nii"), label_map=label_map)
    image = volume(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    return [
        problem.full_sentence for problem in check_case(case, [image], volume(mask), channel_count=1, labels=labels)
    ]


def test_values_are_checked_after_the_map():
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0, 0] = 3, 9, 5, 0
    assert complaints(mask, SPARSE, ((5, 7),)) == []
    assert complaints(mask, SPARSE)[0].startswith("c: m.nii: holds the label value 5, which dataset.json does not list")
    assert complaints(mask, SPARSE, ((5, 6),))[0].startswith("c: m.nii: holds the label value 6")


def test_masks_without_annotated_foreground_are_warned_of():
    mask = np.full((2, 3, 4), 9, np.uint8)
    assert "no voxel of the mask is annotated (all have the ignore label)" in complaints(mask, SPARSE)[0]
    mask[0] = 0
    assert "warning: c: m.nii: the mask is empty" in complaints(mask, SPARSE)[0]


def test_statistics_leave_out_ignored_voxels_and_follow_the_map(tmp_path):
    image, mask = np.zeros((6, 5, 4), np.float32), np.zeros((6, 5, 4), np.uint8)
    image[1:5, 3, 2] = 10, 30, 1000, 500
    mask[1:5, 3, 2] = 3, 5, 9, 0
    write_nifti(tmp_path / "images" / "a.nii.gz", image)
    write_nifti(tmp_path / "labels" / "a.nii.gz", mask)
    (tmp_path / "label_maps.json").write_text('{"a": {"5": "dark"}}')
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "bright": 3, "dark": 7, "ignore": 9}}')
    scanned, fingerprint = scan_dataset(find_dataset(tmp_path))
    assert fingerprint.cases[0].label_voxels == {"0": 117, "3": 1, "7": 1, "9": 1}
    assert fingerprint.intensities[0].mean == 20
    assert (fingerprint.intensities[0].minimum, fingerprint.intensities[0].maximum) == (10, 30)
    assert scanned.cases[0].label_map == ((5, 7),)


# Lists of voxels, and where patches are cut


def test_voxels_are_listed_by_region_and_never_ignored_ones():
    classes = np.zeros((2, 3, 4), np.uint8)
    classes[1, 2] = 1, 2, 3, 1
    assert {index: voxels.tolist() for index, voxels in foreground_voxels(classes, ignored=3).items()} == {
        1: [20, 23],
        2: [21],
    }
    regions = foreground_voxels(classes, LABELS.region_classes, LABELS.ignored_class)
    assert {index: voxels.tolist() for index, voxels in regions.items()} == {1: [20, 21, 23], 2: [21]}
    classes[1, 2, 1] = 1
    assert list(foreground_voxels(classes, LABELS.region_classes, 3)) == [1]


def test_annotated_voxels_are_listed_only_where_others_are_not():
    classes = np.full((2, 3, 4), 3, np.uint8)
    assert annotated_voxels(classes, None) is None
    assert annotated_voxels(classes, 3).tolist() == []
    classes[0, 1, 2], classes[1, 2, 3] = 0, 1
    assert annotated_voxels(classes, 3).tolist() == [6, 23]
    assert annotated_voxels(np.zeros_like(classes), 3) is None
    large = np.zeros((7, 40, 50), np.uint8)
    large[:, :20] = 3
    chosen = annotated_voxels(large, 3)
    assert len(set(chosen.tolist())) == FOREGROUND_VOXELS_PER_CLASS
    assert not large.ravel()[chosen].any()
    assert set(np.unravel_index(chosen, large.shape)[0]) == set(range(7))


def test_a_free_patch_is_centred_on_an_annotated_voxel():
    shape, place = (10, 30, 20), (7, 21, 4)
    annotated = [np.array([np.ravel_multi_index(place, shape)], np.uint32)]
    for force, centre in ((False, place), (True, (5, 9, 11))):
        foreground = [{1: np.array([np.ravel_multi_index((5, 9, 11), shape)])}]
        sample = draw_sample(generator(0, 0, 1, 0), [shape], foreground, (2, 4, 6), force, annotated)
        assert sample.start == tuple(c - p // 2 for c, p in zip(centre, (2, 4, 6)))
    starts = {draw_sample(generator(0, 0, i, 0), [shape], [{}], (2, 4, 6), False, [None]).start for i in range(20)}
    assert len(starts) > 10
    nothing = draw_sample(generator(0, 0, 0, 0), [shape], [{}], (2, 4, 6), False, [np.zeros(0, np.uint32)])
    assert all(0 <= first <= size - patch for first, size, patch in zip(nothing.start, shape, (2, 4, 6)))


def test_preprocessed_cases_keep_lists_and_notice_other_rules(tmp_path):
    image, mask = blocks_case(0)
    mask[:, :, 9] = 9
    mask[0, 0, 0] = 13
    for name, array in (("image", image), ("mask", mask)):
        write_nifti(tmp_path / f"{name}.nii.gz", array)
    case = Case(id="c", images=(tmp_path / "image.nii.gz",), label=tmp_path / "mask.nii.gz", label_map=((13, 3),))

    def classes_of(case: Case, labels: LabelSet):
        assert preprocess((case,), labels, {"3d": HOW}, tmp_path, case_bytes={"c": 20_000}, workers=1) == []
        changed = (tmp_path / "3d" / "c.json").stat().st_mtime_ns
        return open_case(tmp_path / "3d", "c"), changed

    arrays, first = classes_of(case, LABELS)
    assert arrays.classes[0, 0, 0] == 1
    assert (arrays.classes[9] == 3).all()
    assert {index: len(voxels) for index, voxels in arrays.foreground.items()} == {1: 144 + 96 + 1, 2: 96}
    assert len(arrays.annotated) == 9 * 18 * 20
    assert classes_of(case, LABELS)[1] == first
    arrays, second = classes_of(case.model_copy(update={"label_map": ((13, 7),)}), LABELS)
    assert arrays.classes[0, 0, 0] == 2
    assert {index: len(voxels) for index, voxels in arrays.foreground.items()} == {1: 144 + 96 + 1, 2: 97}
    arrays, third = classes_of(case, SPARSE)
    assert {index: len(voxels) for index, voxels in arrays.foreground.items()} == {1: 145, 2: 96}
    plain = LabelSet(names=("background", "bright", "dark", "more"), values=(0, 3, 7, 9))
    arrays, fourth = classes_of(case, plain)
    assert list(arrays.foreground) == [1, 2, 3]
    assert arrays.annotated is None
    assert len({first, second, third, fourth}) == 4


def test_the_ignore_label_is_resampled_like_a_class():
    classes = torch.zeros(2, 3, 8, dtype=torch.uint8)
    classes[..., 4:] = 3
    assert resample_classes(classes, (2, 3, 4), None)[0, 0].tolist() == [0, 0, 3, 3]
    assert resample_classes(classes, (2, 3, 16), 0)[1, 2].tolist() == [0] * 8 + [3] * 8


# Scores


def files(tmp_path: Path, **masks: list[int]) -> list[Path]:
    """One row of voxels a file, along x of a 1 x 1 x n grid."""
    paths = []
    for name, row in masks.items():
        array = np.array(row, np.int32)[None, None]
        paths.append(tmp_path / name.replace("_", "/") / "a.nii.gz")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_labels(paths[-1], array, Geometry.of(array.shape, np.diag([5.0, 1, 2, 1])))
    return paths


def counts(scores) -> dict[str, tuple[int, int, int]]:
    return {name: (score.tp, score.fp, score.fn) for name, score in scores.items()}


def test_regions_and_ignored_voxels_are_counted_by_hand(tmp_path):
    reference, predicted = files(tmp_path, reference=[3, 3, 7, 7, 0, 0, 9, 9, 9], predicted=[3, 7, 7, 3, 3, 0, 3, 7, 0])
    assert counts(score_case(reference, predicted, LABELS)) == {"whole": (4, 1, 0), "dark": (1, 1, 1)}
    assert counts(score_case(reference, predicted, SPARSE)) == {"bright": (1, 2, 1), "dark": (1, 1, 1)}
    swapped = score_case(reference, predicted, SPARSE, ((3, 7), (7, 3)))
    assert counts(swapped) == {"bright": (1, 2, 1), "dark": (1, 1, 1)}
    assert counts(score_case(reference, predicted, SPARSE, ((9, 7),)))["dark"] == (2, 1, 3)


def test_evaluate_finds_regions_ignore_label_and_maps_by_itself(tmp_path):
    files(tmp_path, raw_labelsTr=[3, 13, 7, 0, 9], out=[3, 3, 7, 3, 7])
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "label_maps.json").write_text('{"a*": {"13": "dark"}, "other": {"14": 3}}')
    LABELS.save(out / "labels.json")
    scores = evaluate(out, raw / "labelsTr", output=out / "s.json", report=out / "r.html")
    assert counts(scores.cases["a"]) == {"whole": (3, 1, 0), "dark": (1, 0, 1)}
    assert scores.notes == LABELS.explanation
    assert "Voxels of value 9 are not annotated" in (out / "r.html").read_text()
    assert Scores.load(out / "s.json") == scores
    (out / "labels.json").unlink()
    (raw / "label_maps.json").write_text('{"a": {"13": 7, "9": 0}}')
    assert counts(evaluate(out, raw / "labelsTr").cases["a"]) == {"label_3": (1, 2, 0), "label_7": (1, 1, 1)}
    (raw / "label_maps.json").write_text('{"a": {"13": 7}, "*": {"13": 3}}')
    with pytest.raises(UserError, match=r"label maps contradict each other: '\*' maps 13 to 3, another pattern to 7"):
        evaluate(out, raw / "labelsTr")


# From the folder to the scores


def make_raw(raw: Path, labels: dict, order: list[int] | None = None) -> Path:
    """Five cases of blocks whose last slices are ignored; two come from a site with other values."""
    description = {"channel_names": {"0": "CT"}, "labels": labels} | ({"regions_class_order": order} if order else {})
    touch_files(raw, {"imagesTr": [], "labelsTr": []}, description)
    for number, name in enumerate(("a_0", "a_1", "a_2", "site_3", "site_4")):
        image, mask = blocks_case(number)
        mask[:, :, 8:] = 9
        if name.startswith("site"):
            mask = apply_map(mask, ((3, 7), (7, 13))).astype(np.uint8)
        write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", image)
        write_nifti(raw / "labelsTr" / f"{name}.nii.gz", mask)
    (raw / "label_maps.json").write_text('{"site_*": {"7": 3, "13": "dark"}}')
    split = {"train": ["a_0", "a_1", "site_3"], "val": ["a_2", "site_4"]}
    (raw / "splits_final.json").write_text(json.dumps([split]))
    return raw


@pytest.mark.parametrize(
    "labels, order, names",
    [
        ({"background": 0, "whole": [3, 7], "dark": 7, "ignore": 9}, [3, 7], ["whole", "dark"]),
        ({"background": 0, "bright": 3, "dark": 7, "ignore": 9}, None, ["bright", "dark"]),
    ],
)
def test_a_whole_run(tmp_path, labels, order, names):
    raw, work = make_raw(tmp_path / "raw", labels, order), tmp_path / "work"
    options = {"configurations": ("3d_fullres",), "epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    scores = run(raw, work, mirroring=False, **options)["3d_fullres"]["0"]
    plan = Plan.load(work / "plan.json")
    assert plan.configurations["3d_fullres"].network.classes == (2 if order else 3)
    assert target_of(plan.labels) == (((1, 2), (2,)) if order else (), 3)
    for case_id, number in (("a_2", 2), ("site_4", 4)):
        _, mask = blocks_case(number)
        bright, dark = ((mask[:, :, :8] == value).sum() for value in (3, 7))
        voxels = {"bright": bright, "dark": dark, "whole": bright + dark}
        found = {name: score.tp + score.fn for name, score in scores.cases[case_id].items()}
        assert found == {name: voxels[name] for name in names}
    masks = work / "runs" / "3d_fullres" / "fold_0" / "validation"
    again = evaluate(masks, only(raw, "site_4", tmp_path / "only"))
    assert again.cases == {"site_4": scores.cases["site_4"]}
    predict(work, raw / "imagesTr" / "a_2_0000.nii.gz", tmp_path / "masks", device="cpu")
    mask = read_volume(tmp_path / "masks" / "a_2.nii.gz").array
    np.testing.assert_array_equal(mask, read_volume(masks / "a_2.nii.gz").array)
    assert set(np.unique(mask)) <= {0, 3, 7}
    assert ("Regions, which may overlap" in info(work).text()) == bool(order)
    assert "Voxels of value 9 are not annotated" in info(work).text()


def only(raw: Path, case: str, target: Path) -> Path:
    """A RAW folder with one reference mask of another."""
    (target / "labelsTr").mkdir(parents=True)
    for name in ("dataset.json", "label_maps.json", f"labelsTr/{case}.nii.gz"):
        (target / name).write_bytes((raw / name).read_bytes())
    return target / "labelsTr"


@pytest.mark.real_data
def test_scribbles_of_hearts_are_planned_and_preprocessed(real_data, tmp_path):
    source, raw = real_data / "cardiac_cine", tmp_path / "raw"
    labels = {"background": 0, "RV": 1, "myocardium": 2, "LV": 3, "ignore": 4}
    touch_files(raw, {"images": [], "labels": []}, {"labels": labels, "channel_names": {"0": "MR"}})
    names = [path.name for path in sorted((source / "scribbles").iterdir())[:4]]
    for name in names:
        (raw / "images" / name).write_bytes((source / "images" / name).read_bytes())
        (raw / "labels" / name).write_bytes((source / "scribbles" / name).read_bytes())
    plan = plan_and_preprocess(raw, tmp_path / "work", configurations=("2d",))
    assert plan.configurations["2d"].network.classes == 4
    assert plan.labels.ignore == 4
    for name in names:
        arrays = open_case(tmp_path / "work" / "preprocessed" / "2d", name.removesuffix(".nii.gz"))
        assert sorted(arrays.foreground) == [1, 2, 3]
        flat = arrays.classes[:].ravel()
        assert (flat == 4).mean() > 0.8
        assert set(np.unique(flat[arrays.annotated])) == {0, 1, 2, 3}


def test_structures_are_drawn_in_their_own_colour_and_regions_in_that_of_their_label():
    labels = LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7))
    assert labels.drawn_classes == {"bright": 1, "dark": 2}
    nested = LabelSet(names=("background", "edge", "core"), values=(0, 3, 7), regions=REGIONS)
    assert nested.drawn_classes == {"whole": 1, "dark": 2}

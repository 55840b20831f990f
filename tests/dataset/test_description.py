"""Regions, the ignore label and label maps: read as they are described, and every mistake said in words."""

import json
from pathlib import Path

import pytest

from builders.data import touch_files
from segfw.base.records import UserError
from segfw.dataset.cases import FoundDataset
from segfw.dataset.dataset_json import read_labels
from segfw.dataset.labels import LabelSet, Region
from segfw.dataset.layouts import find_dataset

DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "tumour": 1, "liver": 2, "ignore": 9},
}


NESTED = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "active": 4, "ignore": 9}


def read_regions(tmp_path: Path, labels: object, order: object = None):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": labels} | ({} if order is None else {"regions_class_order": order})))
    return read_labels(path)


@pytest.mark.parametrize(
    "labels, order, lost",
    [
        # Where et is found, wt and tc are too: wt comes last and paints 4, which neither et nor tc hold.
        ({"et": 1, "tc": [1, 2, 3], "wt": [1, 2, 3, 4]}, [1, 2, 4], {1: ("et", "tc"), 2: ("tc",), 3: ("tc",)}),
        ({"wt": [1, 2, 3, 4], "tc": [1, 2, 3], "et": 1}, [4, 2, 1], {}),
        # The order is right, but tc is painted as 1, which et holds: et is invented in it.
        ({"wt": [1, 2, 3], "tc": [1, 2], "et": 1}, [3, 1, 1], {2: ("et",)}),
        # Two that overlap: what only b holds is painted as what a holds too.
        ({"a": [1, 2], "b": [2, 3]}, [1, 2], {3: ("a",)}),
        ({"a": [1], "b": [2, 3]}, [1, 3], {}),
    ],
)
def test_regions_that_masks_cannot_hold_are_named(tmp_path, labels, order, lost):
    found = read_regions(tmp_path, {"background": 0} | labels, order)
    name_of = dict(zip(found.values, found.names))
    assert found.painted_over == {name_of[value]: regions for value, regions in lost.items()}
    for value in {*found.values} - {0}:  # by painting it
        painted = 0
        for region in found.regions:
            if value in region.values:
                painted = region.painted
        wrong = {region.name for region in found.regions if (painted in region.values) != (value in region.values)}
        assert wrong == set(found.painted_over.get(name_of[value], ()))
    assert bool(found.painting_problem) == bool(lost) == any("Warning" in line for line in found.explanation)
    assert all(name in found.painting_problem for names in lost.values() for name in names)


def test_check_and_plan_refuse_regions_that_masks_cannot_hold(tmp_path):
    folders = {"imagesTr": ["a_0000", "b_0000"], "labelsTr": ["a", "b"]}
    for name, labels, order, wanted in (
        ("small", {"dark": 2, "whole": [1, 2]}, [2, 1], ["region-order"]),
        ("large", {"whole": [1, 2], "dark": 2}, [1, 2], []),
    ):
        description = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0} | labels,
            "regions_class_order": order,
        }
        raw = touch_files(tmp_path / name, folders, description)
        errors = [finding for finding in find_dataset(raw).findings if finding.severity == "error"]
        assert [finding.kind for finding in errors] == wanted
        if errors:
            assert "later ones hide dark (where the mask is dark)" in errors[0].what
            assert "from large to small" in errors[0].remedy


def test_regions_and_an_ignore_label(tmp_path):
    found = read_regions(tmp_path, NESTED, [1, 2, 4])
    assert (found.names, found.values) == (("background", "label_1", "label_2", "active"), (0, 1, 2, 4))
    assert [(region.name, region.values, region.painted) for region in found.regions] == [
        ("whole", (1, 2, 4), 1),
        ("core", (2, 4), 2),
        ("active", (4,), 4),
    ]
    assert (found.ignore, found.ignored_class) == (9, 4)
    assert (found.classes, found.outputs) == (5, 3)
    assert found.structures == {"whole": (1, 2, 3), "core": (2, 3), "active": (3,)}
    assert found.painted_classes == (1, 2, 3)
    assert found.explanation[0].endswith(
        "whole = 1 + 2 + 4 (painted as 1), core = 2 + 4 (painted as 2), active = 4 (painted as 4)"
    )


def test_whole_numbers_may_be_written_with_a_point(tmp_path):
    """As other programs write them, and nnU-Net takes them."""
    floats = {"background": 0.0, "whole": [1.0, 2.0, 4.0], "core": [2.0, 4], "active": 4.0, "ignore": 9.0}
    found = read_regions(tmp_path, floats, [1.0, 2, 4.0])
    assert found == read_regions(tmp_path, NESTED, [1, 2, 4])
    assert all(isinstance(value, int) for value in (*found.values, found.ignore, *found.regions[0].values))


@pytest.mark.parametrize("ignored", [{"ignore": 7}, {"7": "ignore"}])
def test_an_ignore_label_beside_plain_labels(tmp_path, ignored):
    found = read_regions(tmp_path, {"background": 0, "a": 1, "b": [3]} | ignored)
    assert (found.names, found.values, found.ignore, found.regions) == (("background", "a", "b"), (0, 1, 3), 7, ())
    assert (found.classes, found.outputs, found.structures) == (4, 3, {"a": (1,), "b": (2,)})
    assert found.explanation == ("Voxels of value 7 are not annotated: they count neither in training nor in scores",)


@pytest.mark.parametrize(
    "labels, order, words",
    [
        (
            NESTED,
            None,
            "'labels' has regions, but field 'regions_class_order' is missing; give a value for each of whole",
        ),
        (NESTED, "1, 2, 4", "'regions_class_order' is '1, 2, 4', which is no list of integers"),
        (NESTED, [1, 2.5, 4], r"'regions_class_order' is \[1, 2.5, 4\], which is no list of integers"),
        (
            NESTED,
            [1, 2],
            "'regions_class_order' has 2 values for 3 regions; give a value for each of whole, core, active",
        ),
        (NESTED, [1, 2, 4, 9], "'regions_class_order' has 4 values for 3 regions"),
        (NESTED, [1, 2, 3], r"region 'active' is painted as 3, which is none of its labels \(4,\)"),
        (NESTED, [1, 1, 4], r"region 'core' is painted as 1, which is none of its labels \(2, 4\)"),
        (NESTED | {"core": [0, 2]}, [1, 2, 4], r"region 'core' holds the background \(0\)"),
        (NESTED | {"core": [2, 9]}, [1, 2, 4], r"region 'core' holds the ignore label \(9\)"),
        (NESTED | {"ignore": [9, 10]}, [1, 2, 4], "label 'ignore' has the values"),
    ],
)
def test_wrong_regions_are_refused_with_the_value(tmp_path, labels, order, words):
    with pytest.raises(UserError, match=rf"dataset\.json: .*{words}"):
        read_regions(tmp_path, labels, order)


def test_a_region_of_a_value_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match="region 'r' holds 3, which is no label"):
        LabelSet(names=("background", "a"), values=(0, 1), regions=(Region(name="r", values=(1, 3), painted=1),))


# Label maps


IMAGES = ["a1_0000", "b1_0000", "b2_0000"]


def with_maps(raw: Path, maps: object) -> FoundDataset:
    (raw / "label_maps.json").write_text(json.dumps(maps))
    return find_dataset(touch_files(raw, {"imagesTr": IMAGES, "labelsTr": ["a1", "b1", "b2"]}, DESCRIPTION))


def test_label_maps_by_case_and_by_pattern(tmp_path):
    found = with_maps(tmp_path, {"b*": {"5": 1, "1": "liver", "77": "ignore"}, "b2": {"6": "background", "5": 1}})
    assert {case.id: case.label_map for case in found.cases} == {
        "a1": (),
        "b1": ((1, 2), (5, 1), (77, 9)),
        "b2": ((1, 2), (5, 1), (6, 0), (77, 9)),
    }
    assert found.notes == ("label maps used for 2 cases",)
    assert found.findings == ()


def test_label_maps_may_stand_in_dataset_json_but_not_in_both(tmp_path):
    description = DESCRIPTION | {"label_maps": {"a": {"5": 1}}}
    (case,) = find_dataset(touch_files(tmp_path, {"imagesTr": ["a_0000"], "labelsTr": ["a"]}, description)).cases
    assert case.label_map == ((5, 1),)
    (tmp_path / "label_maps.json").write_text("{}")
    with pytest.raises(UserError, match=r"label_maps\.json: dataset\.json has a field 'label_maps' too; keep one"):
        find_dataset(tmp_path)


def test_label_maps_that_fit_no_case_or_disagree_are_problems(tmp_path):
    found = with_maps(tmp_path, {"c*": {"5": 1}, "b*": {"5": 1}, "*2": {"5": 2}})
    remedy = "correct or remove the map"
    assert [problem.full_sentence for problem in found.findings] == [
        f"c*: label maps: fits no case; {remedy}",
        f"b2: label maps: '*2' maps 5 to 2, another pattern to 1; {remedy}",
    ]


@pytest.mark.parametrize(
    "maps, words",
    [
        ({"b*": {"5": 3}}, r"'b\*' maps 5 to 3, which is no label \(0 background, 1 tumour, 2 liver, 9 ignore\)"),
        ({"b*": {"5": "kidney"}}, r"'b\*' maps 5 to 'kidney', which is no label"),
        ({"b*": {"5": True}}, "maps 5 to True, which is no label"),
        ({"b*": {"five": 1}}, r"'b\*' maps 'five'; it must be an integer"),
        ({"b*": [5, 1]}, "label maps must be objects by case or pattern"),
        ([1], "must be a JSON object by case"),
    ],
)
def test_wrong_label_maps_are_refused(tmp_path, maps, words):
    with pytest.raises(UserError, match=rf"label_maps\.json: .*{words}"):
        with_maps(tmp_path, maps)


def test_label_maps_without_described_labels_take_values_only(tmp_path):
    (tmp_path / "label_maps.json").write_text('{"a": {"5": 1}}')
    (case,) = find_dataset(touch_files(tmp_path, {"images": ["a"], "labels": ["a"]})).cases
    assert case.label_map == ((5, 1),)
    (tmp_path / "label_maps.json").write_text('{"a": {"5": "liver"}}')
    with pytest.raises(UserError, match=r"without 'labels' in dataset\.json give values, not names"):
        find_dataset(tmp_path)

"""Indexes of bitmaps and values of files, by hand; groups where a byte does not hold all labels."""

import numpy as np
import pytest

from segfw.base.errors import UserError
from segfw.dataset.labels import LabelSet, Region
from segfw.review_page.case_payload import palette_structures
from segfw.review_page.label_palette import LabelPalette, WrongBitmap

PLAIN = LabelSet(names=("background", "liver", "tumour"), values=(0, 30, 7))


def many(count: int) -> LabelSet:
    names = ("background", *(f"label_{number}" for number in range(1, count + 1)))
    return LabelSet(names=names, values=tuple(range(0, 2 * count + 1, 2)))


def test_index_is_the_place_in_the_label_set_and_not_the_value():
    palette = LabelPalette.of(PLAIN)
    mask = np.array([[[0, 30, 7, 7]]], np.uint8)
    assert palette.to_indexes(mask).tolist() == [[[0, 1, 2, 2]]]
    drawn = np.array([[[2, 1, 0, 2]]], np.uint8)
    assert palette.to_values(drawn, mask).tolist() == [[[7, 30, 0, 7]]]
    assert mask.tolist() == [[[0, 30, 7, 7]]]


def test_a_value_or_an_index_that_is_no_label_is_refused():
    palette = LabelPalette.of(PLAIN)
    with pytest.raises(UserError, match="no label"):
        palette.to_indexes(np.array([[[0, 8]]], np.uint8))
    with pytest.raises(WrongBitmap, match="index 3"):
        palette.to_values(np.array([[[3]]], np.uint8), np.array([[[0]]], np.uint8))
    with pytest.raises(WrongBitmap, match="index 255"):
        palette.to_values(np.array([[[255]]], np.uint8), np.array([[[0]]], np.uint8))
    with pytest.raises(UserError, match="group 1"):
        palette.to_indexes(np.zeros((1, 1, 1), np.uint8), 1)


def test_the_ignore_label_can_be_shown_and_drawn():
    palette = LabelPalette.of(LabelSet(names=("background", "liver"), values=(0, 1), ignore=9))
    assert palette.to_indexes(np.array([[[9, 1]]], np.uint8)).tolist() == [[[2, 1]]]
    assert palette.to_values(np.array([[[1, 2]]], np.uint8), np.zeros((1, 1, 2), np.uint8)).tolist() == [[[1, 9]]]


def test_255_labels_are_one_group_and_256_are_two():
    assert LabelPalette.of(many(255)).groups == 1
    palette = LabelPalette.of(many(256))
    assert palette.groups == 2
    assert [len(palette.of_group(group)) for group in (0, 1)] == [254, 2]
    last = palette.labels[-1]
    assert (last.name, last.value, last.group, last.index) == ("label_256", 512, 1, 2)


def test_labels_of_other_groups_stay_unless_they_are_painted_over():
    palette = LabelPalette.of(many(256))
    mask = np.array([[[0, 2, 508, 510, 512]]], np.uint16)  # labels 1, 254, 255 and 256
    assert palette.to_indexes(mask, 0).tolist() == [[[0, 1, 254, 255, 255]]]
    assert palette.to_indexes(mask, 1).tolist() == [[[0, 255, 255, 1, 2]]]
    # In the second group: label 255 is wiped out, label 256 stays, label 1 is painted over by label 256
    drawn = np.array([[[0, 2, 255, 0, 2]]], np.uint8)
    assert palette.to_values(drawn, mask, 1).tolist() == [[[0, 512, 508, 0, 512]]]
    # 255 is not what can be drawn
    with pytest.raises(WrongBitmap, match="another group"):
        palette.to_values(np.array([[[255, 255, 255, 1, 2]]], np.uint8), mask, 1)


def test_nested_regions_are_unions_of_labels_and_painted_as_one():
    regions = (
        Region(name="whole tumour", values=(1, 2, 3), painted=2),
        Region(name="core", values=(1, 3), painted=1),
    )
    labels = LabelSet(names=("background", "necrosis", "oedema", "enhancing"), values=(0, 1, 2, 3), regions=regions)
    whole, core = palette_structures(labels, LabelPalette.of(labels))
    assert (whole.name, whole.painted.index, [part.index for part in whole.parts]) == ("whole tumour", 2, [1, 2, 3])
    assert (core.name, core.painted.index, [part.index for part in core.parts]) == ("core", 1, [1, 3])

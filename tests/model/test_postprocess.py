"""The largest component: what is connected, what is equally large, and regions that share voxels."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet, Region
from segfw.model.postprocess import (
    FOREGROUND,
    DecodedStructure,
    KeepLargest,
    Postprocessing,
    apply,
    possible_steps,
    require_steps,
)

LABELS = LabelSet(names=("background", "a", "b"), values=(0, 3, 7))
NESTED = LabelSet(
    names=("background", "edge", "core"),
    values=(0, 1, 2),
    regions=(Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2)),
)


def keep(*steps: tuple[int, ...]) -> Postprocessing:
    return Postprocessing(steps=tuple(KeepLargest(name=str(classes), classes=classes) for classes in steps))


def volume() -> np.ndarray:
    """Class 1: 6 voxels and, apart from them, 2; class 2: 4 voxels that touch the 2, and 1 alone."""
    classes = np.zeros((4, 9, 11), np.uint8)
    classes[0, 0, 0:6] = 1
    classes[2, 4, 0:2] = 1
    classes[2, 4, 2:6] = 2
    classes[3, 8, 10] = 2
    return classes


def sizes(classes: np.ndarray) -> list[int]:
    return np.bincount(classes.ravel(), minlength=3).tolist()[1:]


def test_each_label_keeps_its_own_largest_component():
    classes = volume()
    assert sizes(apply(classes, keep((1,)))) == [6, 5]
    assert sizes(apply(classes, keep((2,)))) == [8, 4]
    assert sizes(apply(classes, keep((1,), (2,)))) == [6, 4]
    assert sizes(classes) == [8, 5]  # the caller's array is left alone


def test_all_foreground_together_joins_labels_that_touch():
    # 6 of class 1 against 2 + 4 of both: equally large, so both stay and only the single voxel goes.
    assert sizes(apply(volume(), keep((1, 2)))) == [8, 4]
    classes = volume()
    classes[2, 4, 6] = 2
    assert sizes(apply(classes, keep((1, 2)))) == [2, 5]


def test_corners_connect():
    classes = np.zeros((3, 3, 3), np.uint8)
    classes[0, 0, 0] = classes[1, 1, 1] = classes[2, 2, 2] = 1
    np.testing.assert_array_equal(apply(classes, keep((1,))), classes)


def test_nothing_to_remove_and_nothing_there():
    empty = np.zeros((2, 3, 4), np.uint16)
    np.testing.assert_array_equal(apply(empty, keep((1,), (2,))), empty)
    full = np.full((1, 3, 4), 2, np.uint16)  # a single slice
    np.testing.assert_array_equal(apply(full, keep((2,))), full)
    assert apply(full, Postprocessing()) is full


def test_steps_act_one_after_the_other_on_regions_that_share_voxels():
    classes = np.zeros((1, 4, 12), np.uint8)
    classes[0, 0, 0:5] = 1  # a rim with a core of 2
    classes[0, 1, 0:2] = 2
    classes[0, 3, 6:9] = 2  # a larger core elsewhere, of a smaller whole
    whole, core = (step.classes for step in possible_steps(NESTED)[1:])
    assert (whole, core) == ((1, 2), (2,))
    assert sizes(apply(classes, keep(whole))) == [5, 2]
    assert sizes(apply(classes, keep(core))) == [5, 3]
    assert sizes(apply(classes, keep(whole, core))) == [5, 2]


def test_the_slow_way_gives_the_same():
    rng = np.random.default_rng(3)
    for _ in range(5):
        classes = (ndimage.gaussian_filter(rng.normal(size=(3, 9, 14, 11)), (0, 1, 2, 1)).argmax(0)).astype(np.uint8)
        expected = classes.copy()
        components, count = ndimage.label(classes == 2, np.ones((3, 3, 3)))
        largest = max((components == index).sum() for index in range(1, count + 1))
        for index in range(1, count + 1):
            if (components == index).sum() < largest:
                expected[components == index] = 0
        np.testing.assert_array_equal(apply(classes, keep((2,))), expected)


def test_steps_are_tried_from_all_foreground_to_each_structure():
    assert [step.name for step in possible_steps(LABELS)] == [FOREGROUND, "a", "b"]
    assert [step.classes for step in possible_steps(NESTED)] == [(1, 2), (1, 2), (2,)]
    one = LabelSet(names=("background", "a"), values=(0, 9))
    assert [step.name for step in possible_steps(one)] == ["a"]  # the same as all foreground


def test_a_record_survives_its_file(tmp_path):
    steps = keep((1, 2), (2,))
    steps.save(tmp_path / "steps.json")
    assert Postprocessing.load(tmp_path / "steps.json") == steps
    assert steps.text == "(1, 2), (2,)"
    assert Postprocessing().text == "none"
    decoding = Postprocessing(decoding=(DecodedStructure(name="b", temperature=1.25),))
    decoding.save(tmp_path / "decoding.json")
    assert Postprocessing.load(tmp_path / "decoding.json") == decoding
    assert (decoding.text, decoding.decoding_text, steps.decoding_text) == ("none", "b", "none")


def test_what_is_decoded_is_an_output_of_the_network(tmp_path):
    decoding = Postprocessing(decoding=(DecodedStructure(name="b", temperature=1.25),))
    assert decoding.temperatures(LABELS) == {2: 1.25}
    core = Postprocessing(decoding=(DecodedStructure(name="core", temperature=0.5),))
    assert core.temperatures(NESTED) == {1: 0.5}
    require_steps(decoding, LABELS, tmp_path)
    require_steps(core, NESTED, tmp_path)
    with pytest.raises(UserError, match="model: has no structure 'b', .* take that of a model with whole, core"):
        require_steps(decoding, NESTED, Path("model"))
    background = Postprocessing(decoding=(DecodedStructure(name="background", temperature=1.0),))
    with pytest.raises(UserError, match="has no structure 'background'"):
        require_steps(background, LABELS, Path("model"))


@pytest.mark.parametrize("temperature", ["0", "-1.5"])
def test_a_temperature_that_is_none_is_told(tmp_path, temperature):
    file = tmp_path / "steps.json"
    file.write_text('{"steps": [], "decoding": [{"name": "b", "temperature": ' + temperature + "}]}")
    with pytest.raises(UserError, match=r"steps.json: field 'decoding.0.temperature': a temperature is above 0"):
        Postprocessing.load(file)

"""The curves of a run: which lines there are, what they mean, and how they are drawn."""

import re
from xml.etree import ElementTree

import pytest

from builders.progress import row
from segfw.training.curves import MOST_LABELS, Curves, curves_of

NAMES = ["$\\broken$", "_<hidden>"]


def by_title(rows, names=NAMES) -> dict[str, Curves]:
    return {curves.title: curves for curves in curves_of(rows, names)}


def points(curves: Curves) -> dict[str, tuple[list, list]]:
    return {line.name: (list(line.epochs), list(line.values)) for line in curves.lines}


def test_every_figure_stands_at_its_epoch():
    rows = [
        row(0),
        row(1, whole_case_dice=0.5, whole_case_dice_per_label=[0.4, 0.6], augment_share=0.1),
        row(2, rescued="the loss became nan", val_loss=float("nan")),
    ]
    found = by_title(rows)
    assert list(found) == [
        "Dice of validation patches",
        "Dice of whole validation cases",
        "Loss",
        "Learning rate",
        "Seconds per epoch",
    ]
    patches, whole, loss, rate, seconds = (points(curves) for curves in found.values())
    assert loss == {"training": ([1, 2, 3], [0.5, 0.4, 0.3]), "validation": ([1, 2], [0.6, 0.5])}
    assert patches == {"mean": ([1, 2, 3], [0.0, 0.1, 0.2]), NAMES[0]: ([1, 2, 3], [0.0, 0.1, 0.2])}
    assert whole == {"mean": ([2], [0.5]), NAMES[0]: ([2], [0.4]), NAMES[1]: ([2], [0.6])}
    assert rate == {"": ([1, 2, 3], [0.01, 0.005, 0.01 / 3])}
    assert seconds["of it waiting for data"] == ([1, 2, 3], [0.5, 0.5, 0.5])
    assert seconds["of it augmentation"] == ([2], [0.2])
    assert [curves.marks for curves in found.values()] == [{"rescued": [3]}] * 3 + [{}, {"rescued": [3]}]


def test_what_is_not_there_is_not_drawn():
    found = by_title([row(0)], ["liver"])
    assert list(found) == ["Dice of validation patches", "Loss", "Learning rate", "Seconds per epoch"]
    assert [line.name for line in found["Dice of validation patches"].lines] == ["liver"]
    assert curves_of([], ["liver"]) == []


def test_of_many_labels_the_first_are_drawn_and_the_others_are_counted():
    names = [f"l{index}" for index in range(MOST_LABELS + 1)]
    dice = by_title([row(0, val_dice_per_label=[0.5] * len(names))], names)["Dice of validation patches"]
    assert [line.name for line in dice.lines] == [*names[:-1], "mean"]
    assert dice.note == "1 label more in the table"


def test_neighbouring_labels_differ_in_colour_and_in_dashes():
    names = [f"l{index}" for index in range(MOST_LABELS)]
    lines = by_title([row(0, val_dice_per_label=[0.5] * len(names))], names)["Dice of validation patches"].lines[:-1]
    assert len({line.color for line in lines}) == MOST_LABELS
    assert all(line.dashes != following.dashes for line, following in zip(lines, lines[1:]))


@pytest.mark.parametrize("epochs", [1, 60])
def test_a_drawing_has_no_ground_no_names_and_the_colour_of_the_text(epochs):
    rows = [row(epoch, rescued="it was lost") if epoch == 0 else row(epoch) for epoch in range(epochs)]
    svg = by_title(rows)["Loss"].svg(epochs)
    drawing = ElementTree.fromstring(svg.replace("xlink:", ""))
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.text.strip() for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "Epoch" in texts
    assert not set(texts) & {"training", "validation", "rescued"}  # they stand beside it
    assert "currentColor" in svg
    colors = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", svg))
    assert colors == {line.color for line in by_title(rows)["Loss"].lines}
    assert svg == by_title(rows)["Loss"].svg(epochs)

"""Halves of a data set in which other labels are hidden, one small training of an arm, and tables counted by hand."""

import json

import nibabel
import numpy as np
import pytest

from bench.partial.command import main
from bench.partial.halves import SETS, PartialSet, halves_of, turned, write_arm, write_images
from bench.partial.results import Figures, PartialResult
from bench.partial.tables import tables
from bench.result_lines import read_lines
from builders.data import blocks_case, write_nifti
from segfw.dataset.layouts import find_dataset

CASES = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data sets with ten small images under the name of hippocampus."""
    raw = tmp_path_factory.mktemp("data") / "hippocampus"
    for number in range(CASES):
        image, mask = blocks_case(number)
        write_nifti(raw / "imagesTr" / f"c{number}_0000.nii.gz", image)
        write_nifti(raw / "labelsTr" / f"c{number}.nii.gz", np.choose(mask // 3, [0, 1, 2]).astype(np.uint8))
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}}
    (raw / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    return raw.parent


def values_in(raw, case) -> set[int]:
    return set(np.unique(nibabel.load(raw / "labelsTr" / f"{case.id}.nii.gz").dataobj).tolist())


def test_every_training_case_shows_the_labels_of_its_half(data, tmp_path):
    halves = halves_of(data, "hippocampus", kept=4)
    assert [len(part) for part in (halves.kept, halves.first, halves.second)] == [4, 3, 3]
    assert halves == halves_of(data, "hippocampus", kept=4)
    of = SETS["hippocampus"]
    for arm in ("all", "background", "marginal", "first", "second"):
        raw = write_arm(halves, of, arm, tmp_path / arm)
        found = find_dataset(raw)
        assert not found.findings
        for case in found.cases:
            half = halves.drawn_in[case.id]
            drawn = {"Posterior"} if half == "first" else {"Anterior"}
            assert values_in(raw, case) == ({0, 1, 2} if arm == "all" else {0, of.labels.index(*drawn) + 1})
            assert case.annotated == (tuple(drawn) if arm == "marginal" else None)
        assert len(found.cases) == (3 if arm in ("first", "second") else 6)
    assert find_dataset(tmp_path / "second").labels.names == ("background", "Anterior")


def test_images_and_masks_are_turned_where_the_files_say_wrongly_how_they_lie(data, tmp_path):
    of = PartialSet(
        channel="CT", configuration="2d", labels=("Anterior", "Posterior"), first=("Posterior",), axes="PLI"
    )
    case = halves_of(data, "hippocampus", kept=4).kept[0]
    folder = write_images([case], of, tmp_path)
    for kind, original in (("images", case.images[0]), ("labels", case.label)):
        made = nibabel.load(folder / kind / f"{case.id}.nii.gz")
        given = nibabel.load(original)
        assert np.array_equal(made.dataobj, given.dataobj)
        assert nibabel.aff2axcodes(made.affine) == ("P", "L", "I")
        assert made.header.get_zooms() == given.header.get_zooms()
    by_hand = [[0, -5, 0, 0], [-4, 0, 0, 0], [0, 0, -2.5, 0], [0, 0, 0, 1]]
    assert turned(np.diag([4.0, 5.0, 2.5, 1.0]), "PLI").tolist() == by_hand


def test_an_arm_is_trained_once_and_scored_by_every_label(data, tmp_path, capfd):
    asked = ["train", "hippocampus", "marginal", "--minutes", "0.05", "--kept", "4", "--data", str(data)]
    asked += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "r.jsonl")]
    main(asked)
    (line,) = read_lines(PartialResult, tmp_path / "r.jsonl")
    assert {tuple(by_label) for by_label in line.kept.values()} == {("Anterior", "Posterior")}
    assert len(line.kept) == 4
    assert len(line.trained) == 6
    main(asked)
    assert "finished before" in capfd.readouterr().out
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def result(arm, dice, predicted_ml, labels=("Anterior", "Posterior")) -> PartialResult:
    figures = {name: Figures(dice=dice, reference_ml=2.0, predicted_ml=predicted_ml) for name in labels}
    return PartialResult(
        data_set="hippocampus",
        arm=arm,
        seed=0,
        minutes=3.0,
        processor="p",
        steps=1,
        seconds=1.0,
        drawn_in={"a": "first", "b": "second"},
        kept={"k": figures, "l": figures},
        trained={
            "a": figures,
            "b": {name: each.model_copy(update={"predicted_ml": 0.0}) for name, each in figures.items()},
        },
    )


def test_tables_by_hand():
    lines = [
        result("marginal", 0.8, 1.0),
        result("first", 0.7, 2.0, ("Posterior",)),
        result("second", 0.6, 3.0, ("Anterior",)),
    ]
    rows = [
        line.strip("| ").split(" | ") for line in tables(lines).splitlines() if line.startswith("| m") or "two" in line
    ]
    assert rows[1] == ["marginal", "1", "0.800", "0.800", "0.800", "+0.150 (+0.150 to +0.150)", "0.50, 0.50"]
    assert rows[2] == ["two models", "1", "0.650", "0.600", "0.700", "-", "1.50, 1.00"]
    # In a (first half) Posterior is drawn: half of it is found there, and nothing of anything in b.
    assert rows[3] == ["marginal", "0.00", "0.50", "0.50", "0.00"]


def test_one_model_stands_beside_two_of_half_its_minutes():
    halves = [result("first", 0.7, 2.0, ("Posterior",)), result("second", 0.6, 3.0, ("Anterior",))]
    longer = result("marginal", 0.9, 1.0).model_copy(update={"minutes": 6.0})
    found = tables([*halves, longer])
    assert "hippocampus, 3 minutes of one core a training, 2 kept-out patients" in found
    title, rows = found.split("hippocampus, 6 minutes of one core in all")[1].split("\n\n")[:2]
    assert title.startswith(", of which each of two models has half")
    assert rows.splitlines()[2].endswith("| +0.250 (+0.250 to +0.250) | 0.50, 0.50 |")
    assert rows.splitlines()[3].startswith("| two models | 1 | 0.650 ")


def test_one_of_two_models_alone_has_no_table():
    assert tables([result("first", 0.7, 2.0, ("Posterior",))]) == ""

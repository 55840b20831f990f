"""segfw join: what is written, counted by hand; that it trains; and what is refused or warned of."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from builders.data import write_nifti
from builders.sources import write_source
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.layouts import find_dataset
from segfw.grid.store import read_case
from segfw.planning.fingerprint import DataProblems, scan_dataset
from segfw.verbs.evaluate import evaluate
from segfw.verbs.join import join
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

SITE_A = {"liver": 1, "left kidney": 2}
SITE_B = {"kidney_left": 1, "spleen": 5}


@pytest.fixture
def sites(tmp_path):
    first = write_source(tmp_path / "siteA", SITE_A, seed=1, ids="A{number}")
    second = write_source(tmp_path / "siteB", SITE_B, cases=2, seed=2, ids="B{number}")
    return first, second


def test_labels_ids_lists_and_maps(sites, tmp_path):
    report = join(sites, tmp_path / "joined")
    found = find_dataset(tmp_path / "joined")
    assert not found.findings
    assert found.labels.names == ("background", "liver", "left kidney", "spleen")
    assert [case.id for case in found.cases] == ["siteA_A1", "siteA_A2", "siteA_A3", "siteB_B1", "siteB_B2"]
    assert [case.annotated for case in found.cases] == [("liver", "left kidney")] * 3 + [("left kidney", "spleen")] * 2
    assert [case.label_map for case in found.cases] == [()] * 3 + [((1, 2), (5, 3))] * 2
    _, mask = read_case(found.cases[3])
    classes = found.labels.to_classes(mask.array, found.cases[3].label_map)
    assert [(classes == index).sum() for index in range(1, 4)] == [0, 24, 24]
    rows = {(row.label, row.source): (row.called, row.annotated, row.cases, row.median_ml) for row in report.labels}
    assert rows["left kidney", "siteB"] == ("kidney_left", 2, 2, pytest.approx(0.144))
    assert rows["liver", "siteB"] == ("", 0, 0, None)
    assert report.sources == {"siteA": 3, "siteB": 2}
    assert report.findings == ()
    scan_dataset(found)  # nothing is wrong with it


def test_masks_and_images_stay_where_they_are(sites, tmp_path):
    join(sites, tmp_path / "joined")
    assert sorted(path.name for path in (tmp_path / "joined").iterdir()) == [
        "dataset.json",
        "join.json",
        "patients.csv",
    ]
    files = json.loads((tmp_path / "joined" / "dataset.json").read_text())["dataset"]
    assert files["siteB_B1"] == {
        "images": [str(tmp_path / "siteB" / "images" / "B1.nii.gz")],
        "label": str(tmp_path / "siteB" / "labels" / "B1.nii.gz"),
    }
    assert (tmp_path / "joined" / "patients.csv").read_text().splitlines()[:2] == [
        "case,patient",
        "siteA_A1,siteA_A1",
    ]


def test_it_is_planned_and_its_own_lists_are_kept(sites, tmp_path):
    first, _ = sites
    described = json.loads((first / "dataset.json").read_text())
    (first / "dataset.json").write_text(json.dumps(described | {"annotated": {"A1": ["liver"]}}))
    write_nifti(first / "labels" / "A1.nii.gz", _only_liver(first))
    join(sites, tmp_path / "joined")
    found = find_dataset(tmp_path / "joined")
    assert [case.annotated for case in found.cases[:2]] == [("liver",), ("liver", "left kidney")]
    plan = plan_and_preprocess(
        tmp_path / "joined",
        tmp_path / "work",
        groups=tmp_path / "joined" / "patients.csv",
        plan_only=True,
        device="cpu",
    )
    assert plan.labels.names == ("background", "liver", "left kidney", "spleen")


def _only_liver(raw):
    values = np.asarray(nibabel.load(raw / "labels" / "A1.nii.gz").dataobj)
    return np.where(values == 1, 1, 0).astype(np.uint8)


def test_an_ignore_label_of_one_source_is_kept(tmp_path):
    first = write_source(tmp_path / "a", {"liver": 1}, seed=1, ids="A{number}")
    second = write_source(tmp_path / "b", {"liver": 1, "ignore": 9}, seed=2, ids="B{number}")
    join([first, second], tmp_path / "joined")
    labels = find_dataset(tmp_path / "joined").labels
    assert (labels.names, labels.ignore) == (("background", "liver"), 2)


def test_on_the_command_line(sites, tmp_path, capsys):
    assert main(["join", *map(str, sites), "--output", str(tmp_path / "joined")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["source", "label", "called", "there", "annotated", "in", "there", "in", "median", "ml"]
    assert said[4].split() == ["siteB", "left", "kidney", "kidney_left", "2", "2", "0.144"]
    assert "5 cases: 3 of siteA, 2 of siteB" in said
    assert said[-1].startswith("next: segfw run ")
    assert "--groups" in said[-1]


def test_a_dry_run_tells_the_same_and_writes_nothing(sites, tmp_path, capsys):
    asked = ["join", *map(str, sites), "--output", str(tmp_path / "joined")]
    assert main([*asked, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "joined").exists()
    assert main(asked) == 0
    written = capsys.readouterr().out.splitlines()
    table = said[: said.index("5 cases: 3 of siteA, 2 of siteB") + 1]
    assert len(table) == 8  # a head, three labels in two sources, and the cases
    assert written[: len(table)] == table


def test_another_definition_is_a_warning_with_both_numbers(tmp_path):
    first = write_source(tmp_path / "a", {"liver": 1}, seed=1, ids="A{number}")
    second = write_source(tmp_path / "b", {"liver": 1}, seed=2, edge=7, cases=2, ids="B{number}")
    (finding,) = join([first, second], tmp_path / "joined").findings
    assert (finding.kind, finding.severity) == ("other-definition", "warning")
    assert finding.what == "liver has a median of 0.252 ml in b (2 cases) and of 0.144 ml in a (3 cases)"
    closer = write_source(tmp_path / "c", {"liver": 1}, seed=3, edge=5, ids="C{number}")
    assert join([first, closer], tmp_path / "other").findings == ()


def test_patients_of_one_name_are_one_and_warned_of(tmp_path):
    first = write_source(tmp_path / "a", {"liver": 1}, seed=1)
    second = write_source(tmp_path / "b", {"spleen": 1}, seed=2, cases=2)
    (finding,) = join([first, second], tmp_path / "joined").findings
    assert str(finding).startswith(
        "P1 and 1 other name are patients in both a and b; patients.csv calls them one person"
    )
    assert (tmp_path / "joined" / "patients.csv").read_text().splitlines()[1:] == [
        *("a_P1,P1", "a_P2,P2", "a_P3,a_P3"),
        *("b_P1,P1", "b_P2,P2"),
    ]


def test_an_image_in_two_sources_is_refused_and_a_copy_in_other_numbers_is_found(sites, tmp_path):
    first, second = sites
    shutil.copy(first / "images" / "A2.nii.gz", second / "images" / "B1.nii.gz")
    with pytest.raises(UserError, match=r"^siteA_A2 and siteB_B1 are the same image; leave it out of one of the data"):
        join(sites, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


@pytest.mark.parametrize("which", ["one", "unnamed", "regions", "channels", "begins alike", "twice", "names"])
def test_bad_input_is_one_sentence(sites, tmp_path, which):
    first, second = sites
    options = {}
    raws = [first, second]
    described = json.loads((second / "dataset.json").read_text())
    alike = "cannot stand before cases' ids, for one begins like the other; name the data sets otherwise with called"
    sentence = {
        "one": f"{first}: give two data sets or more to join",
        "unnamed": f"{second}: nothing names its labels, so that they cannot be matched; "
        "add labels.csv or dataset.json",
        "regions": f"{second}: has regions (both and spleen), and labels alone can be joined; "
        "list its labels one by one",
        "channels": "the data sets have different channels: siteA has CT and siteB has T1; "
        "join what was scanned alike, or name them alike in dataset.json",
        "begins alike": f"'site' and 'site_b' {alike}",
        "twice": f"'siteA' and 'siteA' {alike}",
        "names": "called gives 1 names for 2 data sets; give one for each",
    }[which]
    if which == "one":
        raws = [first]
    elif which == "unnamed":
        (second / "dataset.json").unlink()
    elif which == "regions":
        regions = {"labels": {"background": 0, "both": [1, 5], "spleen": 5}, "regions_class_order": [1, 5]}
        (second / "dataset.json").write_text(json.dumps(described | regions))
    elif which == "channels":
        (second / "dataset.json").write_text(json.dumps(described | {"channel_names": {"0": "T1"}}))
    elif which == "begins alike":
        options["called"] = ("site", "site_b")
    elif which == "twice":
        raws = [first, first]
    else:
        options["called"] = ("site",)
    with pytest.raises(UserError) as error:
        join(raws, tmp_path / "joined", **options)
    assert str(error.value) == sentence
    assert not (tmp_path / "joined").exists()


def test_a_source_that_could_not_train_is_not_joined(sites, tmp_path):
    (sites[1] / "images" / "B1.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataProblems, match="1 problem in 2 cases; nothing was started"):
        join(sites, tmp_path / "joined")


def test_other_folders_are_not_written_into(sites, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already and not made by segfw join; give a new folder$"):
        join(sites, tmp_path / "mine")
    join(sites, tmp_path / "joined")
    assert join(sites, tmp_path / "joined").sources == {"siteA": 3, "siteB": 2}  # its own are made anew
    with pytest.raises(UserError, match="lies inside"):
        join(sites, sites[0] / "joined")


def test_masks_of_a_joined_data_set_are_scored_by_their_maps_and_lists(sites, tmp_path):
    join(sites, tmp_path / "joined")
    for case in find_dataset(tmp_path / "joined").cases:
        _, mask = read_case(case)
        values = find_dataset(tmp_path / "joined").labels.to_classes(mask.array, case.label_map)[0]
        write_nifti(tmp_path / "found" / f"{case.id}.nii.gz", values.transpose(2, 1, 0).astype(np.uint8))
    scores = evaluate(tmp_path / "found", tmp_path / "joined", surface=False)
    assert {name: label.dice for name, label in scores.labels.items()} == {"liver": 1, "left kidney": 1, "spleen": 1}
    assert {name: label.not_annotated for name, label in scores.labels.items()} == {
        "liver": 2,
        "left kidney": 0,
        "spleen": 3,
    }

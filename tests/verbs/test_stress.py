"""``segfw stress`` on folders: what holds, what breaks, what is kept, wrong input, and the page."""

import json
import os
import re
import shutil

import nibabel
import numpy as np
import pytest

import segfw
from builders.data import make_images
from builders.masks import rows_of
from builders.models import make_model
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.robustness.stress_records import StressReport
from segfw.standing.recognise import standing_of
from segfw.verbs.predict import predict

OTHER = {b"bright": b"dark", b"dark": b"bright"}
CPU = ("--device", "cpu", "--precision", "fp32")
EXACT = ["same again", "origin", "nii.gz", "float32", "float64", "scaled integers", "big-endian", "mha", "nrrd"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, three images, and masks of the model's own as those of an expert."""
    home = tmp_path_factory.mktemp("stress")
    make_model(home / "model")
    make_images(home / "images", 3)
    predict(home / "model", home / "images", home / "masks", device="cpu", precision="fp32")
    return home


@pytest.fixture(scope="module")
def whole(home):
    """All changes of two images, with the masks of an expert."""
    code = main(
        [
            *("stress", str(home / "model"), str(home / "images"), str(home / "whole"), "--cases", "2", *CPU),
            *("--reference", str(home / "masks")),
        ]
    )
    return code, StressReport.load(home / "whole" / "stress.json")


def stress(home, output, *more):
    """Exit code of the command, with one level of each change."""
    return main(["stress", str(home / "model"), str(home / "images"), str(output), "--quick", *CPU, *map(str, more)])


def test_structures_of_an_experts_mask_are_told_by_their_names(home, tmp_path):
    """Not by the numbers that a file happens to give them, which another program makes anew."""
    masks = tmp_path / "masks"
    predict(home / "model", home / "images", masks, device="cpu", precision="fp32", formats=("seg.nrrd",))
    for path in (masks / "seg-nrrd").glob("*.seg.nrrd"):
        head, voxels = path.read_bytes().split(b"\n\n", 1)
        assert b"_Name:=bright\n" in head
        other = re.sub(rb"_Name:=(bright|dark)", lambda name: b"_Name:=" + OTHER[name[1]], head)
        path.write_bytes(other + b"\n\n" + voxels)
    stress(home, tmp_path / "out", "--cases", "1", "--reference", masks / "seg-nrrd")
    report = StressReport.load(tmp_path / "out" / "stress.json")
    again = next(change for change in report.changes if change.perturbation.name == "same again")
    assert {each.structure: each.dice_before for each in again.structures} == {"bright": 0, "dark": 0}


def test_label_maps_beside_an_experts_masks_say_what_their_values_mean(home, tmp_path):
    """The expert's 40 is 'bright', 3 in training, in the case a."""
    masks = tmp_path / "expert" / "masks"
    shutil.copytree(home / "masks", masks, ignore=shutil.ignore_patterns(".*", "*.json"))
    stored = nibabel.load(masks / "a.nii.gz")
    values = np.asarray(stored.dataobj)
    other = np.where(values == 3, 40, values).astype(values.dtype)
    nibabel.save(nibabel.Nifti1Image(other, stored.affine, stored.header), masks / "a.nii.gz")
    (tmp_path / "expert" / "label_maps.json").write_text('{"a": {"40": "bright"}}')
    assert stress(home, tmp_path / "out", "--cases", "1", "--reference", masks) == 0
    report = StressReport.load(tmp_path / "out" / "stress.json")
    again = next(change for change in report.changes if change.perturbation.name == "same again")
    assert {each.structure: each.dice_before for each in again.structures} == {"bright": 1, "dark": 1}


def test_a_model_that_turns_images_changes_no_voxel_in_any_file(home, whole):
    code, report = whole
    assert code == 0
    exact = {change.perturbation.name: change for change in report.changes if change.perturbation.kind == "exact"}
    assert sorted(exact) == sorted([*EXACT, *(f"axis order {number}" for number in (1, 2, 3, 4))])
    assert {change.changed_voxels for change in exact.values()} == {0}
    assert {change.cases for change in exact.values()} == {2}
    orders = {detail for name, change in exact.items() if "axis" in name for detail in change.details.values()}
    assert len(orders) >= 5  # each case has four of its own
    assert not report.broken


def test_with_an_experts_masks_dice_is_told_beside_agreement(home, whole):
    report = whole[1]
    change = next(change for change in report.changes if change.perturbation.text == "blur 2 mm")
    for each in change.structures:
        assert each.dice_before == 1  # the expert is the model itself
        assert each.dice_after == pytest.approx(each.agreement)
    assert {level.of for level in report.levels} == {"Dice"}
    assert {level.change for level in report.levels} >= {"noise", "blur", "voxel size", "rotation", "field of view"}


@pytest.mark.parametrize("name", ["noise", "blur"])
def test_curves_fall_with_noise_and_blur(whole, name):
    changes = [change for change in whole[1].changes if change.perturbation.name == name]
    assert len(changes) == 3
    means = [np.mean([each.agreement for each in change.structures]) for change in changes]
    assert sorted(means, reverse=True) == means
    assert means[0] > means[-1]


def test_all_files_say_the_same(home, whole):
    report = whole[1]
    rows = rows_of(home / "whole" / "stress.csv")
    trials = {(row["change"], row["level"]) for row in rows}
    assert len(trials) == len(report.changes)
    assert len(rows) == 2 * 2 * len(report.changes)  # cases, structures
    page = (home / "whole" / "stress.html").read_text()
    for what in ("What must change nothing", "Levels that cost 0.05", "Curves", "Worst pictures", "Every level"):
        assert what in page
    assert page.count("data:image/png") >= 4
    assert not re.search(r'(src|href)="(http|//)', page)  # it needs no network


def test_status_knows_the_report_and_its_folder(home, whole, tmp_path):
    for path in (home / "whole", home / "whole" / "stress.json"):
        found = standing_of(path)
        assert (found.kind, found.cases, found.broken) == ("stress", 2, ())
        assert "nothing broke that must change nothing" in found.text()
        assert found.next.split()[:2] == ["segfw", "stress"]
    (tmp_path / "stress.json").write_text('{"kind": "stress"}')
    with pytest.raises(UserError, match="is nothing that segfw knows"):
        standing_of(tmp_path / "stress.json")


def planted(model, folder):
    """The same networks for images as they are stored."""
    shutil.copytree(model, folder)
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace('"canonical"', '"as stored"'))
    return folder


def test_a_model_that_takes_axes_as_stored_is_found_out(home, tmp_path, capsys):
    model = planted(home / "model", tmp_path / "planted")
    arguments = ("stress", str(model), str(home / "images"), str(tmp_path / "out"), "--quick", "--cases", "1", *CPU)
    assert main([*arguments]) == 1
    said = capsys.readouterr().out
    assert re.search(r"BROKEN: axis order 1 changed \d+ voxels in 1 of 1 image: \w+ \(stored as [A-Z]{3}\)", said)
    report = StressReport.load(tmp_path / "out" / "stress.json")
    assert [change.perturbation.name for change in report.broken] == ["axis order 1"]  # and no format
    assert "BROKEN" in (tmp_path / "out" / "stress.html").read_text()


def test_what_was_tried_is_kept_and_what_was_not_is_added(home, tmp_path, capsys):
    assert stress(home, tmp_path / "out", "--cases", "1") == 0
    assert "1 case tried, 0 were there" in capsys.readouterr().out
    quick = (tmp_path / "out" / "stress.json").read_bytes()
    assert stress(home, tmp_path / "out", "--cases", "1") == 0
    assert "0 cases tried, 1 were there" in capsys.readouterr().out
    assert (tmp_path / "out" / "stress.json").read_bytes() == quick
    file = next((tmp_path / "out" / ".segfw").glob("case_*.json"))
    content = json.loads(file.read_text())
    kept = content["effects"][:3]
    kept[1]["detail"] = "from before"  # as a killed call would have left it
    file.write_text(json.dumps(content | {"effects": kept, "tried": "some"}))
    assert stress(home, tmp_path / "out", "--cases", "1") == 0
    assert "1 case tried, 0 were there" in capsys.readouterr().out
    again = json.loads(file.read_text())
    assert again["effects"][:3] == kept
    assert len(again["effects"]) == len(content["effects"])
    assert again["effects"][3:] == content["effects"][3:]


def test_structures_of_a_name_alone(home, tmp_path):
    assert stress(home, tmp_path / "out", "--cases", "1", "--only", "dark") == 0
    assert {row["structure"] for row in rows_of(tmp_path / "out" / "stress.csv")} == {"dark"}
    assert stress(home, tmp_path / "out", "--cases", "1") == 0  # nothing is tried again for the others
    assert {row["structure"] for row in rows_of(tmp_path / "out" / "stress.csv")} == {"dark", "bright"}


def test_figures_of_another_model_are_not_mixed_in(home, tmp_path, capsys):
    other = make_model(tmp_path / "other")
    assert stress(home, tmp_path / "out", "--cases", "1") == 0
    arguments = ["stress", str(other), str(home / "images"), str(tmp_path / "out"), "--quick", "--cases", "1", *CPU]
    assert main([*arguments, "--step", "1"]) == 2
    assert "is of another model or other options (step)" in capsys.readouterr().err
    assert main([*arguments, "--step", "1", "--overwrite"]) == 0
    assert stress(home, tmp_path / "out", "--cases", "1", "--reference", home / "masks") == 2
    assert "other options (step, reference)" in capsys.readouterr().err


def test_a_changed_image_is_tried_again(home, tmp_path, capsys):
    images = shutil.copytree(home / "images", tmp_path / "images")
    arguments = ["stress", str(home / "model"), str(images), str(tmp_path / "out"), "--quick", "--cases", "1", *CPU]
    assert main(arguments) == 0
    first = min(images.glob("*.nii.gz"))
    os.utime(first, ns=(1, 1))
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 image changed since they were tried, and are tried again" in capsys.readouterr().out


def test_a_damaged_image_is_named_and_the_others_are_told(home, tmp_path, capsys):
    images = shutil.copytree(home / "images", tmp_path / "images")
    damaged = min(images.glob("*.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:90])
    assert main(["stress", str(home / "model"), str(images), str(tmp_path / "out"), "--quick", *CPU]) == 1
    assert re.search(
        r"1 case failed under changes, all others are done\n  a: .*a.nii.gz: cannot be read", capsys.readouterr().err
    )
    report = StressReport.load(tmp_path / "out" / "stress.json")
    assert list(report.failed) == ["a"]
    assert report.cases == ("b", "c")
    with pytest.raises(CasesFailed):
        segfw.stress(home / "model", images, tmp_path / "out", quick=True, device="cpu", precision="fp32")


def test_one_picture_has_trials_of_its_own(tmp_path):
    make_model(tmp_path / "model")
    from PIL import Image

    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 36)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    report = segfw.stress(
        tmp_path / "model", tmp_path / "images", tmp_path / "out", quick=True, device="cpu", precision="fp32"
    )
    exact = [change.perturbation.name for change in report.changes if change.perturbation.kind == "exact"]
    assert exact == ["same again", "tif"]
    assert not report.broken
    assert "slice distance" not in {change.perturbation.name for change in report.changes}


def test_experts_masks_that_do_not_fit_are_refused(home, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    mask = nibabel.load(home / "masks" / "a.nii.gz")
    nibabel.save(mask, tmp_path / "masks" / "z.nii.gz")
    assert stress(home, tmp_path / "out", "--reference", tmp_path / "masks") == 2
    assert "has a mask of none of the images, such as a; name them alike" in capsys.readouterr().err
    small = nibabel.Nifti1Image(np.asarray(mask.dataobj)[:-1], mask.affine)
    nibabel.save(small, tmp_path / "masks" / "a.nii.gz")
    assert stress(home, tmp_path / "out", "--reference", tmp_path / "masks", "--cases", "1") == 1
    assert "resample it to the grid of" in capsys.readouterr().err


def test_wrong_places_and_options_are_refused(home, tmp_path, capsys):
    for output, said in (
        (home / "images", "is the folder of the images"),
        (home / "images" / "inside", "lies inside"),
        (home / "model" / "plan.json", "is a file; give a folder for the report"),
    ):
        assert stress(home, output) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stress.json").write_text('{"something": "else"}')
    assert stress(home, tmp_path / "out") == 2
    assert "stress.json: is there already and not written by this command" in capsys.readouterr().err
    assert stress(home, tmp_path / "other", "--only", "liver") == 2
    assert stress(home, tmp_path / "other", "--cases", "0") == 2
    with pytest.raises(UserError, match="no such file or folder"):
        segfw.stress(home / "model", tmp_path / "nothing", tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()

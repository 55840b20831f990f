"""``--json``: stdout is one JSON document, whatever is said on the way, and the exit code stays."""

import json
import shutil

import pytest

from builders.models import small_model
from segfw.cli import main
from segfw.model.model_info import trained_text


def json_of(arguments, capsys, code=0):
    """What a verb prints with --json, all of stdout, after checking its exit code."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_info_doctor_and_check_print_one_json_document(make_raw, tmp_path, capsys):
    machine = json_of(["doctor"], capsys)
    assert machine["kind"] == "machine"
    assert machine["cores"] >= 1
    assert machine["versions"]["segfw"] != "MISSING"

    folder = small_model(tmp_path / "work")
    plan = json_of(["info", str(folder), "--device", "cpu"], capsys)
    assert (plan["kind"], plan["device"], plan["card"]) == ("plan", "CPU", None)
    assert plan["trained_folds"] == {"3d_fullres": ["0"]}
    assert plan["hours_per_fold"]["3d_fullres"] == pytest.approx(plan["step_s"]["3d_fullres"] * 250_000 / 3600)
    assert plan["plan"]["configurations"]["3d_fullres"]["patch_size"]

    raw = make_raw(cases=5)
    report = json_of(["check", str(raw), "--output", str(tmp_path / "report")], capsys)
    assert report == json.loads((tmp_path / "report" / "check.json").read_text())
    assert (report["kind"], report["case_count"]) == ("check", 5)
    shutil.copyfile(raw / "imagesTr" / "case_01_0000.nii.gz", raw / "imagesTr" / "case_02_0000.nii.gz")
    findings = json_of(["check", str(raw)], capsys, code=1)["findings"]
    assert ("same-image", "case_02") in {(each["kind"], each["case"]) for each in findings}
    assert main(["info", str(raw), "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "folds, said",
    [
        ((), "No fold is trained yet"),
        (("0",), "Fold 0 is trained"),
        (("0", "1", "3"), "Folds 0, 1 and 3 are trained"),
        (("all",), "One network is trained, on all cases (fold 'all')"),
    ],
)
def test_trained_folds_are_told_as_a_sentence(folds, said):
    assert trained_text(folds) == said

"""The check of data that are annotated in part: nothing is missing that nobody drew."""

from builders.bodies import LABELS, files, kinds_of
from builders.partial import describe, hide
from segfw.verbs.check import check_dataset


def test_a_structure_that_nobody_drew_is_not_missing(raw):
    name = max(LABELS, key=LABELS.get)
    others = [other for other in LABELS if other not in ("background", name)]
    hide(files(raw, "case_03")[1], [LABELS[name]])
    assert "missing-label" in kinds_of(check_dataset(raw), "case_03")
    describe(raw, annotated={"case_03": others})
    report = check_dataset(raw)
    assert "missing-label" not in kinds_of(report, "case_03")
    assert report.exit_code == 0
    assert "annotated in part: 1 case of 12, 1 list of structures" in report.text()


def test_a_value_that_is_not_annotated_there_is_an_error(raw):
    name = max(LABELS, key=LABELS.get)
    others = [other for other in LABELS if other not in ("background", name)]
    report = check_dataset(describe(raw, annotated={"case_03": others}))
    (finding,) = [finding for finding in report.findings if finding.kind == "not-annotated-label"]
    assert (finding.case, finding.severity) == ("case_03", "error")
    assert report.exit_code != 0


def test_a_label_that_few_cases_annotate_is_told(raw):
    name = max(LABELS, key=LABELS.get)
    others = [other for other in LABELS if other not in ("background", name)]
    for number in range(3, 12):
        hide(files(raw, f"case_{number:02}")[1], [LABELS[name]])
    report = check_dataset(describe(raw, annotated={"case_0[3-9]": others, "case_1[01]": others}))
    (finding,) = [finding for finding in report.findings if finding.kind == "rare-label"]
    assert finding.what.startswith(f"{name} (value {LABELS[name]}) is in 3 cases only")


def test_in_how_many_cases_nobody_drew_a_label_is_counted(raw, tmp_path):
    name = max(LABELS, key=LABELS.get)
    others = [other for other in LABELS if other not in ("background", name)]
    whole = tmp_path / "whole"
    check_dataset(raw, output=whole)
    assert "annotated" not in (whole / "check.json").read_text()
    assert "Not annotated" not in (whole / "check.html").read_text()
    for number in range(2):
        hide(files(raw, f"case_{number:02}")[1], [LABELS[name]])
    report = check_dataset(describe(raw, annotated={"case_0[01]": others}), output=tmp_path / "part")
    assert f"label {LABELS[name]} {name}: in 10 cases, not annotated in 2," in report.text()
    assert {label.name: label.not_annotated for label in report.labels} == {
        other: 2 if other == name else 0 for other in LABELS if other != "background"
    }
    assert "Not annotated" in (tmp_path / "part" / "check.html").read_text()

"""``accept``, ``reject``, ``import-corrected`` and ``status`` of a folder that people review."""

from __future__ import annotations

import json

import numpy as np
import pytest

from builders.review import AFFINE, ANNA, Clock, drawn, masks_folder
from segfw.base.errors import UserError
from segfw.cli import main
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_mask, write_labels
from segfw.images.geometry import Geometry
from segfw.interop.write_seg_nrrd import SegNrrdFormat
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file
from segfw.verbs.status import status

GEOMETRY = Geometry.of(drawn().shape, AFFINE)


@pytest.fixture
def masks(tmp_path):
    return masks_folder(tmp_path, ("case_1", "case_2", "other"))


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def states(masks):
    return {case: standing.state for case, standing in ReviewStore.open(masks).standings().items()}


def corrected():
    """The draft of case_1 with 2 voxels of liver more and 1 of spleen less."""
    values = drawn()
    values[0, 0, :2] = 1
    values[3, 4, 3] = 0
    return values


def edits(masks):
    (version,) = ReviewStore.open(masks).versions("case_1")
    return {name: (each.added, each.removed) for name, each in version.edited_voxels.items()}


# ---- accept ----


def test_cases_are_accepted_and_signed_by_patterns(masks, capsys):
    before = {path.name: path.read_bytes() for path in masks.glob("*.nii.gz")}
    code, said, _ = run(capsys, "accept", masks, "case_*", "--user", "Anna", "--minutes", 3)
    assert code == 0
    assert "REVIEWED: 2 cases (case_1, case_2)" in said
    assert states(masks) == {"case_1": "REVIEWED", "case_2": "REVIEWED", "other": "DRAFT"}
    assert ReviewStore.open(masks).standing("case_1").active_s == 90.0
    code, said, _ = run(capsys, "accept", masks, "*", "--user", "Anna", "--sign", "Dr. Anna Weber")
    assert code == 0
    assert set(states(masks).values()) == {"SIGNED"}
    standing = ReviewStore.open(masks).standing("other")
    assert (standing.signed_name, standing.meaning, standing.signed_by) == ("Dr. Anna Weber", "review", "Anna")
    assert {path.name: path.read_bytes() for path in masks.glob("*.nii.gz")} == before
    # Again: nothing is to do
    lines = len(ReviewStore.open(masks).log.events())
    code, said, _ = run(capsys, "accept", masks, "*", "--user", "Anna", "--sign", "Dr. Anna Weber")
    assert (code, "nothing to do, SIGNED: 3 cases" in said) == (0, True)
    assert len(ReviewStore.open(masks).log.events()) == lines


def test_one_case_that_fails_does_not_stop_the_others(masks, capsys):
    ReviewStore.open(masks).open_case("case_1", ANNA)
    code, said, _ = run(capsys, "accept", masks, "*", "--user", "Ben", "--json")
    assert code == 1
    answer = json.loads(said)
    assert answer["kind"] == "review-steps"
    assert answer["done"] == {"case_2": "REVIEWED", "other": "REVIEWED"}
    assert list(answer["failed"]) == ["case_1"]
    assert "is being reviewed by Anna" in answer["failed"]["case_1"]


def test_what_is_decided_stays_decided(masks, capsys):
    store = ReviewStore.open(masks)
    store.open_case("case_1", ANNA)
    store.decide("case_1", ANNA, "spleen", "absent")
    assert run(capsys, "accept", masks, "case_1", "--user", "Anna")[0] == 0
    assert store.standing("case_1").decisions == {"liver": "accept", "spleen": "absent"}
    assert set(np.unique(store.read("case_1").array)) == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "which cases?"),
        (("case_9",), "has no case 'case_9'"),
        (("*", "--user", " "), "the name of a user"),
        (("*", "--user", "a\nb"), "the name of a user"),
        (("*", "--minutes", "-1"), "--minutes"),
    ],
)
def test_what_cannot_be_accepted_is_told(masks, capsys, arguments, problem):
    code, _, said = run(capsys, "accept", masks, *arguments)
    assert (code, problem in said) == (2, True), said
    assert not (masks / "review" / "log.jsonl").exists()


def test_an_empty_name_signs_nothing(masks, capsys):
    code, said, _ = run(capsys, "accept", masks, "case_1", "--user", "Anna", "--sign", " ")
    assert (code, "the name of a signature" in said) == (1, True)
    assert states(masks)["case_1"] == "REVIEWED"


# ---- decisions of a static page ----


def noted(masks, *entries):
    store = ReviewStore.open(masks)
    filled = [
        {"user": "Anna", "utc": "2026-03-01T08:00:00Z", "sha256": store.sha256(entry["case"], 0), **entry}
        for entry in entries
    ]
    path = masks.parent / "decisions.json"
    path.write_text(json.dumps(filled))
    return path


def test_decisions_of_a_static_page_are_taken(masks, capsys):
    path = noted(
        masks,
        {"case": "case_1", "structure": "liver", "decision": "accept"},
        {"case": "case_1", "structure": "spleen", "decision": "absent"},
        {"case": "case_2", "decision": "reject", "reason": "image-bad", "text": "motion"},
        {"case": "other", "structure": "liver", "decision": "accept"},
    )
    code, said, _ = run(capsys, "accept", masks, "--from", path, "--minutes", 3)
    assert code == 1
    assert states(masks) == {"case_1": "REVIEWED", "case_2": "REJECTED", "other": "DRAFT"}
    assert "other: nothing is decided on spleen" in said
    standing = ReviewStore.open(masks).standing("case_1")
    assert (standing.reviewed_by, standing.active_s) == ("Anna", 60.0)
    assert ReviewStore.open(masks).standing("case_2").reject_text == "motion"


def test_of_several_decisions_on_a_case_the_last_one_counts(masks, capsys):
    """Told by the times, also where the file has them in another order."""
    rejected = {"decision": "reject", "reason": "image-bad"}
    early = {"utc": "2026-03-01T08:00:00Z"}
    late = {"utc": "2026-03-01T11:30:00+02:00"}  # half past nine
    path = noted(
        masks,
        {"case": "case_1", "structure": "spleen", "decision": "absent", **early},
        {"case": "case_1", "decision": "accept", **late},
        {"case": "case_1", **rejected, "utc": "2026-03-01T09:00:00Z"},
        {"case": "case_2", **rejected, **late},
        {"case": "case_2", "decision": "accept", **early},
    )
    assert run(capsys, "accept", masks, "--from", path)[0] == 0
    assert states(masks) == {"case_1": "REVIEWED", "case_2": "REJECTED", "other": "DRAFT"}
    events = [event for event in ReviewStore.open(masks).history("case_1") if event.event == "decide"]
    assert {event.structure: event.decision for event in events} == {"liver": "accept", "spleen": "accept"}
    # The same again: nothing is left to do
    code, said, _ = run(capsys, "accept", masks, "--from", path)
    assert (code, "nothing to do, REJECTED: 1 case" in said) == (0, True)


def test_entries_without_times_count_in_the_order_of_the_file(masks, capsys):
    rejected = {"case": "case_1", "decision": "reject", "reason": "image-bad", "utc": ""}
    path = noted(masks, rejected, {"case": "case_1", "decision": "accept"})
    assert run(capsys, "accept", masks, "--from", path)[0] == 0
    assert states(masks)["case_1"] == "REVIEWED"


def test_a_rejection_of_the_draft_is_refused_once_a_version_counts(masks, capsys):
    path = noted(masks, {"case": "case_1", "decision": "reject", "reason": "image-bad"})
    run(capsys, "accept", masks, "case_1", "--user", "Ben")
    code, said, _ = run(capsys, "accept", masks, "--from", path, "--sign", "Anna")
    assert (code, "showed the draft, but version 1 counts" in said) == (1, True)
    assert states(masks)["case_1"] == "REVIEWED"


def test_decisions_on_another_draft_are_refused(masks, capsys):
    path = noted(masks, {"case": "case_1", "decision": "accept"})
    write_labels(masks / "case_1.nii.gz", corrected(), GEOMETRY)
    code, said, _ = run(capsys, "accept", masks, "--from", path)
    assert (code, "showed another draft" in said) == (1, True)
    assert states(masks)["case_1"] == "DRAFT"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not readable JSON"),
        ("[]", "holds no list of decisions"),
        ("[1]", "entry 1 is no object"),
        ('[{"case": "case_1", "decision": "maybe", "sha256": "0"}]', "entry 1"),
        ('[{"case": "../x", "decision": "accept", "sha256": "0"}]', "has no case '../x'"),
        ('[{"case": "case_1", "decision": "accept", "sha256": "0", "utc": "2026-03-01T08:00"}]', "of which zone it is"),
        ('[{"case": "case_1", "decision": "accept", "sha256": "0", "utc": "noon"}]', "entry 1"),
    ],
)
def test_files_of_decisions_that_are_none_are_refused(masks, capsys, content, problem):
    path = masks.parent / "decisions.json"
    path.write_text(content)
    code, _, said = run(capsys, "accept", masks, "--from", path)
    assert (code, problem in said) == (2, True), said


# ---- reject ----


def test_cases_are_rejected_for_a_reason(masks, capsys):
    code, said, _ = run(capsys, "reject", masks, "case_*", "--user", "Anna", "--reason", "image-bad", "--minutes", 1)
    assert (code, "REJECTED: 2 cases" in said) == (0, True)
    standing = ReviewStore.open(masks).standing("case_1")
    assert (standing.state, standing.reject_reason, standing.active_s) == ("REJECTED", "image-bad", 30.0)
    code, _, said = run(capsys, "reject", masks, "other")
    assert (code, "--text is missing" in said) == (2, True)


def test_signatures_are_taken_back(masks, capsys):
    run(capsys, "accept", masks, "case_1", "--user", "Anna", "--sign", "Anna")
    code, said, _ = run(capsys, "reject", masks, "case_1", "--reason", "image-bad", "--user", "Anna")
    assert (code, "is SIGNED" in said) == (1, True)
    code, _, _ = run(capsys, "reject", masks, "case_1", "--signature", "--text", "wrong patient", "--user", "Anna")
    assert (code, states(masks)["case_1"]) == (0, "REVIEWED")


# ---- import-corrected ----


def test_a_plain_mask_is_a_new_version_whose_edits_are_counted(masks, tmp_path, capsys):
    write_labels(tmp_path / "case_1.nii.gz", corrected(), GEOMETRY)
    arguments = ("import-corrected", masks, tmp_path / "case_1.nii.gz", "--user", "Anna", "--tool", "Slicer")
    code, said, _ = run(capsys, *arguments)
    assert (code, "REVIEWED: 1 case (case_1)" in said) == (0, True)
    assert edits(masks) == {"liver": (2, 0), "spleen": (0, 1)}
    store = ReviewStore.open(masks)
    assert (store.read("case_1").array[0] == corrected()).all()
    (version,) = store.versions("case_1")
    assert (version.origin, version.editor_tool, version.author) == ("imported", "Slicer", "Anna")
    assert run(capsys, *arguments)[1].startswith("nothing to do")
    # The draft is no longer what counts
    write_labels(tmp_path / "case_1.nii.gz", drawn(), GEOMETRY)
    code, said, _ = run(capsys, *arguments)
    assert (code, "version 1 by Anna is the newest" in said) == (1, True)
    assert states(masks)["case_1"] == "REVIEWED"
    assert run(capsys, *arguments, "--base", 1)[0] == 0
    assert [each.number for each in store.versions("case_1")] == [1, 2]


def test_names_decide_and_not_numbers(masks, tmp_path, capsys):
    # The same structures with the numbers exchanged
    swapped = LabelSet(names=("background", "spleen", "liver"), values=(0, 1, 2))
    values = np.array([0, 2, 1], dtype=np.uint8)[corrected()]
    finished = FinishedMask(
        case_id="case_1", values_zyx=values, geometry=GEOMETRY, labels=swapped, maker=MaskMaker(name="x")
    )
    SegNrrdFormat().write(tmp_path, finished)
    (file,) = tmp_path.rglob("*.seg.nrrd")
    assert run(capsys, "import-corrected", masks, file, "--user", "Anna")[0] == 0
    assert edits(masks) == {"liver": (2, 0), "spleen": (0, 1)}


def test_a_table_says_what_numbers_of_a_plain_mask_mean(masks, tmp_path, capsys):
    values = np.array([0, 20, 7], dtype=np.uint8)[corrected()]
    write_labels(tmp_path / "case_1.nrrd", values, GEOMETRY)
    code, said, _ = run(capsys, "import-corrected", masks, tmp_path / "case_1.nrrd")
    assert (code, "holds 7, which is no label here" in said) == (1, True)
    table = tmp_path / "names.txt"
    table.write_text('0 0 0 0 0 0 0 "Clear Label"\n20 1 1 1 1 1 1 "liver"\n7 2 2 2 1 1 1 "spleen"\n')
    assert run(capsys, "import-corrected", masks, tmp_path / "case_1.nrrd", "--label-names", table)[0] == 0
    assert edits(masks) == {"liver": (2, 0), "spleen": (0, 1)}


def test_a_structure_that_is_none_here_is_refused(masks, tmp_path, capsys):
    labels = LabelSet(names=("background", "liver", "tumour"), values=(0, 1, 2))
    finished = FinishedMask(
        case_id="case_1", values_zyx=drawn(), geometry=GEOMETRY, labels=labels, maker=MaskMaker(name="x")
    )
    SegNrrdFormat().write(tmp_path, finished)
    (file,) = tmp_path.rglob("*.seg.nrrd")
    code, said, _ = run(capsys, "import-corrected", masks, file)
    assert (code, "holds tumour, which is none of the structures here (liver, spleen)" in said) == (1, True)
    assert states(masks)["case_1"] == "DRAFT"


def test_a_mask_that_is_stored_in_another_order_comes_back_in_that_of_the_draft(masks, tmp_path, capsys):
    turned = AFFINE.copy()
    turned[:3, 1] *= -1
    turned[:3, 3] += AFFINE[:3, 1] * 5  # axis 1 of 6 voxels runs the other way
    write_labels(tmp_path / "case_1.nii.gz", corrected()[:, ::-1], Geometry.of(drawn().shape, turned))
    assert run(capsys, "import-corrected", masks, tmp_path / "case_1.nii.gz", "--user", "Anna")[0] == 0
    assert (ReviewStore.open(masks).read("case_1").array[0] == corrected()).all()


def test_a_mask_on_another_grid_is_refused(masks, tmp_path, capsys):
    shifted = AFFINE.copy()
    shifted[2, 3] += 2
    write_labels(tmp_path / "case_1.nii.gz", corrected(), Geometry.of(drawn().shape, shifted))
    code, said, _ = run(capsys, "import-corrected", masks, tmp_path / "case_1.nii.gz")
    assert (code, "lies up to 2 mm away from the draft" in said) == (1, True)
    write_labels(tmp_path / "unnamed.nii.gz", corrected(), GEOMETRY)
    code, _, said = run(capsys, "import-corrected", masks, tmp_path / "unnamed.nii.gz")
    assert (code, "is named like no case here" in said) == (2, True)
    more = ("--case", "case_2", "--no-finish", "--user", "Anna")
    code, said, _ = run(capsys, "import-corrected", masks, tmp_path / "unnamed.nii.gz", *more)
    assert (code, "version 1, unfinished: 1 case (case_2)" in said) == (0, True)
    standing = ReviewStore.open(masks).standing("case_2")
    assert (standing.state, standing.version) == ("DRAFT", 1)


# ---- status ----


def test_status_tells_how_far_a_review_is(masks, capsys, tmp_path):
    assert run(capsys, "status", masks)[1].count("review") == 0
    code, _, said = run(capsys, "status", masks, "--verify")
    assert (code, "nothing was reviewed there" in said) == (2, True)
    run(capsys, "accept", masks, "case_*", "--user", "Anna", "--minutes", 4, "--sign", "Anna")
    ReviewStore.open(masks).open_case("other", ANNA)
    anchor = tmp_path / "anchor.jsonl"
    code, said, _ = run(capsys, "status", masks, "--verify", "--anchor", anchor)
    assert code == 0
    assert "review: 1 IN_REVIEW, 2 SIGNED; 4 min of work; 1 left to sign or reject" in said
    assert "open now: other by Anna" in said
    assert "log: verified, head 11 " in said
    assert "2 versions of masks and all signatures are as they were written" in said
    assert f"next: segfw review {masks}" in said
    answer = json.loads(run(capsys, "status", masks, "--json")[1])
    assert answer["kind"] == "masks"
    assert answer["review"]["states"]["SIGNED"] == 2
    assert answer["review"]["head_n"] == 11
    assert answer["review"]["head_sha256"] == json.loads(anchor.read_text())["sha256"]


def test_verify_names_the_line_or_the_mask_that_was_changed(masks, capsys, tmp_path):
    run(capsys, "accept", masks, "*", "--user", "Anna", "--sign", "Anna")
    anchor = tmp_path / "anchor.jsonl"
    assert run(capsys, "status", masks, "--anchor", anchor)[0] == 0
    log = masks / "review" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)

    write_labels(version_file(masks, "case_2", 1), corrected(), GEOMETRY)
    code, said, _ = run(capsys, "status", masks, "--verify")
    assert code == 1
    assert "CHANGED: review/labels/case_2/v0001.nii.gz was changed" in said
    assert "CHANGED: case_2 is signed, but its mask changed since" in said
    assert run(capsys, "status", masks)[0] == 0  # which reads no mask

    log.write_bytes(b"".join(lines[:9]))
    assert run(capsys, "status", masks)[0] == 0  # nothing in a log tells that its end is gone
    code, said, _ = run(capsys, "status", masks, "--anchor", anchor)
    assert (code, "line 10 is missing" in said) == (1, True)

    log.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    code, said, _ = run(capsys, "status", masks)
    assert (code, "log: line 5 does not follow the line before" in said) == (1, True)
    assert json.loads(run(capsys, "status", masks, "--json")[1])["review"]["log_problem"].startswith("line 5 ")


def test_the_public_functions_answer_with_records(masks):
    import segfw

    answer = segfw.accept(masks, ["case_1"], user="Anna", sign="Anna")
    assert answer.done == {"case_1": "SIGNED"}
    assert segfw.reject(masks, ["case_2"], user="Anna", reason="model-failed").done == {"case_2": "REJECTED"}
    write_labels(masks.parent / "other.nii.gz", corrected(), GEOMETRY)
    assert segfw.import_corrected(masks, [masks.parent / "other.nii.gz"], user="Anna").done == {"other": "REVIEWED"}
    assert status(masks, verify=True).review.check.ok
    with pytest.raises(UserError, match="reason is 'no reason'"):
        segfw.reject(masks, ["other"], reason="no reason")
    assert (read_mask(masks / "other.nii.gz").array[0] == drawn()).all()
    assert ReviewStore.open(masks, Clock()).log.verify().ok

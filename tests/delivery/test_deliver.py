"""Signed masks leave the review as they were signed, and nothing else does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from builders.series import OBLIQUE, write_series
from builders.under_review import ADA, LABELS, blocks, review, sign, write_drafts
from builders.written import masks_in_segmentation, masks_in_structure_set
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.delivery import deliver_cases as deliver_module
from segfw.delivery.deliver_cases import check_delivery, deliver_cases
from segfw.delivery.deliver_options import DeliverOptions
from segfw.delivery.delivered_copies import superseded_copies
from segfw.delivery.drawn_by import drawn_by
from segfw.images.formats import read_mask, read_volume, write_labels
from segfw.interop import write_seg_nrrd as seg_nrrd
from segfw.interop.reference_series import read_reference
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file
from segfw.standing.of_delivery import delivery_standing

SHAPE = (4, 7, 11)
ALL_FORMATS = ("nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids")
SERIES = {
    "axial": {},
    "oblique": {"axes": OBLIQUE, "shuffled": 1},
    "towards the feet": {"step_mm": [0, 0, -3.0], "shuffled": 2},
}
# RAS affines of arrays whose axes run otherwise, with unequal steps
AFFINES = {
    "LPS": [[-0.5, 0, 0, 9], [0, -0.75, 0, 8], [0, 0, 3, -7]],
    "PIR": [[0, 0, 3, 1], [-0.5, 0, 0, 2], [0, -0.75, 0, 3]],
    "oblique": [[0.4, -0.36, 1.44, 5], [0.3, 0.48, -1.92, -6], [0, 0.45, 1.8, 7]],
}


def dicom_store(tmp_path: Path, kind: str = "axial") -> ReviewStore:
    """Two cases of DICOM series, in folders by their names."""
    images = {}
    for number, case in enumerate(("case_a", "case_b"), start=1):
        content = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        images[case] = write_series(tmp_path / "scans" / case, content, number=number, **SERIES[kind])
    return write_drafts(tmp_path / "masks", images, dict.fromkeys(images, blocks(SHAPE)))


def edited(store: ReviewStore, case: str) -> np.ndarray:
    """The newest mask with one voxel of the liver taken away, and one of the kidney added."""
    values = store.read(case).array[0].copy()
    values[1, 1, 3] = 0
    values[2, 0, 0] = 2
    return values


def deliver(store: ReviewStore, output: Path, **options: object):
    return deliver_cases(store, output, DeliverOptions(**options), ADA)


@pytest.mark.parametrize("kind", SERIES)
def test_every_format_holds_what_was_signed(kind, tmp_path):
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")
    store = dicom_store(tmp_path, kind)
    sha256 = sign(store, "case_a", edited=edited(store, "case_a"))
    sign(store, "case_b")
    out = tmp_path / "out"
    delivery = deliver(store, out, formats=ALL_FORMATS, sr=True)

    signed = store.read("case_a", 1)
    values = signed.array[0]
    assert values[2, 0, 0] == 2
    bids = out / "bids" / "sub-casea" / "anat" / "sub-casea_desc-signed_dseg.nii.gz"
    for file in (out / "case_a.nii.gz", bids, out / "seg-nrrd" / "case_a.seg.nrrd"):
        assert file.is_file(), sorted(str(each) for each in out.rglob("*"))
        read = read_mask(file)
        np.testing.assert_array_equal(read.array[0], values)
        np.testing.assert_allclose(read.geometry.matrix, signed.geometry.matrix, atol=1e-5)
    series = tmp_path / "scans" / "case_a"
    expected = {name: values == value for name, value in zip(LABELS.names[1:], LABELS.values[1:])}
    in_structures = masks_in_structure_set(out / "rtstruct" / "case_a.dcm", series)
    in_segments = masks_in_segmentation(out / "dicom-seg" / "case_a.dcm", read_reference(series).positions_mm)
    for found in (in_structures, in_segments):
        assert found.keys() == expected.keys()
        assert all((found[name] == expected[name]).all() for name in expected)

    # Who stands for it, in every format
    logged = next(event for event in store.log.events() if event.event == "deliver" and event.case == "case_a")
    evidence = f"version 1, sha256 {sha256}; review log of {logged.n} events, its last sha256 {logged.sha256}"
    for place in ("rtstruct", "dicom-seg", "sr"):
        dataset = pydicom.dcmread(out / place / "case_a.dcm")
        assert dataset.SeriesDescription == "SIGNED by Ada King: segfw 3d_fullres"
        assert dataset.ContributingEquipmentSequence[-1].ContributionDescription.endswith(evidence)
    assert pydicom.dcmread(out / "rtstruct" / "case_a.dcm").ReviewerName == "Ada King"
    kinds = [item.SegmentAlgorithmType for item in pydicom.dcmread(out / "dicom-seg" / "case_a.dcm").SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "SEMIAUTOMATIC", "AUTOMATIC"]
    kinds = [item.SegmentAlgorithmType for item in pydicom.dcmread(out / "dicom-seg" / "case_b.dcm").SegmentSequence]
    assert kinds == ["AUTOMATIC", "AUTOMATIC", "AUTOMATIC"]
    about = json.loads((out / "case_a.json").read_text(encoding="utf-8"))
    assert (about["Signature"]["name"], about["Signature"]["user"]) == ("Ada King", "ada")
    assert about["Version"]["sha256"] == sha256
    descrip = nibabel.load(out / "case_a.nii.gz").header["descrip"].item().decode()
    assert descrip.startswith(f"SIGNED by Ada King; v1 {sha256[:12]}; segfw 3d_fullres")
    assert json.loads((out / "bids" / "dataset_description.json").read_text())["Name"] == "Segmentations, signed"

    # The list
    assert {each.file for each in delivery.files} == {
        each["file"] for each in json.loads((out / "delivered.json").read_text(encoding="utf-8"))["files"]
    }
    assert len((out / "delivered.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(delivery.files)
    assert check_delivery(store, out).problems == ()


@pytest.mark.parametrize("kind", AFFINES)
def test_orders_of_axes_stay_as_they_were_signed(kind, tmp_path):
    matrix = np.vstack([AFFINES[kind], [0, 0, 0, 1]])
    (tmp_path / "scans").mkdir()
    image = nibabel.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE[::-1]), matrix)
    nibabel.save(image, tmp_path / "scans" / "case_a.nii.gz")
    store = write_drafts(
        tmp_path / "masks", {"case_a": tmp_path / "scans" / "case_a.nii.gz"}, {"case_a": blocks(SHAPE)}
    )
    sign(store, "case_a", edited=edited(store, "case_a"))
    deliver(store, tmp_path / "out", formats=("nifti", "seg.nrrd", "bids"))
    draft = blocks(SHAPE)
    draft[1, 1, 3] = 0
    draft[2, 0, 0] = 2
    written = nibabel.load(tmp_path / "out" / "case_a.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), draft.transpose(2, 1, 0))
    np.testing.assert_allclose(written.affine, matrix, atol=1e-6)
    for file in ("seg-nrrd/case_a.seg.nrrd", "bids/sub-casea/anat/sub-casea_desc-signed_dseg.nii.gz"):
        read = read_mask(tmp_path / "out" / file)
        np.testing.assert_array_equal(read.array[0], draft)
        np.testing.assert_allclose(read.geometry.matrix, matrix[:, [2, 1, 0, 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("DRAFT", "case_a: is DRAFT: nobody has reviewed it; review and sign it first, or deliver it as a draft with"),
        ("IN_REVIEW", "case_a: is IN_REVIEW: its review is not finished; finish and sign it first, or deliver it as"),
        (
            "REVIEWED",
            "case_a: is REVIEWED: it is reviewed and not signed; sign it first, or deliver it as a draft with",
        ),
        ("REJECTED", "case_a: is REJECTED: it was rejected, so no mask of it is delivered; predict it anew and review"),
    ],
)
def test_what_is_not_signed_is_refused(state, said, tmp_path):
    store = dicom_store(tmp_path)
    if state == "IN_REVIEW":
        store.open_case("case_a", ADA)
    if state == "REVIEWED":
        review(store, "case_a")
    if state == "REJECTED":
        store.reject("case_a", ADA, "image-bad")
    with pytest.raises(UserError, match=said):
        deliver(store, tmp_path / "out", cases=("case_a",))
    with pytest.raises(UserError, match="holds no signed mask .* others are not delivered"):
        deliver(store, tmp_path / "out")
    if state == "REJECTED":
        with pytest.raises(UserError, match="predict it anew and review that$"):
            deliver(store, tmp_path / "out", cases=("case_a",), research=True)
    assert not (tmp_path / "out").exists()


def test_all_that_are_signed_are_delivered_and_the_others_are_counted(tmp_path, capsys):
    store = dicom_store(tmp_path)
    sign(store, "case_b")
    assert main(["deliver", str(tmp_path / "masks"), str(tmp_path / "out"), "--user", "ada"]) == 0
    said = capsys.readouterr().out
    assert "case_b: version 1 signed by Ada King for review as nifti" in said
    assert "not delivered, because they are not signed: 1 DRAFT; sign them, or see --research" in said
    assert (tmp_path / "out" / "case_b.nii.gz").is_file()
    assert not (tmp_path / "out" / "case_a.nii.gz").exists()
    store.reject("case_a", ADA, "image-bad")
    assert deliver(store, tmp_path / "out").gate.text() == "1 case rejected, which no option delivers"


def test_drafts_for_research_say_so_in_name_header_and_log(tmp_path):
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")
    store = dicom_store(tmp_path)
    review(store, "case_b")
    out = tmp_path / "out"
    delivery = deliver(store, out, formats=ALL_FORMATS, sr=True, research=True)
    standing = delivery_standing(out)
    assert (standing.cases, standing.files, standing.drafts) == (2, len(delivery.files), ("case_a", "case_b"))
    for each in delivery.files:
        assert "DRAFT-for-research" in each.file or "_desc-research_" in each.file
        assert (out / each.file).is_file()
    titles = {
        "case_a": "DRAFT, not reviewed; for research only",
        "case_b": "DRAFT, reviewed but not signed; for research",
    }
    for case, title in titles.items():
        name = f"{case}_DRAFT-for-research"
        for place in ("rtstruct", "dicom-seg", "sr"):
            assert pydicom.dcmread(out / place / f"{name}.dcm").SeriesDescription.startswith(title)
        assert pydicom.dcmread(out / "rtstruct" / f"{name}.dcm").ApprovalStatus == "UNAPPROVED"
        assert pydicom.dcmread(out / "sr" / f"{name}.dcm").VerificationFlag == "UNVERIFIED"
        assert nibabel.load(out / f"{name}.nii.gz").header["descrip"].item().decode().startswith(title)
        beside = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert beside["Review"].startswith(title)
        assert beside["Signature"] is None
        header = (out / "seg-nrrd" / f"{name}.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
        assert f"Status:={title}" in header
    bids = json.loads((out / "bids/sub-casea/anat/sub-casea_desc-research_dseg.json").read_text(encoding="utf-8"))
    assert bids["Review"] == "DRAFT, not reviewed; for research only"
    logged = [event for event in store.log.events() if event.event == "deliver-research"]
    assert [(event.case, event.user) for event in logged] == [("case_a", "ada"), ("case_b", "ada")]
    assert store.log.verify().ok


def test_what_was_edited_after_it_was_signed_is_refused_and_others_are_delivered(tmp_path):
    store = dicom_store(tmp_path)
    for case in ("case_a", "case_b"):
        sign(store, case)
    path = version_file(store.folder, "case_a", 1)
    volume = read_mask(path)
    values = volume.array[0].copy()
    values[3, 6, 10] = 2
    write_labels(path, values, volume.geometry)
    for options in ({}, {"research": True}):
        with pytest.raises(CasesFailed, match=r"case_a: was changed after it was signed \(mask\); amend it with a"):
            deliver(ReviewStore.open(store.folder), tmp_path / "out", **options)
        assert not list((tmp_path / "out").glob("case_a*"))
        assert (tmp_path / "out" / "case_b.nii.gz").is_file()


def test_a_changed_image_or_log_blocks_delivery(tmp_path):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    write_series(tmp_path / "scans" / "case_a", np.ones(SHAPE), number=1)
    with pytest.raises(CasesFailed, match=r"case_a: was changed after it was signed \(image\)"):
        deliver(store, tmp_path / "out")
    log = store.log.path
    log.write_bytes(log.read_bytes().replace(b"Ada King", b"Eve King"))
    with pytest.raises(UserError, match=r"log\.jsonl"):
        deliver(ReviewStore.open(store.folder), tmp_path / "out")
    assert not list((tmp_path / "out").glob("case_a*"))


def test_a_mask_whose_image_is_gone_leaves_only_where_that_is_asked_for(tmp_path, capsys):
    """It was signed on these voxels, and nobody can tell any more on which."""
    store = dicom_store(tmp_path)
    for case in ("case_a", "case_b"):
        sign(store, case)
    gone = tmp_path / "archive"
    (tmp_path / "scans" / "case_a").rename(gone)
    asked = ["deliver", str(store.folder), str(tmp_path / "out"), "--user", "ada"]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert "case_a: the image on which it was signed is not found any more; put it back, or say where it lies" in said
    assert not list((tmp_path / "out").glob("case_a*"))
    assert (tmp_path / "out" / "case_b.nii.gz").is_file()
    assert main(["status", str(store.folder), "--verify"]) == 0  # which is no change
    assert "not verified: the images of case_a are not found, on which they were signed" in capsys.readouterr().out

    assert main([*asked, "--without-image"]) == 0
    files = {each["file"]: each for each in json.loads((tmp_path / "out" / "delivered.json").read_text())["files"]}
    assert (files["case_a.nii.gz"]["image_not_found"], files["case_b.nii.gz"]["image_not_found"]) == (True, False)
    logged = [event for event in ReviewStore.open(store.folder).log.events() if event.event == "deliver"]
    assert [json.loads(event.reason)["image_not_found"] for event in logged if event.case == "case_a"] == [True]
    # Back in its place it is compared again, also by those who do not ask
    gone.rename(tmp_path / "scans" / "case_a")
    assert main(asked) == 0
    write_series(tmp_path / "scans" / "case_a", np.ones(SHAPE), number=1)
    assert main([*asked, "--without-image"]) == 1
    assert "case_a: was changed after it was signed (image)" in capsys.readouterr().err


def test_nobody_signs_without_the_image_that_was_reviewed(tmp_path):
    store = dicom_store(tmp_path)
    sha256 = review(store, "case_a")
    (tmp_path / "scans" / "case_a").rename(tmp_path / "archive")
    store = ReviewStore.open(store.folder)
    with pytest.raises(UserError, match="case_a: the image on which it was reviewed is not found any more; put it"):
        store.sign("case_a", ADA, name="Ada King", meaning="review", version_sha256=sha256)
    assert store.standing("case_a").state == "REVIEWED"


def test_cases_that_one_name_of_bids_would_stand_for_are_told_apart_or_refused(tmp_path):
    """Subjects keep letters and digits alone: case_a and casea are both sub-casea."""
    images = {}
    for number, case in enumerate(("case_a", "casea"), start=1):
        images[case] = write_series(tmp_path / "scans" / case, np.full(SHAPE, number), number=number)
    store = write_drafts(tmp_path / "masks", images, dict.fromkeys(images, blocks(SHAPE)))
    for case in images:
        sign(store, case)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="^case_a and casea would both be bids/sub-casea/anat/.*; rename one"):
        deliver(store, out, formats=("bids",))
    assert not out.exists()
    deliver(store, out, formats=("bids",), cases=("case_a",))
    before = (out / "delivered.json").read_bytes()
    with pytest.raises(
        UserError, match="^case_a and casea would both be .*out holds that of case_a already: give casea"
    ):
        deliver(store, out, formats=("bids",), cases=("casea",))
    assert (out / "delivered.json").read_bytes() == before
    deliver(store, out, formats=("bids",), cases=("case_a",))  # itself again
    deliver(store, tmp_path / "another", formats=("bids",), cases=("casea",))


@pytest.mark.parametrize("is_signed_again", [False, True])
def test_a_signature_taken_back_while_others_are_delivered_does_not_leave(is_signed_again, tmp_path, monkeypatch):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    sign(store, "case_b")
    write_about = deliver_module._write_about

    def amended_meanwhile(*given):
        write_about(*given)
        store.amend("case_b", ADA, "looked at the wrong patient")
        if is_signed_again:
            sha256 = store.standing("case_b").sha256
            store.sign("case_b", ADA, name="Ada Lovelace", meaning="review", version_sha256=sha256)

    monkeypatch.setattr(deliver_module, "_write_about", amended_meanwhile)
    with pytest.raises(CasesFailed, match="case_b: is .* when the delivery began; deliver it again"):
        deliver(store, tmp_path / "out", formats=("nifti",))
    assert (tmp_path / "out" / "case_a.nii.gz").is_file()
    assert not (tmp_path / "out" / "case_b.nii.gz").exists()
    assert [event.case for event in store.log.events() if event.event == "deliver"] == ["case_a"]


def test_copies_of_an_amended_case_are_listed_as_superseded(tmp_path, capsys):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    deliver(store, tmp_path / "first", formats=("nifti", "seg.nrrd"))
    assert superseded_copies(store.log.path) == []
    store.amend("case_a", ADA, "missed a lesion")
    copies = superseded_copies(store.log.path)
    assert [(copy.case, copy.format, copy.version) for copy in copies] == [
        ("case_a", "nifti", 1),
        ("case_a", "seg.nrrd", 1),
    ]
    assert "the signature was taken back at" in copies[0].superseded
    assert "missed a lesion" in copies[0].superseded
    assert main(["status", str(store.folder)]) == 0
    told = capsys.readouterr().out
    assert "delivered copies that no longer hold (2); call them back or replace them:" in told
    assert f"case_a: version 1 as seg.nrrd in {(tmp_path / 'first').as_posix()}" in told
    problems = check_delivery(store, tmp_path / "first").problems
    assert len(problems) == 3  # with the text beside the NIfTI
    assert all("no longer holds, because the signature was taken back" in each for each in problems)

    # Signed again, and delivered to another folder and then to the first
    sign(store, "case_a", edited=edited(store, "case_a"))
    delivery = deliver(store, tmp_path / "second")
    assert {copy.place for copy in delivery.superseded} == {(tmp_path / "first").as_posix()}
    listed = json.loads((tmp_path / "second" / "delivered.json").read_text(encoding="utf-8"))
    assert [copy["format"] for copy in listed["superseded_elsewhere"]] == ["nifti", "seg.nrrd"]
    assert check_delivery(store, tmp_path / "second").problems == ()
    assert main(["deliver", str(tmp_path / "masks"), str(tmp_path / "first"), "--user", "ada"]) == 0
    assert "earlier copies that no longer hold" in capsys.readouterr().out
    assert read_mask(tmp_path / "first" / "case_a.nii.gz").array[0][2, 0, 0] == 2
    rows = {each["file"]: each for each in json.loads((tmp_path / "first" / "delivered.json").read_text())["files"]}
    assert rows["case_a.nii.gz"]["version"] == 2
    assert rows["case_a.nii.gz"]["superseded"] == ""
    assert main(["status", str(tmp_path / "first")]) == 0
    told = capsys.readouterr().out
    assert "first: 3 files that segfw deliver wrote, 1 case signed" in told
    assert "no longer holds: seg-nrrd/case_a.seg.nrrd, because the signature was taken back" in told
    assert "missed a lesion" in rows["seg-nrrd/case_a.seg.nrrd"]["superseded"]
    assert main(["deliver", str(tmp_path / "masks"), str(tmp_path / "first"), "--check"]) == 1
    assert "seg-nrrd/case_a.seg.nrrd: no longer holds" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [OSError, KeyboardInterrupt])
def test_a_copy_stays_known_where_a_later_delivery_over_it_fails_or_is_killed(ending, tmp_path, monkeypatch):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    out = tmp_path / "out"
    deliver(store, out)

    def broken(*_, **__):
        raise ending("not written")

    with monkeypatch.context() as patched:
        patched.setattr(deliver_module, "_write", broken)
        if ending is KeyboardInterrupt:  # a killed process says nothing more
            patched.setattr(deliver_module, "_say_failed", lambda *_: None)
        with pytest.raises((CasesFailed, KeyboardInterrupt)):
            deliver(store, out)
    store.amend("case_a", ADA, "missed a lesion")
    assert (out / "case_a.nii.gz").is_file()
    assert [copy.format for copy in superseded_copies(store.log.path)] == ["nifti"]
    problems = check_delivery(store, out).problems
    assert len(problems) == 2  # with the text beside it
    assert all("the signature was taken back" in each for each in problems)


def test_a_draft_for_research_is_superseded_by_the_signed_mask(tmp_path):
    store = dicom_store(tmp_path)
    deliver(store, tmp_path / "out", research=True, cases=("case_a",))
    assert superseded_copies(store.log.path) == []
    sign(store, "case_a")
    deliver(store, tmp_path / "out")
    (copy,) = superseded_copies(store.log.path)
    assert copy.is_research
    assert copy.superseded.startswith("it was signed at")


def test_damage_while_a_file_is_written_is_caught_and_nothing_of_the_case_is_left(tmp_path, monkeypatch):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    whole = seg_nrrd._compressed

    def damaged(voxels_lzyx):
        spoilt = voxels_lzyx.copy()
        spoilt[0, 0, 0, 0] += 1
        return whole(spoilt)

    monkeypatch.setattr(seg_nrrd, "_compressed", damaged)
    with pytest.raises(CasesFailed, match=r"case_a\.seg\.nrrd: would hold other voxels than the mask"):
        deliver(store, tmp_path / "out", formats=("bids", "nifti", "seg.nrrd"))
    assert not [path for path in (tmp_path / "out").rglob("*case*a*") if path.is_file()]
    assert json.loads((tmp_path / "out" / "delivered.json").read_text())["files"] == []
    assert [event.event for event in store.log.events()][-2:] == ["deliver", "deliver-failed"]
    assert superseded_copies(store.log.path) == []
    monkeypatch.undo()
    deliver(store, tmp_path / "out", formats=("seg.nrrd",))
    assert check_delivery(store, tmp_path / "out").problems == ()


def test_damage_after_the_delivery_is_found(tmp_path):
    store = dicom_store(tmp_path)
    for case in ("case_a", "case_b"):
        sign(store, case)
    deliver(store, tmp_path / "out")
    file = tmp_path / "out" / "case_a.nii.gz"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    (tmp_path / "out" / "case_b.nii.gz").unlink()
    assert check_delivery(store, tmp_path / "out").problems == (
        f"{file}: was changed after it was delivered; deliver case_a again",
        f"{tmp_path / 'out' / 'case_b.nii.gz'}: is gone; deliver case_b again",
    )


def test_two_reviews_are_not_delivered_into_one_folder(tmp_path):
    first = dicom_store(tmp_path / "one")
    second = dicom_store(tmp_path / "two")
    for store in (first, second):
        sign(store, "case_a")
    deliver(first, tmp_path / "out")
    with pytest.raises(UserError, match="out: holds masks of another review; give another folder"):
        deliver(second, tmp_path / "out")


def test_formats_that_refer_to_a_series_take_it_from_elsewhere(tmp_path):
    images = tmp_path / "scans"
    series = write_series(tmp_path / "dicom" / "case_a", np.ones(SHAPE), number=1)
    images.mkdir()
    write_labels(images / "case_a.nii.gz", np.ones(SHAPE, np.uint8), read_volume(series).geometry)
    store = write_drafts(tmp_path / "masks", {"case_a": images / "case_a.nii.gz"}, {"case_a": blocks(SHAPE)})
    sign(store, "case_a")
    with pytest.raises(UserError, match="case_a: rtstruct refers to the slices of a DICOM series, and its image"):
        deliver(store, tmp_path / "out", formats=("rtstruct",))
    assert not (tmp_path / "out").exists()
    for number, given in enumerate((series, series.parent)):
        out = tmp_path / f"out {number}"
        deliver(store, out, formats=("rtstruct",), dicom=given)
        found = masks_in_structure_set(out / "rtstruct" / "case_a.dcm", series)
        assert (found["liver"] == (blocks(SHAPE) == 1)).all()
    with pytest.raises(UserError, match="--dicom .*nowhere: no such folder"):
        deliver(store, tmp_path / "out", formats=("rtstruct",), dicom=tmp_path / "nowhere")


def test_who_drew_a_structure_is_told_by_all_versions_on_the_way(tmp_path):
    store = dicom_store(tmp_path)
    store.open_case("case_a", ADA)
    first = store.read("case_a").array[0].copy()
    first[1, 1, 3] = 0
    store.save("case_a", ADA, first, base=0, origin="edited", tool="test")
    second = first.copy()
    second[3, 0, 0] = 7
    store.save("case_a", ADA, second, base=1, origin="candidate", tool="test")
    versions = store.versions("case_a")
    automatic = dict.fromkeys(LABELS.names[1:], "AUTOMATIC")
    assert drawn_by(LABELS, versions, 0) == automatic
    assert drawn_by(LABELS, versions, 1) == automatic | {"liver": "SEMIAUTOMATIC"}
    assert drawn_by(LABELS, versions, 2) == automatic | {"liver": "SEMIAUTOMATIC", "never there": "SEMIAUTOMATIC"}
    store.save("case_a", ADA, second * 0, base=2, origin="blank", tool="test")
    assert set(drawn_by(LABELS, store.versions("case_a"), 3).values()) == {"MANUAL"}


def test_delivery_needs_no_torch(tmp_path):
    store = dicom_store(tmp_path)
    sign(store, "case_a")
    code = (
        "import sys; sys.modules['torch'] = None; from segfw.cli import main; "
        f"code = main(['deliver', {str(store.folder)!r}, {str(tmp_path / 'out')!r}, '--as', 'nifti', 'rtstruct']); "
        "sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    assert (tmp_path / "out" / "rtstruct" / "case_a.dcm").is_file()

"""No result replaces a file of another kind, and none lies in a folder that is only read."""

from pathlib import Path

import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from builders.models import small_model
from segfw.base.records import UserError
from segfw.verbs.check import check_dataset
from segfw.verbs.evaluate import evaluate
from segfw.verbs.export import export_model
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    for number in range(2):
        image, mask = blocks_case(number)
        write_nifti(folder / "images" / f"c{number}.nii.gz", image)
        write_nifti(folder / "labels" / f"c{number}.nii.gz", mask)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_replaces_nothing_but_its_own_files(raw, tmp_path):
    files = {
        "mask.nii.gz": (raw / "labels" / "c0.nii.gz").read_bytes(),
        "dataset.json": b'{"labels": {"background": 0}}',
        "list.json": b"[1, 2]",
        "notes.html": b"our notes, no page",
        "patients.csv": b"id,age\n1,50\n",
        "other_summary.csv": b"id,age\n1,50\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    for option, name in (
        ("report", "mask.nii.gz"),
        ("report", "dataset.json"),
        ("report", "report"),
        ("report", "notes.html"),
        ("output", "dataset.json"),
        ("output", "list.json"),
        ("output", "patients.json"),  # whose table would be patients.csv
        ("output", "other.json"),
    ):
        with pytest.raises(UserError, match=r"does not end in .html|is there already and not written by this command"):
            evaluate(raw / "labels", raw / "labels", **{option: tmp_path / name})
    for option, name in (("report", "r.html"), ("output", "s.json")):
        for inside in ("labels", "labels/deep/er", "images"):
            with pytest.raises(UserError, match="lies inside .*, which is only read; give a place outside of it"):
                evaluate(raw / "labels", raw / "labels", images=raw / "images", **{option: raw / inside / name})
    assert contents(tmp_path) == before
    for _ in range(2):  # its own are replaced
        evaluate(raw / "labels", raw / "labels", output=tmp_path / "s.json", report=tmp_path / "r.html", surface=False)
    assert (tmp_path / "s_summary.csv").is_file()


def test_masks_go_into_no_folder_of_others(raw, tmp_path):
    model = small_model(tmp_path / "model")
    before = contents(tmp_path)
    for output in (raw / "images" / "masks", model / "runs", model / "runs" / "masks"):
        with pytest.raises(UserError, match="which is only read"):
            predict(model, raw / "images", output, device="cpu")
    write_nifti(tmp_path / "new" / "another.nii.gz", blocks_case(7)[0])
    for output in (raw / "labels", raw / "images"):  # of other names, so that nothing would be replaced, but mixed
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"holds c0.nii.gz and is no folder of segfw's masks"):
                predict(model, tmp_path / "new", output, device="cpu", overwrite=overwrite)
    (tmp_path / "new" / "another.nii.gz").unlink()
    assert contents(tmp_path) == before


def test_no_verb_writes_into_what_it_reads(raw, tmp_path):
    model = small_model(tmp_path / "model")
    (tmp_path / "scans.zip").write_bytes(b"PK\x05\x06" + bytes(18))  # a zip, but no model
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "check.json").write_text("[]")
    before = contents(tmp_path)
    inside = "which is only read"
    for call, message in (
        (lambda: check_dataset(raw, output=raw), inside),
        (lambda: check_dataset(raw, output=raw / "labels" / "report"), inside),
        (lambda: check_dataset(raw, output=tmp_path / "report"), "is there already and not written by this command"),
        (lambda: plan_and_preprocess(raw, raw / "work", device="cpu"), inside),
        (lambda: export_model(model, model / "runs" / "model.zip"), inside),
        (lambda: export_model(model, tmp_path / "scans.zip", overwrite=True), "is there already and not written"),
        (lambda: export_nnunet(model, model / "runs" / "nnunet"), inside),
        (lambda: import_nnunet(raw, raw / "model"), inside),
    ):
        with pytest.raises(UserError, match=message):
            call()
    assert contents(tmp_path) == before
    for _ in range(2):
        export_model(model, tmp_path / "model.zip", overwrite=True)
    assert np.all([name in contents(tmp_path) for name in before])

"""Zips of nnU-Net's models: taken as folders are, never unpacked to elsewhere, and no larger than they may be."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest

from builders.nnunet import MODEL, Runs, plans, refusal, trained_folder
from segfw.base.records import UserError
from segfw.cli import main
from segfw.model.load import load_model
from segfw.verbs.import_nnunet import import_nnunet


def test_an_exported_zip(tmp_path):
    folder = trained_folder(tmp_path / "results" / "Dataset007_made_up")
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(tmp_path / "results"))
    assert main(["import-nnunet", str(archive), str(tmp_path / "out")]) == 0
    assert list(load_model(tmp_path / "out").weights) == ["0"]
    assert {path.name for path in tmp_path.iterdir()} == {"results", "model.zip", "out"}


@pytest.mark.parametrize("name", ["../outside.pth", "/absolute/plans.json", "a/../../plans.json", "C:\\x\\plans.json"])
def test_a_zip_that_points_outside_is_refused(tmp_path, name):
    archive = tmp_path / "inner" / "model.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "{}")
    with pytest.raises(UserError, match="points outside of it"):
        import_nnunet(archive, tmp_path / "inner" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "model.zip"]


def test_a_damaged_zip_is_refused(tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/plans.json", json.dumps(plans()))
        start = file.infolist()[0].header_offset + 30 + len("model/plans.json")
    content = bytearray(archive.read_bytes())
    content[start] = 0xFF  # a kind of block that there is not
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"model.zip: cannot be unpacked \(.*invalid block type.*\); copy or export it"):
        import_nnunet(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_a_link_in_a_zip_is_refused_where_it_would_be_unpacked(tmp_path, capsys):
    trained_folder(tmp_path / "results")
    for name, is_wanted in ((f"{MODEL}/latest.png", False), ("other/plans.json", True)):
        member = zipfile.ZipInfo(name)
        member.external_attr = 0o120777 << 16
        archive = zipped(tmp_path / "results", tmp_path / "model.zip", ((member, b"/etc/passwd"),))
        if is_wanted:
            assert "'other/plans.json' is a link" in refusal(archive, tmp_path / "new", capsys)
        else:
            import_nnunet(archive, tmp_path / "out")


def test_a_zip_of_two_trainings_is_told_to_be_unpacked(tmp_path, capsys):
    for name in ("a", "b"):
        trained_folder(tmp_path / "results" / name)
    archive = zipped(tmp_path / "results", tmp_path / "model.zip")
    printed = refusal(archive, tmp_path / "out", capsys)
    assert "3d_fullres is trained more than once" in printed
    assert "give one of them, of a zip after unpacking it" in printed


def zipped(folder: Path, archive: Path, more: tuple[tuple[str, bytes], ...] = ()) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
        for name, content in more:
            file.writestr(name, content)
    return archive


MORE = [
    (f"{MODEL}/plans.json", b"{}", "more than once"),
    (f"{MODEL.lower()}/plans.json", b"{}", "more than once"),
    ("x" * 300 + "/plans.json", b"{}", "cannot be unpacked"),
    (f"{MODEL}/plans.json/plans.json", b"{}", "cannot be unpacked"),
    ("x/plans.json", b" " * 20_000_000, "unpacks from"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("name", "content", "reason"), MORE)
def test_a_zip_that_is_made_to_harm_is_refused(tmp_path, capsys, name, content, reason):
    trained_folder(tmp_path / "results")
    archive = zipped(tmp_path / "results", tmp_path / "model.zip", ((name, content),))
    assert reason in refusal(archive, tmp_path / "out", capsys)


def test_an_encrypted_zip_is_refused(tmp_path, capsys):
    trained_folder(tmp_path / "results")
    archive = zipped(tmp_path / "results", tmp_path / "model.zip")
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        for start in range(len(content)):
            if content.startswith(signature, start):
                content[start + flags] |= 1
    archive.write_bytes(content)
    assert "is encrypted; unpack it and give the folder" in refusal(archive, tmp_path / "out", capsys)


def test_messages_name_the_zip_and_not_where_it_was_unpacked(tmp_path, capsys):
    written = plans() | {"image_reader_writer": "Mine"}
    trained_folder(tmp_path / "results", written=written)
    archive = zipped(tmp_path / "results", tmp_path / "model.zip")
    assert f"model.zip/{MODEL}/plans.json: image_reader" in refusal(archive, tmp_path / "out", capsys)


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_model_of_version_1_is_refused_by_name_and_not_opened(tmp_path, capsys, is_zip):
    folder = tmp_path / "Task004_Hippocampus" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    (folder / "fold_0" / "model_final_checkpoint.model").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    source = zipped(folder.parent, tmp_path / "old.zip") if is_zip else folder
    assert "is a model of nnU-Net v1 (model_final_checkpoint.model)" in refusal(source, tmp_path / "out", capsys)
    assert not (tmp_path / "ran").exists()

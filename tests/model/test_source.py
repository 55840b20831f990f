"""A model file is opened once, and refused in one sentence if it is damaged, lies or holds anything but a model."""

import json
import sys
import zipfile

import pytest

from builders.models import WEIGHTS, cascade_model, members_of
from segfw.base.records import UserError
from segfw.model.load import load_model
from segfw.model.source import ModelSource, split_model_path, trained_folds
from segfw.verbs.export import export_model


def write(file, members: dict[str, bytes] | list, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return file


def refused(file, sentence: str):
    with pytest.raises(UserError, match=sentence) as error:
        load_model(file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


class Opened:
    """Counts how often a file is opened, by whatever code: Python tells of every opening. A hook stays for ever."""

    counts: dict[str, int] = {}

    @classmethod
    def note(cls, event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]) in cls.counts:
            cls.counts[str(arguments[0])] += 1


sys.addaudithook(Opened.note)


def test_a_model_file_is_opened_once_a_load_and_a_cascade_too(tmp_path):
    file = tmp_path / "model.zip"
    export_model(cascade_model(tmp_path / "work"), file, configurations=["3d_cascade_fullres"])
    Opened.counts[str(file)] = 0
    model = load_model(file)
    assert (len(model.weights), len(model.previous.weights)) == (1, 2)
    assert Opened.counts[str(file)] == 1
    trained_folds(file, "3d_lowres")
    assert Opened.counts[str(file)] == 2


def test_the_same_names_are_read_from_a_folder_and_a_file(tmp_path, packed):
    found = []
    for path in (tmp_path / "work", packed):
        with ModelSource.open(path) as source:
            assert [source.has(name) for name in ("plan.json", WEIGHTS, "selection.json")] == [True, True, False]
            assert source.read_if_there("selection.json") is None
            assert source.trained_folds("3d_fullres") == ["0"]
            assert source.trained_folds("2d") == []
            assert source.weight_names("3d_fullres") == {"0": WEIGHTS}
            found.append(source.plan().configurations["3d_fullres"].model_copy(update={"estimate": None}))
    assert found[0] == found[1]
    assert trained_folds(tmp_path / "nowhere", "3d_fullres") == []


def test_a_path_that_leads_into_a_model_file(packed):
    assert split_model_path(packed / WEIGHTS) == (packed, WEIGHTS)
    assert split_model_path(packed / "runs" / "x.py") is None
    assert split_model_path(packed) is None


def test_names_are_checked_before_zipfile_follows_them(packed, monkeypatch):
    """Pythons before 3.11.10 and 3.12.6 look for the parents of '//plan.json' for ever (CVE-2024-8088)."""

    def never(*arguments: object) -> None:
        raise AssertionError("zipfile.Path is made")

    file = write(packed.with_name("lying.zip"), members_of(packed) | {"//plan.json": b"x"})
    monkeypatch.setattr(zipfile, "Path", never)
    refused(file, "which no model file does; it was not made by segfw")
    with pytest.raises(AssertionError, match=r"zipfile.Path is made"):  # of a whole one
        load_model(packed)


def test_a_damaged_member_is_named(packed):
    content = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        content[archive.getinfo(WEIGHTS).header_offset + 500] ^= 1
    packed.write_bytes(content)
    refused(packed, f"{WEIGHTS} cannot be read .*CRC.*; get the file again")


def test_an_altered_member_is_named_though_the_archive_is_whole(packed):
    members = members_of(packed)
    members[WEIGHTS] = members[WEIGHTS][:-1] + bytes([members[WEIGHTS][-1] ^ 1])
    refused(write(packed, members), f"{WEIGHTS} was altered or damaged; get the file again")


def test_missing_unlisted_and_unknown_members(packed):
    members = members_of(packed)
    refused(write(packed, {n: c for n, c in members.items() if n != WEIGHTS}), f"{WEIGHTS} is missing; get the file")
    refused(write(packed, members | {"selection.json": b"{}"}), "selection.json is not listed in its card")
    refused(write(packed, {"plan.json": members["plan.json"]}), "holds no model.json, so it is no model file")
    card = json.loads(members["model.json"]) | {"format": "segfw model 9"}
    refused(write(packed, members | {"model.json": json.dumps(card).encode()}), "field 'format'")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "runs/../../x/fold_0/weights.safetensors",
        "runs/3d_fullres/fold_../weights.safetensors",
        "C:\\evil.json",
        "runs/3d_fullres/fold_0/code.py",
        "runs/3d_fullres/fold_0/weights.pt",
        "plan.json\n",
        "model.json/",
        "//",
        "//plan.json",
        "plan.json//x",
    ],
)
def test_names_that_lead_out_or_are_of_another_kind(packed, name):
    refused(write(packed, members_of(packed) | {name: b"x"}), "which no model file does; it was not made by segfw")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice(packed):
    refused(write(packed, [*members_of(packed).items(), ("plan.json", b"{}")]), "holds plan.json twice")


def test_compressed_bombs_and_members_larger_than_the_file(packed):
    members = members_of(packed)
    bomb = write(packed.with_name("bomb.zip"), members | {"selection.json": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**6
    refused(bomb, "is compressed, which no model file's members are")
    content = packed.read_bytes()
    size = len(members[WEIGHTS])
    lying = content.replace(size.to_bytes(4, "little") * 2, (2**31 - 1).to_bytes(4, "little") * 2)
    assert lying != content
    packed.write_bytes(lying)
    refused(packed, "its members say they are larger than the file")


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_what_is_cut_off_or_no_zip(packed, length):
    packed.write_bytes(packed.read_bytes()[:length])
    refused(packed, "is no model folder and no whole model file of segfw export")

"""Every command that stands in the documents is one that segfw knows, and those of README work as they are typed."""

from __future__ import annotations

import argparse
import shutil

import pytest

from builders.data import write_raw
from documents.blocks import (
    LANGUAGES,
    ROOT,
    all_blocks,
    blocks_of,
    inline_commands,
    inline_options,
    pages,
    segfw_commands,
    words_of,
)
from documents.walk import CommandFailed, run_block, shortened
from segfw.cli import VERBS, build_parser

# Options between backticks that are of other programs: nnU-Net's, torchrun's, python -m bench's, pip's.
OF_OTHERS = {
    "docs/benchmarks.md": {
        "--at-once",
        "--cine",
        "--cores",
        "--data",
        "--draw-seeds",
        "--pairs",
        "--patients",
        "--predicted",
        "--rounds",
        "--sets",
        "--steps",
        "--works",
    },
    "docs/gpu.md": {"--computed", "--nproc-per-node"},
    "docs/howto/names.md": {"--ml"},
    "docs/from-nnunet.md": {
        "--c",
        "--chill",
        "--continue",
        "--disable",
        "--not",
        "--npz",
        "--save",
        "--val",
    },
    "docs/howto/train.md": {"--nproc-per-node"},
}


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every verb."""
    found = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices)


def test_every_block_says_what_it_is():
    places = {block.place: block.language for block in all_blocks() if block.language not in LANGUAGES}
    assert places == {}
    assert len(all_blocks()) > 30  # else this proves nothing


def test_marks_stand_before_blocks_and_reasons_for_not_running_are_sentences():
    marked = [block for block in all_blocks() if block.not_run]
    files = [block for block in all_blocks() if block.file]
    texts = [page.read_text(encoding="utf-8") for page in pages()]
    assert len(marked) == sum(text.count("<!-- not run: ") for text in texts) > 0
    assert len(files) == sum(text.count("<!-- file: ") for text in texts) > 0
    assert [block.place for block in marked if len(block.not_run.split()) < 3] == []


@pytest.mark.parametrize("place, arguments", segfw_commands())
def test_every_command_in_a_block_is_one_that_segfw_takes(place, arguments, capsys):
    code: object = 0
    try:
        build_parser().parse_args(arguments)
    except SystemExit as end:  # of --help too
        code = end.code
    assert code == 0, f"{place}: {capsys.readouterr().err}"


def test_every_command_in_the_text_has_a_verb_and_options_that_are_there(parsers):
    wrong = []
    for page, text in inline_commands():
        words = text.split()[1:]
        verb = words[0]
        if verb.startswith("--") or verb in ("VERB", "...", "help"):
            continue
        known = parsers[verb]._option_string_actions if verb in parsers else {}
        strange = [word for word in words[1:] if word.startswith("--") and word.split("=")[0] not in known]
        if verb not in parsers or strange:
            wrong.append(f"{page}: {text}")
    assert wrong == []
    assert len(inline_commands()) > 40  # else this proves nothing


def test_every_option_in_the_text_is_one_of_segfw_or_of_a_program_that_is_named_here(parsers):
    known = {option for parser in [*parsers.values(), build_parser()] for option in parser._option_string_actions}
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        assert inline_options(page) - known == OF_OTHERS.get(name, set()), name


def test_a_wrong_command_in_a_document_is_seen(tmp_path):
    page = ROOT / "README.md"
    block = next(block for block in blocks_of(page) if block.language == "sh")
    (tmp_path / "demo").mkdir()
    wrong = type(block)(page="x.md", line=3, language="sh", text="segfw info nowhere\n", not_run="")
    with pytest.raises(CommandFailed, match=r"x.md:3: CommandFailed: segfw info nowhere: ended with 2"):
        run_block(wrong, tmp_path, {})


def test_words_are_split_as_a_shell_does():
    assert words_of("segfw info work && python -m segfw train work 2d 0 > log.txt  # one") == [
        ["segfw", "info", "work"],
        ["python", "-m", "segfw", "train", "work", "2d", "0"],
        ["log.txt"],
    ]
    assert words_of(r"segfw check C:\data\raw", "powershell") == [["segfw", "check", r"C:\data\raw"]]


def test_only_the_length_of_a_command_is_changed():
    assert shortened(["run", "RAW", "WORK", "--time-budget", "2h", "--folds", "0"]) == [
        *("run", "RAW", "WORK", "--folds", "0"),
        *("--epochs", "1", "--steps-per-epoch", "2"),
    ]
    assert shortened(["predict", "WORK", "images", "masks"]) == ["predict", "WORK", "images", "masks"]


def test_the_first_ten_commands_of_readme_in_their_order(tmp_path, capsys):
    """As a stranger types them; the demo's data are the tests' small boxes, and trainings have two steps."""
    demo = tmp_path / "demo"
    data = write_raw(demo / "data", 6)
    (demo / ".made-by-segfw-demo").touch()
    for made, source in (("imagesTs", "imagesTr"), ("labelsTs", "labelsTr")):
        (data / made).mkdir()
        for path in sorted((data / source).iterdir())[:2]:
            shutil.copy(path, data / made / path.name)
    block = next(block for block in blocks_of(ROOT / "README.md") if block.text.startswith("segfw demo"))
    typed = [line.split()[1] for line in block.text.splitlines()]
    assert len(typed) == 10
    assert set(typed) <= set(VERBS)
    assert run_block(block, tmp_path, {})
    printed = capsys.readouterr()
    assert "6 cases, 0 errors" in printed.out
    assert "segfw: " not in printed.err
    for made in ("demo/report.html", "report/check.html", "work/plan.json", "report.html", "model.zip"):
        assert (tmp_path / made).is_file(), made
    masks = sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz"))
    assert len(masks) == 2
    for name in masks:
        again = (tmp_path / "masks_again" / name).read_bytes()
        assert (tmp_path / "masks" / name).read_bytes() == again

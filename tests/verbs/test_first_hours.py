"""Every wrong input that people gave in their first hours, with the sentence they get for it.

``GIVEN`` makes each input and gives it to the command line. ``QUOTED`` names the test that quotes the sentence where
the input belongs to another table: what is typed wrong, what is refused early, what lies in a folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from builders.data import blocks_case, write_nifti, write_raw
from builders.models import small_model
from builders.nnunet import trained_folder
from segfw.cli import main
from segfw.verbs.import_nnunet import import_nnunet

TESTS = Path(__file__).resolve().parents[1]


def nothing() -> None:
    """Nothing is there."""


def raw() -> None:
    """Six cases in nnU-Net's layout."""
    write_raw(Path("raw"), 6, "MR")


def model_and_images(*names: str) -> None:
    """A model of one channel, and images of the names."""
    small_model(Path("model"))
    for name in names or ("a.nii.gz",):
        write_nifti(Path("images", name), blocks_case(0)[0])


def masks() -> None:
    """A folder of one mask."""
    write_nifti(Path("masks", "a.nii.gz"), blocks_case(0)[1])


def model_file() -> None:
    """A file where a folder is needed."""
    Path("file.zip").touch()


def imported_model() -> None:
    """A model of nnU-Net's, which comes without its data."""
    import_nnunet(trained_folder(Path("theirs")), Path("model"))


def list_of_v1() -> None:
    """A list of files as nnU-Net 1 wrote it: names without the channel that the files have."""
    raw()
    listed = [{"image": f"./imagesTr/case_{n:02}.nii.gz", "label": f"./labelsTr/case_{n:02}.nii.gz"} for n in range(6)]
    description = {"modality": {"0": "MRI"}, "labels": {"0": "background", "3": "a", "7": "b"}, "training": listed}
    Path("raw", "dataset.json").write_text(json.dumps(description))
    Path("raw", "imagesTr", "case_05_0000.nii.gz").unlink()


def list_of_windows() -> None:
    """The Decathlon's list with backslashes, and one file that is not there."""
    list_of_v1()
    for path in Path("raw", "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    description = Path("raw", "dataset.json")
    description.write_text(description.read_text().replace("/", "\\\\"))


def halves() -> None:
    """Masks of which one holds 0.5."""
    mask = blocks_case(0)[1]
    write_nifti(Path("masks", "a.nii.gz"), mask)
    write_nifti(Path("halves", "a.nii.gz"), np.where(mask > 0, np.float32(0.5), np.float32(0)))


def photographs(mask: np.ndarray, ending: str = ".png") -> None:
    """Two photographs with masks."""
    for number in range(2):
        for folder in ("images", "masks"):
            Path("raw", folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (200, 90, 10 * number)).save(Path("raw", "images", f"eye{number}.png"))
        Image.fromarray(mask).save(Path("raw", "masks", f"eye{number}{ending}"))


def painted() -> None:
    """Masks in colours."""
    mask = np.zeros((20, 30, 3), np.uint8)
    mask[:2] = (255, 0, 0)
    photographs(mask)


def patients(*masks_of_p1: str) -> None:
    """One folder a patient, of which the second has no mask."""
    for patient in ("P1", "P2", "P3"):
        write_nifti(Path("raw", patient, "image.nii.gz"), blocks_case(0)[0])
    for name in masks_of_p1 or ("mask",):
        write_nifti(Path("raw", "P1", f"{name}.nii.gz"), blocks_case(0)[1])
    write_nifti(Path("raw", "P3", "mask.nii.gz"), blocks_case(2)[1])


def flat_folder() -> None:
    """Images and masks side by side, of which one is missing."""
    for name in ("P1_img", "P1_seg", "P2_img", "P2_seg", "P3_img"):
        write_nifti(Path("raw", f"{name}.nii.gz"), blocks_case(0)[1 if "seg" in name else 0])


class Given(NamedTuple):
    """An input, the command, its exit code, and what it says: all of stderr, or a line of stdout where it goes on."""

    fault: str
    make: Callable[[], object]
    typed: str
    code: int
    said: str


IMPORTED = (
    "model: is a model imported from nnU-Net, without the data that it was trained on, so that it can neither be "
    "trained nor selected from; give the work folder of segfw run or segfw plan-and-preprocess"
)
GIVEN = (
    Given(
        "C2 a list of nnU-Net 1, whose names lack the channel",
        list_of_v1,
        "check raw",
        1,
        "  case_05: imagesTr/case_05.nii.gz: is listed but missing; add the file or remove the entry from dataset.json",
    ),
    Given(
        "C2 a list written on Windows",
        list_of_windows,
        "check raw",
        1,
        "  case_05: imagesTr/case_05.nii.gz: is listed but missing; add the file or remove the entry from dataset.json",
    ),
    Given(
        "C2 masks of 0.5",
        halves,
        "evaluate masks halves --no-surface",
        2,
        "halves/a.nii.gz: holds 0.5, which is no whole number; give the masks, not the images",
    ),
    Given(
        "C3 escapes of a terminal in a name",
        nothing,
        "check a\x1b[2Jb",
        2,
        "a\\x1b[2Jb: no such folder; give the folder that holds the images and masks",
    ),
    Given(
        "C4 masks into a folder named like a file",
        model_and_images,
        "predict model images OUT.nii.gz --device cpu",
        2,
        "OUT.nii.gz: is named like a file, but masks go into a folder, each under its image's "
        "name; give a folder such as masks",
    ),
    Given(
        "C4 a folder of images that is not there",
        masks,
        "evaluate masks masks --no-surface --images nowhere",
        2,
        "nowhere: no such folder; give a folder of images or masks",
    ),
    Given(
        "C4 training an imported model",
        imported_model,
        "train model 3d_fullres 0",
        2,
        IMPORTED,
    ),
    Given(
        "C4 selecting from an imported model",
        imported_model,
        "select model",
        2,
        IMPORTED,
    ),
    Given(
        "C4 selecting from a bare model",
        model_and_images,
        "select model",
        2,
        "model: holds no splits.json, as models without their data do not; give the work folder "
        "of segfw run or segfw plan-and-preprocess",
    ),
    Given(
        "C4 selecting from a file",
        model_file,
        "select file.zip",
        2,
        "file.zip: is a file, and training and selecting need the data; give the work folder of segfw run or "
        "segfw plan-and-preprocess",
    ),
    Given(
        "C4 more channels than the model has",
        lambda: model_and_images("P1_0000.nii.gz", "P1_0001.nii.gz"),
        "predict model images masks --device cpu",
        2,
        "images: P1_0000 to P1_0001 look like 2 channels, but the model has 1 channel; give only "
        "what it needs, or rename what is an image of its own",
    ),
    Given(
        "C4 two files of one case",
        lambda: model_and_images("P9.nii.gz", "P9_0000.nii.gz"),
        "predict model images masks --device cpu",
        2,
        "images: P9.nii.gz and P9_0000.nii.gz would both be the case P9; rename or move one of them",
    ),
    Given(
        "C4 fewer threads than none",
        nothing,
        "check raw --workers -2",
        2,
        "--workers is -2; give 1 or more",
    ),
    Given(
        "C4 fewer threads than none to score",
        nothing,
        "evaluate a b --workers -2",
        2,
        "--workers is -2; give 1 or more",
    ),
    Given(
        "C4 training in a data set",
        raw,
        "train raw 2d 0",
        2,
        "raw: holds no plan.json; give the work folder of segfw run or segfw plan-and-preprocess",
    ),
    Given(
        "D4 the status of nothing",
        nothing,
        "status nowhere",
        2,
        "nowhere: no such file or folder; give one that segfw made or is to work on",
    ),
    Given(
        "D6 masks in colours",
        painted,
        "check raw",
        1,
        "  the masks of eye0 and 1 other case are painted in 2 colours, not in label values: "
        "0,0,0 (1,080 pixels in 2 cases), 255,0,0 (120 pixels in 2 cases); write labels.csv into "
        "the folder, with the header name,r,g,b and a line such as tumour,255,0,0 for each "
        "colour that is a label, or give such a table as --label-names",
    ),
    Given(
        "D6 masks as JPEG",
        lambda: photographs(np.zeros((20, 30), np.uint8), ".jpg"),
        "check raw",
        1,
        "  eye0: masks/eye0.jpg: is a JPEG, which blurs label values; export the mask as PNG, TIFF or NIfTI",
    ),
    Given(
        "D6 a patient without a mask",
        patients,
        "check raw",
        1,
        "  P2: P2/image.nii.gz: has no mask; add the mask or move the image",
    ),
    Given(
        "D6 two masks of a patient",
        lambda: patients("mask", "mask_second"),
        "check raw",
        1,
        "  P1: mask.nii.gz, mask_second.nii.gz could each be the mask; keep one file there, with "
        "a value for each structure, and move the others away",
    ),
    Given(
        "D6 an image without a mask beside it",
        flat_folder,
        "check raw",
        1,
        "  P3_img: raw/P3_img.nii.gz: has no mask; add the mask or move the image",
    ),
    Given(
        "D6 no such table of names",
        raw,
        "run raw work --label-names nowhere.csv",
        2,
        "nowhere.csv: no such file; give a table of label names, with a header value,name",
    ),
)

# The fault, the file of the test, and what it quotes: the input, or the sentence
QUOTED = (
    ("C1 weights that another user may not read", "base/test_errors.py", "may not be read by this user"),
    ("C2 masks of 1.0000001", "evaluation/test_evaluation.py", "def test_masks_of_nearly_whole_numbers_are_scored"),
    ("C3 cells that are formulas", "base/test_printing.py", "=cmd|'/c calc'!A1"),
    ("C4 settings that a run does not follow", "verbs/test_faults.py", "--epochs 7 is not followed, because"),
    (
        "C4 --resume before a checkpoint",
        "verbs/test_faults.py",
        "has no checkpoint yet to go on from, so the training begins",
    ),
    ("C4 a fold that cannot be", "verbs/test_early.py", "--folds 7"),
    ("C4 a spacing that is no number", "verbs/test_early.py", "--spacing-mm 1 nan 1"),
    ("C4 memory without end", "verbs/test_early.py", "--gpu-memory-gb inf"),
    ("C4 memory that is no number", "verbs/test_early.py", "--gpu-memory-gb nan"),
    (
        "C4 one case",
        "verbs/test_early.py",
        "raw: the data set has 1 usable case; training needs at least 2, better 20 or more",
    ),
    ("C4 an abbreviated option", "verbs/test_typed.py", "run raw work --configuration 2d"),
    ("C4 names that become one", "dataset/test_images.py", "would both be channel flair of the case P9"),
    (
        "D1 weeks that nobody asked for",
        "verbs/test_told_length.py",
        "no length was given, so that 1000 epochs are trained",
    ),
    ("D1 a demo of few steps", "verbs/test_demo.py", "the mean Dice of 0.021 is low"),
    ("D3 STOP from any editor", "training/test_stopping.py", "utf-16"),
    ("D4 segfw alone", "verbs/test_typed.py", "def test_segfw_alone_and_help_show_the_verbs"),
    ("D4 the version", "verbs/test_typed.py", "def test_the_version_is_that_of_the_package"),
    ("D4 a verb mistyped", "verbs/test_typed.py", "there is no verb 'trian'; did you mean train?"),
    ("D4 a preset that there is not", "verbs/test_early.py", "--preset: 'resenc' is none of"),
    ("D4 the next command, quoted", "verbs/test_next_lines.py", "def test_from_a_model_to_scores"),
    ("D5 one case, not 1 cases", "base/test_words.py", "def test_a_noun_is_in_the_plural_but_for_one"),
    ("D6 more folders than two", "dataset/test_named_folders.py", "could each be the folder of the"),
    ("D6 swapped folders", "dataset/test_swapped_folders.py", "def test_swapped_folders"),
)


@pytest.mark.parametrize("given", GIVEN, ids=[given.fault for given in GIVEN])
def test_what_people_give_is_told_in_a_sentence(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given.make()
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    code = main(given.typed.split(" "))
    said = capsys.readouterr()
    assert code == given.code
    assert sorted(tmp_path.rglob("*")) == before
    if code == 2:
        assert said.err == f"segfw: {given.said}\n"
        assert said.out == ""
    else:
        assert given.said in said.out.splitlines()


@pytest.mark.parametrize("fault, file, quote", QUOTED, ids=[fault for fault, *_ in QUOTED])
def test_the_others_are_quoted_by_their_own_tests(fault, file, quote):
    assert quote in (TESTS / file).read_text(encoding="utf-8")

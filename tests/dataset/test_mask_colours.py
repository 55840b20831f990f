"""Masks of pictures that are painted in colours: listed with a remedy, and read by a table of colours."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import Finding
from segfw.dataset.layouts import find_dataset
from segfw.grid.store import read_case
from segfw.planning.fingerprint import DataProblems
from segfw.verbs.check import check_dataset
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0)
TABLE = "name,r,g,b\nnerve,255,0,0\nvessel,0,255,0\nlight,255,255,255\n"


def picture(path, pixels, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **more)


def photograph(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3))


def painted(*blocks):
    """20 x 30 pixels, black but for rows of 30 pixels each in the given colours."""
    mask = np.zeros((20, 30, 3), np.uint8)
    for row, colour in enumerate(blocks):
        mask[row] = colour
    return mask


def write_set(raw, masks, ending=".png"):
    for number, mask in enumerate(masks):
        picture(raw / "images" / f"eye{number}.png", photograph(number))
        picture(raw / "labels" / f"eye{number}{ending}", mask)
    return raw


def test_colours_are_listed_with_pixels_cases_and_a_remedy(tmp_path):
    raw = write_set(tmp_path / "raw", [painted(RED, RED, GREEN), painted(RED), painted()])
    report = check_dataset(raw, workers=1)
    (finding,) = report.of_severity("error")
    assert str(finding) == (
        "the masks of eye0 and 1 other case are painted in 3 colours, not in label values: "
        "0,0,0 (1,080 pixels in 2 cases), 255,0,0 (90 pixels in 2 cases), 0,255,0 (30 pixels in 1 case); "
        "write labels.csv into the folder, with the header name,r,g,b and a line such as tumour,255,0,0 for each "
        "colour that is a label, or give such a table as --label-names"
    )
    assert (finding.kind, finding.others) == ("mask-colours", ("eye0", "eye1"))
    with pytest.raises(DataProblems, match="are painted in 3 colours, not in label values"):
        plan_and_preprocess(raw, tmp_path / "work", device="cpu")


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_a_table_of_colours_makes_classes_of_them(tmp_path, ending):
    raw = write_set(tmp_path, [painted(RED, RED, GREEN), painted(WHITE), painted(GREEN, WHITE), painted()], ending)
    (raw / "labels.csv").write_text(TABLE)
    report = check_dataset(raw, workers=1)
    assert report.of_severity("error") == ()
    assert [(label.value, label.name, label.cases) for label in report.labels] == [
        (1, "nerve", 1),
        (2, "vessel", 2),
        (3, "light", 2),
    ]
    counted = []
    found = find_dataset(raw)
    for case in found.cases:
        classes = found.labels.to_classes(read_case(case)[1].array, case.label_map)
        counted.append(np.bincount(classes.ravel(), minlength=4).tolist())
    # In the second picture all is grey, so that it is read by brightness.
    assert counted == [[510, 60, 30, 0], [570, 0, 0, 30], [540, 0, 30, 30], [600, 0, 0, 0]]


def test_a_colour_that_the_table_lacks(tmp_path):
    raw = write_set(tmp_path, [painted(RED, (1, 2, 3)), painted(GREEN)])
    (raw / "labels.csv").write_text(TABLE)
    (finding,) = errors_of_masks(raw)
    assert str(finding) == (
        "eye0: labels/eye0.png: holds the colour 1,2,3 (30 pixels), which labels.csv does not list; "
        "add a line for each, or correct the mask"
    )


def errors_of_masks(raw: Path) -> list[Finding]:
    """Without that of a data set of a single case."""
    return [found for found in check_dataset(raw, workers=1).of_severity("error") if found.kind != "too-few-cases"]


def test_indices_of_a_palette_are_not_taken_for_colours(tmp_path):
    """The table numbers by its own order, which need not be that of the palette."""
    raw = write_set(tmp_path, [painted(RED)])
    indexed = Image.fromarray(np.eye(20, 30, dtype=np.uint8), mode="P")
    indexed.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0])
    indexed.save(raw / "labels" / "eye0.png")
    (raw / "labels.csv").write_text(TABLE)
    (finding,) = errors_of_masks(raw)
    assert finding.what == "holds 1 (20 pixels), which labels.csv does not list"
    (raw / "labels.csv").write_text("value,name,r,g,b\n1,vessel,0,255,0\n2,nerve,255,0,0\n")
    assert [label.name for label in check_dataset(raw, workers=1).labels] == ["vessel"]


def test_softened_borders_are_told(tmp_path):
    soft = painted(RED)
    soft[5, :, 0] = np.arange(1, 31) * 8
    soft[6, :, 1] = np.arange(1, 31) * 8
    raw = write_set(tmp_path, [soft])
    smoothed = "export the masks again without smoothing (antialiasing) or JPEG, which blend colours at borders"
    (finding,) = errors_of_masks(raw)
    assert finding.what.startswith(
        "the masks of eye0 are painted in 62 colours, not in label values: 0,0,0 (510 pixels"
    )
    assert finding.what.endswith(" and 54 more")
    assert finding.remedy.startswith(f"{smoothed}; then write labels.csv")
    (raw / "labels.csv").write_text(TABLE)
    (finding,) = errors_of_masks(raw)
    assert finding.remedy == f"{smoothed}; else add a line for each"


def test_jpeg_masks_are_refused(tmp_path):
    raw = write_set(tmp_path, [painted(RED)], ".jpg")
    (finding,) = errors_of_masks(raw)
    assert str(finding) == (
        "eye0: labels/eye0.jpg: is a JPEG, which blurs label values; export the mask as PNG, TIFF or NIfTI"
    )


def test_grey_masks_of_0_and_255_need_no_table(tmp_path):
    raw = write_set(tmp_path, [painted(WHITE), painted(WHITE, WHITE)])
    report = check_dataset(raw, workers=1)
    assert report.of_severity("error") == ()
    assert [(label.value, label.name) for label in report.labels] == [(255, "label_255")]


def test_predictions_are_scored_against_colours(tmp_path, capsys):
    raw = write_set(tmp_path / "raw", [painted(RED, RED, GREEN), painted(WHITE)])
    for number, values in enumerate([[1, 1, 2], [3]]):
        mask = np.zeros((20, 30), np.uint8)
        mask[: len(values)] = np.array(values)[:, None]
        picture(tmp_path / "masks" / f"eye{number}.png", mask)
    command = [
        "evaluate",
        str(tmp_path / "masks"),
        str(raw / "labels"),
        "--no-surface",
        "--output",
        str(tmp_path / "s.json"),
    ]
    assert main(command) == 2
    assert "holds the colour 0,0,0 and no label values; write " in capsys.readouterr().err
    (raw / "labels.csv").write_text(TABLE)
    assert main(command) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["cases"]["eye0"]["nerve"]["dice"] == scores["cases"]["eye1"]["light"]["dice"] == 1


def test_colours_in_the_predictions_are_refused(tmp_path, capsys):
    raw = write_set(tmp_path / "raw", [painted(RED, GREEN)])
    (raw / "labels.csv").write_text(TABLE)
    picture(tmp_path / "masks" / "eye0.png", painted(RED, GREEN))
    assert main(["evaluate", str(tmp_path / "masks"), str(raw / "labels"), "--no-surface"]) == 2
    assert (
        "eye0.png: holds the colour 0,0,0, the colour 0,255,0, the colour 255,0,0, which is no label (0 back"
        in capsys.readouterr().err
    )


def test_a_copy_with_repairs_keeps_masks_in_colours(tmp_path):
    raw = write_set(tmp_path / "raw", [painted(RED, GREEN), painted(GREEN, RED), painted(RED)])
    picture(raw / "images" / "eye2.png", photograph(0))  # what is repaired: the same image twice
    (raw / "labels.csv").write_text(TABLE)
    report = check_dataset(raw, fix=tmp_path / "fixed", workers=1)
    assert [label.cases for label in report.labels] == [2, 2]
    for name in ("labels/eye0.png", "labels/eye1.png", "labels.csv"):
        assert (tmp_path / "fixed" / name).read_bytes() == (raw / name).read_bytes()
    assert not (tmp_path / "fixed" / "labels" / "eye2.png").exists()


def test_a_table_of_no_labels_at_all(tmp_path):
    raw = write_set(tmp_path, [painted(RED)])
    (raw / "labels.csv").write_text("name,r,g,b\nbackground,255,0,0\n")
    with pytest.raises(UserError, match="labels.csv: names the background alone; add a line for each structure"):
        find_dataset(raw)

"""Scores of pictures are in pixels, of slices in mm and mm2; pictures are shown in colour and without letters."""

import io
import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.masks import LABELS, rows_of
from segfw.evaluation import overlays
from segfw.evaluation.masks import read_pair
from segfw.evaluation.metrics import Scores
from segfw.evaluation.overlays import draw_overlay
from segfw.evaluation.text import scores_table
from segfw.images.formats import read_mask, read_volume, write_labels
from segfw.images.geometry import Geometry
from segfw.verbs.evaluate import evaluate

SHAPE = (1, 30, 40)
# Two pixels wide and one high, three slices thick: what a slice measures must not depend on the thickness.
SLICE = Geometry.of(SHAPE, np.array([[0, 0, -2.0, 0], [0, -1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]]))


def square(left: int, width: int) -> np.ndarray:
    """A square of 10 rows and so many columns."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 10:20, left : left + width] = 1
    return mask


@pytest.fixture
def photographs(tmp_path):
    """Predictions and references in PNG; the prediction lies 3 pixels to the right of the reference."""
    for name, left in (("wanted", 10), ("predicted", 13)):
        (tmp_path / name).mkdir()
        Image.fromarray(square(left, 10)[0]).save(tmp_path / name / "a.png")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", SHAPE[:0:-1], (200, 30, 10)).save(tmp_path / "photos" / "a.jpg")
    return tmp_path


def test_scores_of_photographs_are_in_pixels(photographs):
    output = photographs / "out" / "scores.json"
    scores = evaluate(photographs / "predicted", photographs / "wanted", output=output, lesions=("label_1",))
    found = scores.cases["a"]["label_1"]
    assert (found.hd95_px, found.reference_px, found.predicted_px) == (3.0, 100.0, 100.0)
    assert (found.hd95_mm, found.reference_ml, found.reference_mm2) == (None, None, None)
    assert [(part.from_size, part.unit, part.found) for part in found.lesions] == [
        (0.0, "px", 0),
        (100.0, "px", 1),
        (1000.0, "px", 0),
    ]
    row = rows_of(output.with_suffix(".csv"))[0]
    assert (row["hd95_px"], row["reference_px"]) == ("3.0", "100.0")
    assert not [column for column in row if column.endswith(("_mm", "_ml", "_mm2"))]
    assert list(rows_of(output.with_name("scores_lesions.csv"))[0])[2:4] == ["from_px", "to_px"]
    text = scores_table(scores)
    assert "HD95 px" in text
    assert "Area sim.  Area diff. of ref." in text
    assert "a tolerance of 1 px" in text
    assert " mm" not in text
    assert Scores.load(output) == scores


def test_scores_of_slices_are_in_millimetres_and_their_squares(tmp_path):
    for name, left in (("wanted", 10), ("predicted", 13)):
        (tmp_path / name).mkdir()
        write_labels(tmp_path / name / "a.nii.gz", square(left, 10), SLICE)
    output = tmp_path / "scores.json"
    scores = evaluate(tmp_path / "predicted", tmp_path / "wanted", output=output)
    found = scores.cases["a"]["label_1"]
    assert (found.hd95_mm, found.reference_mm2, found.reference_ml) == (6.0, 200.0, None)
    row = rows_of(output.with_suffix(".csv"))[0]
    assert (row["hd95_mm"], row["reference_mm2"], "hd95_px" in row) == ("6.0", "200.0", False)
    assert "hd95_px" not in json.loads(output.read_text(encoding="utf-8"))["cases"]["a"]["label_1"]


def test_the_report_of_photographs_says_pixels(photographs):
    report = photographs / "report.html"
    evaluate(photographs / "predicted", photographs / "wanted", report=report, images=photographs / "photos")
    page = report.read_text(encoding="utf-8")
    assert "Reference area<small>px</small>" in page
    assert "HD95<small>px</small>" in page
    assert "within 1.0 px of the other" in page
    assert "patient" not in page
    assert "Area similarity" in page
    assert "olume" not in page
    assert not [unit for unit in (" mm", " ml", "millimetre") if unit in page]


def colour_at_the_corner(png: bytes) -> tuple[int, ...]:
    """RGB near the top left corner of the drawn picture, beside all masks and letters."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    rows, _ = np.nonzero((picture[..., 0] > 190) & (picture[..., 1] < 40))
    return tuple(picture[rows.min() + 4, picture.shape[1] // 2 - 150].tolist())


def test_a_photograph_is_shown_in_its_colours(monkeypatch):
    photo = np.empty((*SHAPE, 3), np.uint8)
    photo[:] = (200, 30, 10)
    monkeypatch.setattr(overlays, "_letter", lambda *_: pytest.fail("a photograph has no left and right"))
    png = draw_overlay(photo, square(10, 10), square(13, 10), (1, 1, 1), ("background", "spot"), has_directions=False)
    assert colour_at_the_corner(png) == (200, 30, 10)


def test_predictions_are_named_like_images_that_are_named_otherwise_than_their_masks(tmp_path):
    for folder in ("raw/images", "raw/labels", "predicted"):
        (tmp_path / folder).mkdir(parents=True)
    for number in (21, 22):
        Image.new("RGB", SHAPE[:0:-1], (200, 30, 10)).save(tmp_path / f"raw/images/{number}_training.tif")
        Image.fromarray(square(10, 10)[0]).save(tmp_path / f"raw/labels/{number}_manual1.gif")
        Image.fromarray(square(13, 10)[0]).save(tmp_path / f"predicted/{number}_training.png")
    scores = evaluate(tmp_path / "predicted", tmp_path / "raw/labels", surface=False)
    assert {case: found["label_1"].tp for case, found in scores.cases.items()} == {"21_training": 70, "22_training": 70}


def test_a_prediction_of_a_photograph_as_nifti_has_no_millimetres(photographs):
    place = read_mask(photographs / "wanted" / "a.png").geometry
    (photographs / "predicted" / "a.png").unlink()
    write_labels(photographs / "predicted" / "a.nii.gz", square(13, 10), place)
    scores = evaluate(photographs / "predicted", photographs / "wanted")
    found = scores.cases["a"]["label_1"]
    assert (found.hd95_px, found.reference_px, found.hd95_mm) == (3.0, 100.0, None)


@pytest.mark.parametrize("matrix", [np.diag([-1.0, -1.0, 1.0, 1.0]), np.eye(4)], ids=["as segfw writes", "another"])
def test_masks_of_photographs_as_nifti_have_no_millimetres_where_the_images_are_known(photographs, matrix):
    """A mask of a photograph lies on its pixels, whatever place its file claims."""
    (photographs / "wanted" / "a.png").unlink()
    # x, y, z of the files are x, y, z of the picture: 3 pixels apart along x.
    nibabel.save(nibabel.Nifti1Image(square(10, 10).transpose(2, 1, 0), matrix), photographs / "wanted" / "a.nii.gz")
    (photographs / "predicted" / "a.png").unlink()
    place = read_volume(photographs / "photos" / "a.jpg").geometry
    write_labels(photographs / "predicted" / "a.nii.gz", square(13, 10), place)
    scores = evaluate(photographs / "predicted", photographs / "wanted", images=photographs / "photos")
    found = scores.cases["a"]["label_1"]
    assert (found.tp, found.hd95_px, found.reference_px, found.hd95_mm) == (70, 3.0, 100.0, None)
    files = [photographs / folder / "a.nii.gz" for folder in ("wanted", "predicted")]
    stored = read_pair(*files, LABELS, (), photographs / "photos" / "a.jpg")[2]
    assert stored.is_picture  # which is shown without left and right

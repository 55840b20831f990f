"""``measure --model``: intervals beside volumes, of which masks, and what is said of the others."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from builders.calibrated import calibrate_with_made_up_items, calibrated_model
from builders.models import make_model
from segfw.base.records import UserError
from segfw.cli import main
from segfw.model.source import QUALITY_FILE
from segfw.quality.case_quality import CaseQuality, quality_file
from segfw.quality.quality_model import QualityModel
from segfw.verbs.measure import measure
from segfw.verbs.predict import predict
from segfw.verbs.status import status


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def judged(calibrated, images, tmp_path_factory) -> Path:
    """Masks of the calibrated model, which no test changes."""
    output = tmp_path_factory.mktemp("judged")
    predict(calibrated, images, output, device="cpu")
    return output


@pytest.fixture
def masks(judged, tmp_path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(judged, tmp_path / "masks"))


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "measures.csv"


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.open()))


def test_every_volume_has_the_interval_that_predict_told(calibrated, masks, table):
    found = measure(masks, table, model=calibrated)
    rows = rows_of(table)
    assert len(rows) == 4
    head = list(rows[0])
    assert head[head.index("volume_ml") + 1 :][:2] == ["volume_low_ml", "volume_high_ml"]
    for row in rows:
        told = CaseQuality.load(quality_file(masks, row["case"]))
        low, high = next(each for each in told.structures if each.label == row["structure"]).volume_interval_ml
        assert float(row["volume_low_ml"]) == pytest.approx(low)
        assert float(row["volume_high_ml"]) == pytest.approx(high)
        assert low < float(row["volume_ml"]) < high
    assert "hold the true volume of 90% of images like the training images" in found.text()
    assert str(calibrated) in status(table.with_suffix(".json")).next


def test_without_the_option_there_are_no_such_columns_and_they_come_without_measuring_again(
    calibrated, masks, table, capsys
):
    measure(masks, table)
    assert "volume_low_ml" not in rows_of(table)[0]
    measure(masks, table, model=calibrated)
    assert "0 cases measured, 2 were there" in capsys.readouterr().out
    assert rows_of(table)[0]["volume_low_ml"]
    measure(masks, table)
    assert "volume_low_ml" not in rows_of(table)[0]


def test_a_case_of_which_nothing_is_promised_has_no_interval(calibrated, masks, table):
    file = quality_file(masks, "a")
    CaseQuality.load(file).model_copy(update={"guarantee": "withdrawn: the image is far"}).save(file)
    quality_file(masks, "b").unlink()
    text = measure(masks, table, model=calibrated).text()
    assert [bool(row["volume_low_ml"]) for row in rows_of(table)] == [False, False, True, True]
    assert "no intervals in 1 case of which nothing is promised: a" in text
    assert "of 1 case nobody has looked whether the image is like the training images: b" in text


def test_a_structure_of_too_few_patients_has_none(calibrated, masks, table, tmp_path):
    own = Path(shutil.copytree(calibrated, tmp_path / "own"))
    quality = QualityModel.load(own / QUALITY_FILE)
    few = quality.volumes["dark"].model_copy(update={"factor": None, "patients": 4})
    quality.model_copy(update={"volumes": {"bright": quality.volumes["bright"], "dark": few}}).save(own / QUALITY_FILE)
    text = measure(masks, table, model=own).text()
    assert {row["structure"]: bool(row["volume_low_ml"]) for row in rows_of(table)} == {"bright": True, "dark": False}
    assert "no interval of the volume of dark: only 4 patients in whom it is and was found" in text


def test_an_empty_mask_has_none(calibrated, masks, table):
    from segfw.images.formats import read_mask, write_labels

    mask = read_mask(masks / "a.nii.gz")
    array = mask.array[0].copy()
    array[array == 7] = 0
    write_labels(masks / "a.nii.gz", array, mask.geometry)
    measure(masks, table, model=calibrated)
    row = next(row for row in rows_of(table) if (row["case"], row["structure"]) == ("a", "dark"))
    assert (row["status"], row["volume_low_ml"], row["volume_high_ml"]) == ("absent", "", "")


def test_masks_that_do_not_say_their_model_are_taken_on_trust(calibrated, masks, table):
    (masks / "prediction.json").unlink()
    assert "that it is" in measure(masks, table, model=calibrated).text()
    assert rows_of(table)[0]["volume_low_ml"]


def test_masks_of_some_folds_are_known_by_their_weights(calibrated, images, table, tmp_path):
    predict(calibrated, images, tmp_path / "masks", device="cpu", folds=("1",), quality=False)
    measure(tmp_path / "masks", table, model=calibrated)
    assert rows_of(table)[0]["volume_low_ml"]


def refused(model: Path, masks: Path, table: Path) -> str:
    with pytest.raises(UserError) as caught:
        measure(masks, table, model=model)
    assert not table.exists()
    return str(caught.value)


def test_masks_of_another_model_are_one_sentence(masks, table, tmp_path, calibrated):
    other = make_model(tmp_path / "other")
    text = refused(other, masks, table)
    assert "this model is not calibrated" in text
    assert f"run segfw calibrate {other} first" in text
    other = calibrated_model(tmp_path / "third", folds=("0", "2"))
    assert "were made by other folds than" in refused(other, masks, table)
    settings = json.loads((masks / "prediction.json").read_text())
    (masks / "prediction.json").write_text(json.dumps(settings | {"configuration": "2d"}))
    assert f"were made by 2d, and {calibrated / QUALITY_FILE} is of 3d_fullres" in _anew(calibrated, masks, table)
    (masks / "prediction.json").write_text(json.dumps(settings | {"weights_digest": "another"}))
    assert "were made by another model than" in _anew(calibrated, masks, table)


def _anew(calibrated: Path, masks: Path, table: Path) -> str:
    """Refused by a calibration that did not judge these masks."""
    own = Path(shutil.copytree(calibrated, table.parent / "own", dirs_exist_ok=True))
    calibrate_with_made_up_items(own, seed=7)
    return refused(own, masks, table).replace(str(own), str(calibrated))


def test_structures_of_other_names_are_one_sentence(calibrated, masks, table):
    labels = json.loads((masks / "labels.json").read_text())
    (masks / "labels.json").write_text(json.dumps(labels | {"names": ["background", "x", "y"]}))
    sentence = refused(calibrated, masks, table)
    assert "has intervals of bright and dark, but the masks hold x and y" in sentence


def test_from_the_command_line(calibrated, masks, table, capsys):
    assert main(["measure", str(masks), "--output", str(table), "--model", str(calibrated)]) == 0
    assert "note: volume_low_ml to volume_high_ml hold" in capsys.readouterr().out

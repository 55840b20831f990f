"""predict with a calibrated model: what it writes beside masks, when it is made anew, and of which models it is not."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.calibrated import calibrate_with_made_up_items, calibrated_model
from builders.data import make_images, mask_bytes
from builders.models import selection_of, write_fold
from builders.probabilities import record_of
from builders.slow_prediction import start_slow_prediction
from builders.waiting import kill, wait_until
from segfw.base.file_names import QUALITY_TABLE_FILE
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_mask
from segfw.images.volume import AS_STORED
from segfw.model.load import load_model
from segfw.model.source import QUALITY_FILE
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.quality.calibrated_prediction import require_known_entries
from segfw.quality.case_quality import CaseQuality, CaseRegions, judged_cases, quality_file, regions_file
from segfw.quality.image_fingerprint import image_fingerprint
from segfw.quality.input_gate import fit_gate
from segfw.quality.quality_model import QualityModel
from segfw.verbs.export import export_model
from segfw.verbs.info import info
from segfw.verbs.predict import predict
from segfw.verbs.status import status

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    return calibrated_model(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture
def own(calibrated, tmp_path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(calibrated, tmp_path / "own"))


@pytest.fixture(scope="module")
def judged(calibrated, images, tmp_path_factory) -> Path:
    """Masks with all that is told of them, which no test changes."""
    output = tmp_path_factory.mktemp("judged")
    predict(calibrated, images, output, device="cpu")
    return output


def told(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "quality").glob("[!.]*"))}


def test_every_mask_comes_with_verdicts_regions_and_a_line(judged, images):
    assert judged_cases(judged) == ["a", "b"]
    for case in "ab":
        found = CaseQuality.load(quality_file(judged, case))
        assert found.folds == ("0", "1")
        assert found.guarantee == "exchangeable"
        assert [(each.label, each.value) for each in found.structures] == [("bright", 3), ("dark", 7)]
        mask = read_mask(judged / f"{case}.nii.gz")
        voxel_ml = abs(np.linalg.det(mask.geometry.matrix[:3, :3])) / 1000
        for each in found.structures:
            assert each.volume_ml == pytest.approx((mask.array == each.value).sum() * voxel_ml)
            assert each.slices == (mask.array[0] == each.value).any((1, 2)).sum()
            low, high = each.volume_interval_ml
            assert low < each.volume_ml < high
            assert each.reasons or each.verdict == "use"
        regions = CaseRegions.load(regions_file(quality_file(judged, case)))
        assert regions.shape == mask.array.shape[1:]
        assert {region.label for region in regions.regions} <= {"bright", "dark"}
    rows = list(csv.DictReader((judged / QUALITY_TABLE_FILE).open()))
    assert len(rows) == 4
    order = ["do-not-use", "look", "use"]
    worst = [order.index(row["verdict"]) for row in rows[::2]]
    assert worst == sorted(worst)


def test_masks_are_those_without_quality(calibrated, images, judged, tmp_path):
    """But for the order in which folds are added: told apart, their mean is taken at the end."""
    predict(calibrated, images, tmp_path, device="cpu", quality=False)
    assert not (tmp_path / "quality").exists()
    assert not (tmp_path / QUALITY_TABLE_FILE).exists()
    for name in mask_bytes(tmp_path):
        assert (read_mask(tmp_path / name).array == read_mask(judged / name).array).mean() > 0.999


def test_what_lacks_is_made_and_the_rest_is_kept(calibrated, images, tmp_path, capsys):
    predict(calibrated, images, tmp_path, device="cpu", quality=False)
    predict(calibrated, images, tmp_path, device="cpu")
    assert "2 cases predicted, 0 were there" in capsys.readouterr().out
    first = told(tmp_path)
    quality_file(tmp_path, "b").unlink()
    predict(calibrated, images, tmp_path, device="cpu")
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    assert told(tmp_path) == first
    predict(calibrated, images, tmp_path, device="cpu", quality=False)  # more than is asked for may be there
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    assert told(tmp_path) == first


def test_what_another_calibration_told_is_told_anew_and_masks_of_an_overwritten_case_lose_it(own, images, tmp_path):
    masks = tmp_path / "masks"
    predict(own, images, masks, device="cpu")
    before = told(masks)
    digest = json.loads((masks / "prediction.json").read_text())["quality"]
    predict(own, images, masks, device="cpu", quality=False)
    assert json.loads((masks / "prediction.json").read_text())["quality"] == digest
    calibrate_with_made_up_items(own, seed=5)
    predict(own, images, masks, device="cpu")
    after = told(masks)
    assert after.keys() == before.keys()
    assert after != before
    assert json.loads((masks / "prediction.json").read_text())["quality"] != digest
    predict(own, images, masks, device="cpu", quality=False, overwrite=True)
    assert told(masks) == {}
    assert not (masks / QUALITY_TABLE_FILE).exists()


def test_a_changed_image_takes_what_was_told_of_its_mask_with_it(calibrated, tmp_path):
    images = make_images(tmp_path / "images", 2)
    masks = tmp_path / "masks"
    predict(calibrated, images, masks, device="cpu")
    before = told(masks)
    shutil.copy(images / "b.nii.gz", images / "a.nii.gz")
    predict(calibrated, images, masks, device="cpu", quality=False)
    assert told(masks).keys() == {"b.json", "b_regions.json"}
    assert not (masks / "quality.csv").exists()  # it had lines of the mask that is gone
    predict(calibrated, images, masks, device="cpu")
    after = told(masks)
    assert after["b.json"] == before["b.json"]
    assert after["a.json"] != before["a.json"]
    assert (masks / "quality.csv").is_file()


def test_a_killed_call_goes_on_and_tells_the_same(calibrated, images, judged, tmp_path):
    process = start_slow_prediction(calibrated, images, tmp_path, "slow=0.05")
    wait_until(lambda: mask_bytes(tmp_path), process)
    kill(process)
    done = [name.removesuffix(".nii.gz") for name in mask_bytes(tmp_path)]
    for case in done:  # the mask last: what is told of it is whole
        CaseQuality.load(quality_file(tmp_path, case))
    predict(calibrated, images, tmp_path, device="cpu")
    assert told(tmp_path) == told(judged)
    assert (tmp_path / QUALITY_TABLE_FILE).read_bytes() == (judged / QUALITY_TABLE_FILE).read_bytes()
    assert not list(tmp_path.rglob(".partial-*"))


def test_parts_make_one_table(calibrated, images, judged, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", part="1/2")
    assert len((tmp_path / QUALITY_TABLE_FILE).read_text().splitlines()) == 3
    predict(calibrated, images, tmp_path, device="cpu", part="2/2")
    assert (tmp_path / QUALITY_TABLE_FILE).read_bytes() == (judged / QUALITY_TABLE_FILE).read_bytes()


def test_a_dry_run_counts_what_quality_takes_and_writes_nothing(calibrated, images, judged, tmp_path, capsys):
    assert main(["predict", str(calibrated), str(images), str(tmp_path / "new"), "--dry-run", "--json"]) == 0
    with_quality = json.loads(capsys.readouterr().out)
    assert (
        main(["predict", str(calibrated), str(images), str(tmp_path / "new"), "--dry-run", "--json", "--no-quality"])
        == 0
    )
    without = json.loads(capsys.readouterr().out)
    assert with_quality["disk_needed_bytes"] > without["disk_needed_bytes"]
    assert not (tmp_path / "new").exists()
    assert main(["predict", str(calibrated), str(images), str(judged), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2


def test_only_wanted_structures_are_judged(calibrated, images, tmp_path):
    predict(calibrated, images, tmp_path, device="cpu", only=("dark",))
    found = CaseQuality.load(quality_file(tmp_path, "a"))
    assert [each.label for each in found.structures] == ["dark"]
    regions = CaseRegions.load(regions_file(quality_file(tmp_path, "a"))).regions
    assert {region.label for region in regions} <= {"dark"}


def test_doubtful_structures_are_named_and_an_unusable_one_is_a_warning(own, images, tmp_path, capsys):
    content = json.loads((own / QUALITY_FILE).read_text())
    content["failure"]["values"] = [0.9] * len(content["failure"]["values"])
    (own / QUALITY_FILE).write_text(json.dumps(content))
    predict(own, images, tmp_path, device="cpu")
    printed = capsys.readouterr().out
    assert "quality of 2 masks, by structures: 0 use, 0 look, 4 do-not-use" in printed
    assert len(re.findall(r"^warning: [ab]: (?:bright|dark): do-not-use, predicted Dice 0\.\d\d", printed, re.M)) == 4
    assert status(tmp_path).verdicts == {"use": 0, "look": 0, "do-not-use": 2}
    assert "quality: 2 of 2 judged masks doubtful, of which 2 not to be used" in status(tmp_path).text()


def test_steps_after_the_networks_that_were_not_calibrated_withdraw_the_promise(calibrated, images, tmp_path):
    file = tmp_path / "selection.json"
    selection_of("3d_fullres").save(file)
    predict(calibrated, images, tmp_path / "masks", device="cpu", postprocessing=file)
    guarantee = CaseQuality.load(quality_file(tmp_path / "masks", "a")).guarantee
    assert guarantee == (f"withdrawn: the model was calibrated with other options (--postprocessing {file})")


def test_other_tiling_withdraws_the_promise_and_says_so(calibrated, images, tmp_path, capsys):
    predict(calibrated, images, tmp_path, device="cpu", mirroring=False, step=0.8)
    printed = capsys.readouterr().out
    assert (
        "nothing is promised: the model was calibrated with other options (--step is 0.8 instead of 0.5, mir" in printed
    )
    found = CaseQuality.load(quality_file(tmp_path, "a"))
    assert found.guarantee.startswith("withdrawn: the model was calibrated with other options")
    assert not any(each.verdict == "use" for each in found.structures)


def test_fewer_folds_are_said_and_have_no_agreement(calibrated, images, tmp_path, capsys):
    predict(calibrated, images, tmp_path, device="cpu", folds=("1",))
    assert "was calibrated with fold 0 and 1, and fold 1 predicts" in capsys.readouterr().out
    found = CaseQuality.load(quality_file(tmp_path, "a"))
    assert found.folds == ("1",)
    assert found.structures[0].features["pair"] is None


def test_a_quality_of_another_model_is_one_sentence(own, images, tmp_path, capsys):
    plan = Plan.load(own / PLAN_FILE)
    write_fold(own, next(iter(plan.configurations.values())), "1", (2,), seed=77)
    arguments = ["predict", str(own), str(images), str(tmp_path / "masks"), "--device", "cpu"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert (
        f"{own / QUALITY_FILE}: is of another model (it has not these weights of fold 1); run segfw calibrate" in error
    )
    assert not (tmp_path / "masks").exists()
    assert main([*arguments, "--no-quality"]) == 0


def test_a_damaged_quality_names_its_file(own, images, tmp_path):
    (own / QUALITY_FILE).write_text("{")
    with pytest.raises(UserError, match=re.escape(str(own / QUALITY_FILE))):
        predict(own, images, tmp_path / "masks", device="cpu")


def test_a_gate_of_other_entries_is_one_sentence_before_any_image_is_read(own, images, tmp_path):
    """And one of these judges images, of which those of noise alone are far from what it knows."""
    rng = np.random.default_rng(0)
    record = record_of((4.0, 1.5, 1.0))
    known = [
        image_fingerprint(torch.from_numpy(rng.normal(number / 50, 1, (1, *record.shape))).float(), record)
        for number in range(20)
    ]
    gate = fit_gate(known, [str(number) for number in range(20)])
    quality = QualityModel.load(own / QUALITY_FILE)
    quality.model_copy(update={"gate": gate}).save(own / QUALITY_FILE)
    predict(own, images, tmp_path / "masks", device="cpu")
    found = CaseQuality.load(quality_file(tmp_path / "masks", "a"))
    assert found.gate.verdict == "far"
    assert found.guarantee.startswith("withdrawn: the image is far, unlike the training images (")
    renamed = gate.model_copy(update={"names": tuple(f"old {name}" for name in gate.names)})
    quality.model_copy(update={"gate": renamed}).save(own / QUALITY_FILE)
    with pytest.raises(UserError, match="looks at other properties of images than this version of segfw; run"):
        predict(own, images, tmp_path / "others", device="cpu")
    assert not (tmp_path / "others").exists()


def test_a_gate_of_a_model_that_takes_axes_as_they_are_stored_is_known(own):
    loaded = load_model(own)
    stored = loaded.configuration.preprocessing.model_copy(update={"orientation": AS_STORED})
    configuration = loaded.configuration.model_copy(update={"preprocessing": stored})
    plan = loaded.plan.model_copy(update={"configurations": {configuration.name: configuration}})
    model = replace(loaded, plan=plan, configuration=configuration)
    record = record_of((4.0, 1.5, 1.0), orientation=AS_STORED)
    rng = np.random.default_rng(0)
    known = [
        image_fingerprint(torch.from_numpy(rng.normal(0, 1, (1, *record.shape))).float(), record) for _ in range(20)
    ]
    assert "extent first axis" in known[0].names
    gate = fit_gate(known, [str(number) for number in range(20)])
    quality = QualityModel.load(own / QUALITY_FILE).model_copy(update={"gate": gate})
    require_known_entries(quality, model, own / QUALITY_FILE)
    with pytest.raises(UserError, match="looks at other properties of images"):
        require_known_entries(quality, loaded, own / QUALITY_FILE)


def test_cases_whose_files_would_share_a_name_are_refused(calibrated, tmp_path):
    images = make_images(tmp_path / "images", 2)
    (images / "b.nii.gz").rename(images / "a_regions.nii.gz")
    with pytest.raises(UserError, match="of the cases a and a_regions would be files of one name"):
        predict(calibrated, images, tmp_path / "masks", device="cpu")
    predict(calibrated, images, tmp_path / "masks", device="cpu", quality=False)


def add_configuration(model: Path) -> None:
    """A second one, 2d, of which one fold is trained."""
    plan = Plan.load(model / PLAN_FILE)
    full = plan.configurations["3d_fullres"]
    other = full.model_copy(update={"name": "2d"})
    plan.model_copy(update={"configurations": {"2d": other, "3d_fullres": full}}).save(model / PLAN_FILE)
    write_fold(model, other, "0", (2,))


def test_of_several_configurations_the_calibrated_one_predicts_and_it_is_said(own, images, tmp_path, capsys):
    add_configuration(own)
    predict(own, images, tmp_path / "masks", device="cpu")
    printed = capsys.readouterr().out
    assert "note: 2d and 3d_fullres are trained, and 3d_fullres is taken, which is calibrated; --config" in printed
    assert "with 3d_fullres, folds 0, 1" in printed
    assert len(told(tmp_path / "masks")) == 4
    assert load_model(own).configuration.name == "3d_fullres"
    assert export_model(own, tmp_path / "model.zip").configurations == ("3d_fullres",)
    assert "choose" not in capsys.readouterr().out
    # What select chose goes before.
    selection_of("2d", folds={"2d": ("0",)}).save(own / "selection.json")
    assert load_model(own).configuration.name == "2d"
    predict(own, images, tmp_path / "selected", device="cpu")
    assert "is of 3d_fullres; masks of 2d come without quality" in capsys.readouterr().out


def test_two_configurations_that_are_averaged_have_no_quality(own, images, tmp_path, capsys):
    add_configuration(own)
    selection_of("3d_fullres", "2d", folds={"3d_fullres": ("0", "1"), "2d": ("0",)}).save(own / "selection.json")
    predict(own, images, tmp_path / "both", device="cpu")
    printed = capsys.readouterr().out
    assert printed.count("come without quality; --configuration 3d_fullres has it") == 1
    assert not (tmp_path / "both" / "quality").exists()
    predict(own, images, tmp_path / "other", device="cpu", configuration="2d")
    assert "is of 3d_fullres; masks of 2d come without quality" in capsys.readouterr().out
    predict(own, images, tmp_path / "one", device="cpu", configuration="3d_fullres")
    assert len(told(tmp_path / "one")) == 4


@pytest.mark.parametrize("half", [False, True])
def test_a_model_file_brings_its_quality(calibrated, images, judged, tmp_path, half, capsys):
    file = tmp_path / "model.zip"
    export_model(calibrated, file, half=half)
    predict(file, images, tmp_path / "masks", device="cpu")
    found = CaseQuality.load(quality_file(tmp_path / "masks", "a"))
    kept = CaseQuality.load(quality_file(judged, "a"))
    for each, other in zip(found.structures, kept.structures):
        assert each.predicted_dice == pytest.approx(other.predicted_dice, abs=0.02 if half else 1e-6)
    again = tmp_path / "again.zip"
    export_model(file, again)
    assert again.read_bytes() == file.read_bytes()
    export_model(calibrated, tmp_path / "one.zip", folds=("0",))
    capsys.readouterr()
    predict(tmp_path / "one.zip", images, tmp_path / "of_one", device="cpu")
    assert "and fold 0 predicts" in capsys.readouterr().out


def test_info_and_status_say_whether_a_model_is_calibrated(own, tmp_path):
    text = "3d_fullres, folds 0 and 1, on 60 cases of 60 patients, 2026-01-01"
    assert f"Calibration: {text}." in info(own, device="cpu").text()
    assert f"calibration: {text}" in status(own).text()
    export_model(own, tmp_path / "model.zip")
    assert f"calibration: {text}" in status(tmp_path / "model.zip").text()
    (own / QUALITY_FILE).unlink()
    assert "not calibrated: masks come without quality (segfw calibrate)" in info(own, device="cpu").text()
    assert "not calibrated" in status(own).text()


def test_an_image_unlike_the_training_images_is_never_use(own, images, tmp_path, monkeypatch, capsys):
    """The gate is asked of the image on the network's grid, and its reasons go into verdicts and guarantee."""
    from segfw.quality import quality_sink
    from segfw.quality.input_gate import GateVerdict

    far = GateVerdict(score=4.0, percentile=100.0, verdict="far", reasons=("noisier than any training image",))
    monkeypatch.setattr(quality_sink.MaskJudge, "gate_verdict", lambda *_: far)
    predict(own, images, tmp_path / "masks", device="cpu")
    printed = capsys.readouterr().out
    assert "warning: 2 images unlike the training images, for which nothing is promised: a, b" in printed
    found = CaseQuality.load(quality_file(tmp_path / "masks", "a"))
    assert (
        found.guarantee == "withdrawn: the image is far, unlike the training images (noisier than any training image)"
    )
    assert not any(each.verdict == "use" for each in found.structures)
    rows = list(csv.DictReader((tmp_path / "masks" / QUALITY_TABLE_FILE).open()))
    assert {row["gate"] for row in rows} == {"far"}


def test_a_calibration_is_read_back_as_it_was_written(calibrated):
    kept = QualityModel.load(calibrated / QUALITY_FILE)
    assert kept.identity.configuration == "3d_fullres"
    assert set(kept.volumes) == {"bright", "dark"}

"""``segfw calibrate``: by whom each case is predicted, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders.calibration import REGIONS, drawn_work, save_drawn, unseen_cases
from builders.data import CASES, write_raw
from builders.models import make_model, plan_of, selection_of, small_model
from builders.work import plan_a_cascade
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.images.formats import read_mask, read_volume
from segfw.images.named_mask import DrawnAs
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import QUALITY_FILE, WEIGHTS_FILE, fold_folder
from segfw.model.training_record import RUN_FILE, RunRecord, TrainingEnd
from segfw.model.weights import load_tensors, save_tensors
from segfw.planning.plan import CASCADE, LOWRES, PLAN_FILE, Plan
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.quality import calibration_folder
from segfw.quality.calibration_folder import CaseToCalibrate
from segfw.quality.calibration_pass import SHIFTS_OF_A_CASE, CalibratedCase
from segfw.quality.case_quality import CaseQuality, judged_cases, quality_file
from segfw.quality.folds_together import is_cut_alike
from segfw.quality.quality_fitting import TooFewCases
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.quality_worth import AGREEMENT
from segfw.verbs.calibrate import PAGE_FILE, calibrate
from segfw.verbs.export import export_model
from segfw.verbs.predict import predict


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return drawn_work(tmp_path_factory.mktemp("calibrate"))


@pytest.fixture(scope="module")
def calibrated(work) -> QualityModel:
    return calibrate(work, device="cpu")


def cases_of(work: Path, configuration: str = "3d_fullres") -> dict[str, CalibratedCase]:
    folder = work / "calibration" / configuration
    return {path.stem: CalibratedCase.load(path) for path in folder.glob("[!.]*.json")}


def dice_of(mask: np.ndarray, reference: np.ndarray, values: tuple[int, ...]) -> float | None:
    first = np.isin(mask, values)
    second = np.isin(reference, values)
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def test_each_case_is_predicted_by_the_fold_that_did_not_see_it(work, calibrated):
    splits = Splits.load(work / "splits.json")
    found = cases_of(work)
    assert sorted(found) == CASES
    raw = work.parent / "raw"
    seen = []
    for name, case in found.items():
        (fold,) = case.passes[0].folds
        assert name not in splits.fold(fold).train
        # The Dice is that of the mask which this fold writes.
        predictor = Predictor.of(load_model(work, "3d_fullres", (fold,)), device="cpu")
        mask = predictor(read_volume(raw / "imagesTr" / f"{name}_0000.nii.gz")).array
        reference = read_mask(raw / "labelsTr" / f"{name}.nii.gz").array
        for structure, value in (("bright", 3), ("dark", 7)):
            measured = case.passes[0].folds[fold][structure]
            assert measured.dice == pytest.approx(dice_of(mask, reference, (value,)))
            assert measured.true_ml == pytest.approx((reference == value).sum() * 6e-3)  # voxels of 1 x 1.5 x 4 mm
            assert measured.predicted_ml == pytest.approx((mask == value).sum() * 6e-3)
            seen.append(measured.dice)
    assert max(seen) > 0  # the drawn networks find something


def test_each_case_is_spoilt_in_five_ways_of_its_own(work, calibrated):
    found = cases_of(work)
    ways = {name: [each.shift for each in case.passes] for name, case in found.items()}
    assert all(shifts[0] == CLEAN and len(set(shifts)) == 1 + SHIFTS_OF_A_CASE for shifts in ways.values())
    assert len({tuple(shifts) for shifts in ways.values()}) > 1
    assert set(calibrated.counts.shifts) == {shift for shifts in ways.values() for shift in shifts[1:]}
    # Spoilt masks are others than the clean ones.
    changed = [each.folds != case.passes[0].folds for case in found.values() for each in case.passes[1:]]
    assert np.mean(changed) > 0.8


def test_the_files_hold_what_is_returned(work, calibrated):
    assert QualityModel.load(work / QUALITY_FILE) == calibrated
    assert calibrated.counts.cases <= 6
    assert calibrated.identity.folds.keys() == {"0", "1", "2"}
    assert calibrated.use_rule.threshold is None  # of six patients
    assert calibrated.priors["bright"].cases == 6
    assert calibrated.values == {"bright": 3, "dark": 7}
    page = (work / PAGE_FILE).read_text(encoding="utf-8")
    assert "Risk by coverage" in page
    assert "cannot be judged here" in page
    assert AGREEMENT not in page
    assert "simulated" in page


def test_a_second_call_predicts_nothing_again(work, calibrated, monkeypatch, capsys):
    times = {path: path.stat().st_mtime_ns for path in (work / "calibration").rglob("case_*.json")}

    def never(*_: object) -> None:
        raise AssertionError("a case was predicted again")

    monkeypatch.setattr(calibration_folder, "calibrate_case", never)
    again = calibrate(work, device="cpu", fail_below=("0.5", "dark=0.6"))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again.fail_below == {"bright": 0.5, "dark": 0.6}
    assert again.score == calibrated.score


def test_a_call_that_was_ended_goes_on(tmp_path, monkeypatch):
    work = drawn_work(tmp_path)
    real = calibration_folder.calibrate_case
    done: list[str] = []

    def two_then_stop(predictor, case, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(case.id)
        return real(predictor, case, *rest)

    monkeypatch.setattr(calibration_folder, "calibrate_case", two_then_stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(work, device="cpu", shifts=False)
    assert not (work / QUALITY_FILE).exists()
    assert sorted(cases_of(work)) == sorted(done)
    first = {name: (work / "calibration" / "3d_fullres" / f"{name}.json").read_bytes() for name in done}
    again: list[str] = []

    def counted(predictor, case, *rest):
        again.append(case.id)
        return real(predictor, case, *rest)

    monkeypatch.setattr(calibration_folder, "calibrate_case", counted)
    model = calibrate(work, device="cpu", shifts=False)
    assert sorted(again) == sorted(set(CASES) - set(done))
    assert {name: (work / "calibration" / "3d_fullres" / f"{name}.json").read_bytes() for name in done} == first
    assert model.counts.shifts == ()
    # A fold that was trained anew is predicted with again, and it alone.
    again.clear()
    save_drawn(work, "3d_fullres", "1", 17)
    calibrate(work, device="cpu", shifts=False)
    assert sorted(again) == list(Splits.load(work / "splits.json").fold("1").validation)


def test_what_structures_of_a_mask_become_is_part_of_what_a_case_was_made_from(work):
    case = DatasetManifest.load(work / MANIFEST_FILE).cases[0]
    drawn = []
    for value in (3, 7):
        becomes = DrawnAs(name="left", painted=value, values=(value,))
        drawn.append(case.model_copy(update={"drawn_as": (becomes,)}))
    made_from = {CaseToCalibrate.of(one, ("0",), {"0": "digest"}, "", spoils=False).made_from for one in (case, *drawn)}
    assert len(made_from) == 3


def test_one_fold_learns_of_its_own_cases_and_looks_at_all(tmp_path, capsys):
    work = drawn_work(tmp_path, folds=("0",))
    splits = Splits.load(work / "splits.json")
    held_out = tuple(CASES[:5])
    folds = (splits.folds[0].model_copy(update={"train": tuple(CASES[5:]), "validation": held_out}), *splits.folds[1:])
    splits.model_copy(update={"folds": folds}).save(work / "splits.json")
    model = calibrate(work, device="cpu", shifts=False)
    found = cases_of(work)
    assert sorted(found) == CASES
    assert [name for name, case in found.items() if not case.passes] == [CASES[5]]
    assert model.priors["bright"].cases == 6
    assert "folds 1 and 2 are not trained: quality is learned from 5 cases of 6" in capsys.readouterr().out


def test_a_cascade_has_the_first_stage_of_the_same_fold(tmp_path):
    raw = write_raw(tmp_path / "raw")
    work = plan_a_cascade(raw, tmp_path / "work")
    for seed, fold in enumerate(("0", "1", "2")):
        save_drawn(work, LOWRES, fold, seed)
        save_drawn(work, CASCADE, fold, seed + 10)
    model = calibrate(work, device="cpu", configuration=CASCADE, shifts=False)
    assert model.identity.configuration == CASCADE
    splits = Splits.load(work / "splits.json")
    for name, case in cases_of(work, CASCADE).items():
        (fold,) = case.passes[0].folds
        assert name in splits.fold(fold).validation
        predictor = Predictor.of(load_model(work, CASCADE, (fold,), previous_folds=(fold,)), device="cpu")
        mask = predictor(read_volume(raw / "imagesTr" / f"{name}_0000.nii.gz")).array
        reference = read_mask(raw / "labelsTr" / f"{name}.nii.gz").array
        assert case.passes[0].folds[fold]["dark"].dice == pytest.approx(dice_of(mask, reference, (7,)))


def test_regions_are_judged_as_they_are_painted(tmp_path):
    work = drawn_work(tmp_path, labels=REGIONS)
    plan = Plan.load(work / PLAN_FILE)
    assert plan.labels.regions
    model = calibrate(work, device="cpu", shifts=False)
    assert set(model.values) == {"both", "dark"}
    for name, case in cases_of(work).items():
        (fold,) = case.passes[0].folds
        predictor = Predictor.of(load_model(work, "3d_fullres", (fold,)), device="cpu")
        mask = predictor(read_volume(tmp_path / "raw" / "imagesTr" / f"{name}_0000.nii.gz")).array
        reference = read_mask(tmp_path / "raw" / "labelsTr" / f"{name}.nii.gz").array
        for structure, values in (("both", (3, 7)), ("dark", (7,))):
            assert case.passes[0].folds[fold][structure].dice == pytest.approx(dice_of(mask, reference, values))


def test_cases_that_no_fold_saw_are_predicted_by_all(tmp_path):
    work = drawn_work(tmp_path)
    model = calibrate(work, device="cpu", shifts=False, cases=unseen_cases(tmp_path / "more"))
    found = cases_of(work)
    assert sorted(found) == [f"other_{number:02}" for number in range(6, 12)]
    for case in found.values():
        (only,) = case.passes
        assert list(only.folds) == ["0", "1", "2"]
        assert 0 <= only.pair["bright"] <= 1
        assert only.mean_dice.keys() == {"bright", "dark"}
    assert "never to have seen" in model.notes[0]
    assert AGREEMENT in (work / PAGE_FILE).read_text(encoding="utf-8")


def test_a_model_without_its_data_takes_cases(tmp_path):
    model = small_model(tmp_path / "model", folds=("0", "1"))
    raw = write_raw(tmp_path / "raw")
    with pytest.raises(UserError, match="without the cases that it was trained on; give labelled ones"):
        calibrate(model, device="cpu")
    # The same labels under other values, in the order of their names.
    description = json.loads((raw / "dataset.json").read_text())
    labels = dict.fromkeys(Plan.load(model / PLAN_FILE).labels.names)
    assert description["labels"].keys() == labels.keys()
    calibrate(model, device="cpu", shifts=False, cases=raw)
    assert QualityModel.load(model / QUALITY_FILE).identity.folds.keys() == {"0", "1"}


def test_labels_of_the_same_names_may_have_other_values(tmp_path):
    work = drawn_work(tmp_path)
    raw = unseen_cases(tmp_path / "more")
    calibrate(work, device="cpu", shifts=False, cases=raw)
    before = {name: case.passes for name, case in cases_of(work).items()}
    import nibabel

    for path in (raw / "labelsTr").iterdir():
        image = nibabel.load(path)
        swapped = np.choose(np.asarray(image.dataobj) // 3, [0, 1, 2]).astype(np.uint8)  # 3 to 1, 7 to 2
        nibabel.save(nibabel.Nifti1Image(swapped, image.affine), path)
    description = json.loads((raw / "dataset.json").read_text())
    description["labels"] = {"background": 0, "bright": 1, "dark": 2}
    (raw / "dataset.json").write_text(json.dumps(description))
    calibrate(work, device="cpu", shifts=False, cases=raw)
    assert {name: case.passes for name, case in cases_of(work).items()} == before
    description["labels"] = {"background": 0, "bright": 1, "liver": 2}
    (raw / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="its labels are not those of the model, by dataset.json: liver; the model has"):
        calibrate(work, device="cpu", cases=raw)


def test_a_case_that_cannot_be_read_is_named_and_nothing_is_learned(tmp_path):
    work = drawn_work(tmp_path)
    path = tmp_path / "raw" / "labelsTr" / "case_03.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CasesFailed, match=r"1 case failed in calibration, so that nothing is learned[\s\S]*case_03"):
        calibrate(work, device="cpu", shifts=False)
    assert sorted(cases_of(work)) == sorted(set(CASES) - {"case_03"})
    assert not (work / QUALITY_FILE).exists()


# ---- what is refused, in one sentence ----


def test_too_few_cases(tmp_path):
    work = drawn_work(tmp_path, folds=("0", "1"))
    with pytest.raises(UserError, match="^4 calibration cases are too few to learn quality from; at least 5"):
        calibrate(work, device="cpu")
    assert not (work / "calibration").exists()


def test_no_fold_that_holds_cases_out(tmp_path):
    work = drawn_work(tmp_path, folds=())
    with pytest.raises(UserError, match="no fold of 3d_fullres that holds cases out is trained to its end"):
        calibrate(work, device="cpu", configuration="3d_fullres")
    save_drawn(work, "3d_fullres", "all", 0)
    with pytest.raises(TooFewCases, match="no fold of 3d_fullres that holds cases out"):  # of which run tells in a note
        calibrate(work, device="cpu")


def test_a_model_file(tmp_path):
    file = tmp_path / "model.zip"
    export_model(make_model(tmp_path / "model"), file)
    with pytest.raises(UserError, match="is one file, into which nothing is written; calibrate the folder"):
        calibrate(file, device="cpu")


def test_a_selection_of_two_configurations(work, tmp_path):
    copy = shutil.copytree(work, tmp_path / "work")
    plan = Plan.load(copy / PLAN_FILE)
    full = plan.configurations["3d_fullres"]
    other = full.model_copy(update={"name": "3d_lowres"})
    plan_of(full, other, labels=plan.labels).save(copy / PLAN_FILE)
    for fold in ("0", "1", "2"):
        save_drawn(copy, "3d_lowres", fold, 5)
    folds = dict.fromkeys(("3d_fullres", "3d_lowres"), ("0", "1", "2"))
    selection_of("3d_fullres", "3d_lowres", folds=folds).save(copy / "selection.json")
    message = "averages 3d_fullres and 3d_lowres; quality is of the masks of one, so choose it with configuration, here"
    with pytest.raises(UserError, match=message):
        calibrate(copy, device="cpu")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("liver=0.8",), "the model has no structure 'liver'; it has bright, dark"),
        (("brihgt=0.8",), "did you mean bright"),
        (("1.5",), "give a Dice between 0 and 1"),
        (("dark=much",), "give a Dice between 0 and 1"),
    ],
)
def test_limits_that_are_none(work, texts, message):
    with pytest.raises(UserError, match=message):
        calibrate(work, device="cpu", fail_below=texts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--alpha", "0"), "--alpha is 0.0; give more than 0 and less than 1"),
        (("--wrong-share", "1"), "--wrong-share is 1.0; give more than 0 and less than 1"),
    ],
)
def test_shares_that_are_none(work, words, message, capsys):
    assert main(["calibrate", str(work), *words]) != 0
    assert message in capsys.readouterr().err


def test_cases_that_the_model_was_trained_on(work):
    with pytest.raises(UserError, match="holds case_00, on which the model was trained; give cases that it never saw"):
        calibrate(work, device="cpu", cases=work.parent / "raw")


def test_folds_that_were_drawn_by_fewer_patients_are_a_note(tmp_path):
    work = drawn_work(tmp_path)
    splits = Splits.load(work / SPLITS_FILE)
    source = "3 folds drawn, all cases of each of 3 patients in one fold"
    drawn = splits.model_copy(update={"source": source, "patient_of": None})  # as before patients were kept
    drawn.save(work / SPLITS_FILE)
    notes = calibrate(work, device="cpu", shifts=False).notes
    assert any(note.startswith("folds were drawn by 3 patients, and here cases count as of 6") for note in notes)
    table = tmp_path / "patients.csv"
    rows = [f"case_{index:02d},{index // 2}" for index in range(6)]
    table.write_text("\n".join(["case,patient", *rows]) + "\n")
    assert calibrate(work, device="cpu", shifts=False, groups=table).notes == ()


def test_patients_are_those_that_the_folds_were_planned_with(tmp_path):
    work = drawn_work(tmp_path)
    splits = Splits.load(work / SPLITS_FILE)
    pairs = {f"case_{index:02d}": f"patient {index // 2}" for index in range(6)}
    splits.with_patients(pairs).save(work / SPLITS_FILE)
    assert calibrate(work, device="cpu", shifts=False).counts.patients == 3


def test_all_of_one_patient(work):
    with pytest.raises(UserError, match="all calibration cases are of one patient"):
        calibrate(work, device="cpu", groups="(case)_")


def test_the_command_says_what_was_learned_and_what_comes_next(work, calibrated, capsys):
    assert main(["calibrate", str(work), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "6 patients are too few" in said
    assert f"written: {work / QUALITY_FILE}, {work / PAGE_FILE}" in said
    assert "next: segfw predict" in said


SMALL = "8x8x8"  # voxels, where the plan has patches of 8 x 16 x 16


@pytest.fixture(scope="module")
def unlike(tmp_path_factory) -> Path:
    """A calibrated work folder whose fold 0 was trained on smaller patches, and for fewer steps."""
    folder = drawn_work(tmp_path_factory.mktemp("unlike"))
    set_patch(folder, "0", SMALL)
    for fold, steps in (("0", 100), ("1", 1000), ("2", 1000)):
        write_length(folder, fold, steps)
    calibrate(folder, device="cpu", shifts=False)
    return folder


def set_patch(work: Path, fold: str, patch: str, configuration: str = "3d_fullres") -> None:
    path = fold_folder(work, configuration, fold) / WEIGHTS_FILE
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, {**metadata, "patch_size": patch})


def write_length(work: Path, fold: str, steps: int) -> None:
    end = TrainingEnd(steps=steps, epochs=1, seconds=1.0, warning="")
    RunRecord(sessions=(), label_names=("bright", "dark"), end=end).save(
        fold_folder(work, "3d_fullres", fold) / RUN_FILE
    )


def test_folds_of_other_patches_are_calibrated_with_the_tiles_that_predict_has(unlike):
    together = load_model(unlike, "3d_fullres")
    assert together.configuration.patch_size == (8, 8, 8)
    splits = Splits.load(unlike / "splits.json")
    case = splits.fold("1").validation[0]
    image = read_volume(unlike.parent / "raw" / "imagesTr" / f"{case}_0000.nii.gz")
    alone = load_model(unlike, "3d_fullres", ("1",))
    assert alone.configuration.patch_size == (8, 16, 16)
    ml = {}
    for name, model in (("alone", alone), ("together", alone.tiled_like(together))):
        mask = Predictor.of(model, device="cpu")(image).array
        ml[name] = float((mask == 3).sum() * 6e-3)
    assert ml["alone"] != ml["together"]  # tiles count
    measured = cases_of(unlike)[case].passes[0].folds["1"]["bright"]
    assert measured.predicted_ml == pytest.approx(ml["together"])


@pytest.fixture(scope="module")
def unlike_first_stages(tmp_path_factory) -> Path:
    """A cascade whose first stage has a fold 0 that was trained on smaller patches than the others."""
    folder = tmp_path_factory.mktemp("first_stages")
    work = plan_a_cascade(write_raw(folder / "raw"), folder / "work")
    for seed, fold in enumerate(("0", "1", "2")):
        save_drawn(work, LOWRES, fold, seed)
        save_drawn(work, CASCADE, fold, seed + 10)
    set_patch(work, "0", "4x4x4", LOWRES)
    return work


def dark_dice(work: Path, case: str, fold: str, *, is_as_predict: bool) -> float:
    """Of the fold's mask, with the first stage's tiles that all folds know, or those that it knows by itself."""
    model = load_model(work, CASCADE, (fold,), previous_folds=(fold,))
    if is_as_predict:
        model = model.tiled_like(load_model(work, CASCADE))
    raw = work.parent / "raw"
    mask = Predictor.of(model, device="cpu")(read_volume(raw / "imagesTr" / f"{case}_0000.nii.gz")).array
    return dice_of(mask, read_mask(raw / "labelsTr" / f"{case}.nii.gz").array, (7,))


def test_the_first_stage_of_a_cascade_is_calibrated_with_the_tiles_that_predict_has(unlike_first_stages):
    work = unlike_first_stages
    calibrate(work, device="cpu", configuration=CASCADE, shifts=False)
    differing = 0
    for name, case in cases_of(work, CASCADE).items():
        (fold,) = case.passes[0].folds
        wanted = dark_dice(work, name, fold, is_as_predict=True)
        assert case.passes[0].folds[fold]["dark"].dice == pytest.approx(wanted)
        differing += wanted != pytest.approx(dark_dice(work, name, fold, is_as_predict=False))
    assert differing > 0  # else tiles count for nothing here, and this shows nothing


def test_what_was_found_with_tiles_of_one_first_stage_is_found_anew(unlike_first_stages, monkeypatch):
    """It was kept as of all folds' tiles, which it was not: what a case was made from says now that both stages are."""
    options_of = {}
    made_from = CaseToCalibrate.of

    def kept_options(case, folds, networks, options, *, spoils):
        options_of[folds] = options
        return made_from(case, folds, networks, options, spoils=spoils)

    monkeypatch.setattr(CaseToCalibrate, "of", kept_options)
    calibrate(unlike_first_stages, device="cpu", configuration=CASCADE, shifts=False)
    in_both = " in tiles of all folds, in both stages"
    assert {folds: text.endswith(in_both) for folds, text in options_of.items()} == {
        ("0",): False,
        ("1",): True,
        ("2",): True,
    }


def test_all_folds_of_a_second_stage_may_have_first_stages_that_cut_otherwise(unlike_first_stages):
    """Where a single fold of the second stage is trained: its first stage is of one fold, and predict's of all."""
    assert not is_cut_alike(load_model(unlike_first_stages, CASCADE, ("1",)), ("1",))
    assert is_cut_alike(load_model(unlike_first_stages, CASCADE, ("0",)), ("0",))  # which knows the smallest alone


def test_what_folds_that_are_unlike_mean_is_said_before_the_work_and_kept(unlike, capsys):
    model = calibrate(unlike, device="cpu", shifts=False)
    printed = capsys.readouterr().out
    tiles = "on patches of 8 x 8 x 8 (fold 0) and 8 x 16 x 16 (folds 1 and 2) voxels: all predict tiles of 8 x 8 x 8"
    assert tiles in printed
    assert "(fold 0 for 100, fold 1 for 1000 and fold 2 for 1000)" in printed
    assert any(tiles in note for note in model.notes)


def guarantee_of(work: Path, output: Path, **options: object) -> str:
    predict(work, work.parent / "raw" / "imagesTr", output, device="cpu", part="1/6", **options)
    (case,) = judged_cases(output)
    return CaseQuality.load(quality_file(output, case)).guarantee


def test_all_of_the_unlike_folds_keep_the_promise_and_some_alone_do_not(unlike, tmp_path):
    assert guarantee_of(unlike, tmp_path / "all") == "exchangeable"
    alone = guarantee_of(unlike, tmp_path / "two", folds=("1", "2"))
    assert alone.startswith("withdrawn: the model was calibrated for all its folds together (folds 1 and 2 alone")
    assert "with tiles of 8 x 16 x 16 voxels instead of 8 x 8 x 8, which all folds know" in alone
    short = guarantee_of(unlike, tmp_path / "short", folds=("0",))  # with the same tiles
    assert short.endswith("(fold 0 alone, of folds that were trained for unlike numbers of steps)")


def test_what_was_found_with_tiles_of_one_fold_is_found_anew(unlike):
    model = load_model(unlike, "3d_fullres")
    assert not is_cut_alike(model, ("1",))
    assert is_cut_alike(model, ("0",))
    assert is_cut_alike(model, ("0", "1", "2"))


def test_a_calibration_of_an_earlier_version_refuses_other_tiles_and_says_what_helps(unlike, tmp_path):
    work = Path(shutil.copytree(unlike.parent, tmp_path / "older")) / "work"
    content = json.loads((work / QUALITY_FILE).read_text())
    for name in ("tiling", "untiled_digest", "steps"):
        del content["identity"][name]
    (work / QUALITY_FILE).write_text(json.dumps(content))
    message = "cuts them otherwise for these folds than for all together.*; run segfw calibrate anew"
    with pytest.raises(UserError, match=message):
        guarantee_of(work, tmp_path / "masks", folds=("1",))
    calibrate(work, device="cpu", shifts=False)
    assert guarantee_of(work, tmp_path / "masks", folds=("1",)).startswith("withdrawn")

"""``segfw status``: what is recognised, how far it is, and that looking changes and loads nothing."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.data import make_images
from builders.masks import box, geometry
from builders.models import make_model
from builders.quality_files import structure, write_quality
from segfw.base.locks import claimed, held
from segfw.cli import main
from segfw.evaluation.metrics import Scores
from segfw.images.formats import write_labels
from segfw.inference.prediction_calls import note_call
from segfw.standing.of_fold import FoldStanding
from segfw.standing.recognise import RECOGNISERS, standing_of
from segfw.verbs.measure import measure

BEFORE = Path(__file__).parents[1] / "written_before"
RUN = Path("runs", "3d_fullres")


def tree(folder):
    """Every file with its content and time."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def work(tmp_path):
    """Fold 0 of 2d and 3d_fullres finished, fold 1 interrupted after 2 of 4 epochs, fold 2 not begun."""
    return Path(shutil.copytree(BEFORE / "work", tmp_path / "my work"))


def folds_of(answer, name="3d_fullres"):
    (found,) = [each for each in answer.configurations if each.name == name]
    return {fold.fold: fold for fold in found.folds}


def write_epochs(folder, epochs, seconds_each, settings):
    folder.mkdir(parents=True)
    row = {"epoch_s": 1.0, "steps": 1, "train_loss": 0.0, "val_loss": 0.0}
    lines = [
        json.dumps(row | {"epoch": number, "elapsed_s": (number + 1) * seconds_each, "val_dice": 0.1 * (number + 1)})
        for number in range(epochs)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    kept = json.loads((BEFORE / "work" / RUN / "fold_1" / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(kept | settings))


def test_a_work_folder_says_how_far_each_fold_is_and_what_comes_next(work):
    before = tree(work)
    answer = standing_of(work)
    assert tree(work) == before
    assert (answer.kind, answer.dataset, answer.cases, answer.channels) == ("work", "raw", 6, ("MR",))
    assert [each.cases_preprocessed for each in answer.configurations] == [6, 6]
    folds = folds_of(answer)
    assert [folds[name].state for name in "012"] == ["finished", "interrupted", "not begun"]
    assert (folds["1"].epochs_done, folds["1"].epochs, folds["1"].resumable) == (2, 4, True)
    assert (folds["0"].dice_of, folds["1"].dice_of) == ("whole validation cases", "validation patches")
    assert folds["0"].dice == pytest.approx(0.976, abs=5e-4)
    assert answer.selection == "3d_fullres"
    assert answer.next == f"segfw train '{work}' 3d_fullres 1 --resume"


def test_hours_left_follow_from_the_epochs_so_far_or_from_the_budget(work):
    write_epochs(work / RUN / "fold_2", 10, 360.0, {"epochs": 40})  # an hour for 10 epochs: 3 more for 30
    shutil.rmtree(work / RUN / "fold_1")
    answer = standing_of(work)
    fold = folds_of(answer)["2"]
    assert (fold.epochs_done, fold.hours_spent, fold.hours_left) == (10, 1.0, 3.0)
    assert fold.dice == pytest.approx(1.0)
    assert not fold.resumable  # there is no checkpoint yet
    assert answer.hours_left == 3.0
    # Fold 1 takes the mean of fold 0, which took a moment, and of fold 2, which takes 4 hours.
    assert answer.hours_left_with_all == pytest.approx(3 + 2, abs=0.02)
    shutil.rmtree(work / RUN / "fold_2")
    write_epochs(work / RUN / "fold_2", 3, 600.0, {"time_budget_s": 7200.0})
    fold = folds_of(standing_of(work))["2"]
    assert (fold.epochs, fold.hours_spent, fold.hours_left) == (None, 0.5, 1.5)


def test_who_trains_now_is_told_and_the_dead_are_not(work):
    lock = work / RUN / ".fold_1.lock"
    with held(lock, "the fold: is being trained", "wait"):
        answer = standing_of(work)
        fold = folds_of(answer)["1"]
        assert (fold.state, fold.resumable, fold.holder.process) == ("running", False, os.getpid())
        assert f"running (process {os.getpid()} on " in fold.text()
        assert answer.next == f"segfw status '{work}'"
        holder = lock.with_name(lock.name + ".json").read_bytes()
    lock.with_name(lock.name + ".json").write_bytes(holder)  # as a killed process leaves it
    lock.touch()
    assert folds_of(standing_of(work))["1"].state == "interrupted"


def test_what_comes_next_is_what_is_missing(work):
    shutil.rmtree(work / RUN / "fold_1")
    assert standing_of(work).next == f"segfw predict '{work}' NEW_IMAGES MASKS"
    (work / "selection.json").unlink()
    assert standing_of(work).next == f"segfw predict '{work}' NEW_IMAGES MASKS --configuration 2d"
    (work / RUN / "fold_0" / "validation" / "scores.json").unlink()
    answer = standing_of(work)
    assert folds_of(answer)["0"].state == "trained"
    assert answer.next == f"segfw train '{work}' 3d_fullres 0"
    shutil.rmtree(work / "runs")
    assert standing_of(work).next == f"segfw train '{work}' 3d_fullres 0"
    shutil.rmtree(work / "preprocessed")
    assert standing_of(work).next.startswith("segfw plan-and-preprocess ")


def test_a_model_says_its_folds_and_where_it_is_from():
    file = standing_of(BEFORE / "model.zip")
    assert (file.kind, file.form, file.trained_folds) == ("model", "file", {"3d_fullres": ("0",)})
    assert "Licence: CC0-1.0." in file.text()
    imported = standing_of(BEFORE / "imported")
    assert (imported.kind, imported.form, imported.is_imported) == ("model", "folder", True)
    assert imported.channels == ("CT", "PET")


def test_a_folder_of_masks_says_what_is_done_failed_left_and_being_worked_on(tmp_path):
    masks = Path(shutil.copytree(BEFORE / "predicted", tmp_path / "masks"))
    old = standing_of(masks)
    assert (old.kind, old.done, old.is_left_known) == ("masks", ("new_20", "new_21"), False)
    cases = ("new_20", "new_21", "new_22", "new_23", "new_24")
    note_call(masks, Path("work"), Path("new scans"), cases, "1/1")
    (masks / "failures.json").write_text('{"failed": {"new_22": "is not readable"}}')
    with claimed(masks / ".segfw" / "new_23.lock"):
        answer = standing_of(masks)
    assert (answer.done, answer.failed, answer.left) == (("new_20", "new_21"), ("new_22",), ("new_23", "new_24"))
    assert answer.in_work == ("new_23",)
    assert (answer.configuration, answer.folds) == ("3d_fullres", ("0",))
    assert answer.seconds_left == pytest.approx(answer.seconds_spent)  # two are done and two are left
    assert answer.next == f"segfw predict work 'new scans' {masks}"
    assert "2 done, 1 failed, 2 left, 1 being worked on now" in answer.text()


def test_predict_keeps_what_it_was_asked_for(tmp_path, capsys):
    model = make_model(tmp_path / "model")
    images = make_images(tmp_path / "images", 2)
    asked = ["predict", str(model), str(images), str(tmp_path / "masks"), "--device", "cpu", "--no-mirroring"]
    assert main([*asked, "--part", "1/2"]) == 0
    half = standing_of(tmp_path / "masks")
    assert (half.done, half.left, half.is_left_known) == (("a",), (), True)
    assert half.seconds_spent > 0
    assert main(asked) == 0
    whole = standing_of(tmp_path / "masks")
    assert (whole.done, whole.model, whole.images) == (("a", "b"), model, images)
    assert whole.next.startswith("segfw evaluate ")
    # Judged ones are looked at first, as predict says
    write_quality(tmp_path / "masks", "a", [structure("liver", 0.9)])
    assert standing_of(tmp_path / "masks").next == f"segfw queue {tmp_path / 'masks'}"


def test_data_scores_and_models_for_other_programs_are_recognised(tmp_path, make_raw):
    data = standing_of(make_raw(cases=3))
    assert (data.kind, data.layout, data.cases) == ("data", "nnunet", ("case_00", "case_01", "case_02"))
    assert data.labels == ("bright", "dark")

    written = BEFORE / "work" / RUN / "fold_0" / "validation" / "scores.json"
    scores = standing_of(written)
    wanted = Scores.load(written)
    assert (scores.kind, scores.cases) == ("scores", len(wanted.cases))
    assert scores.dice == wanted.foreground_mean.dice

    onnx = tmp_path / "onnx"
    onnx.mkdir()
    pipeline = {
        "format": "segfw onnx 1",
        "dataset": "d",
        "configuration": "2d",
        "folds": ["0", "1"],
        "channels": ["CT"],
    }
    (onnx / "pipeline.json").write_text(json.dumps(pipeline | {"tiles": {}}))
    assert standing_of(onnx).text().startswith(f"{onnx}: ONNX networks of d, 2d, fold 0 and 1, channels CT\n")

    nnunet = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    (nnunet / "fold_0").mkdir(parents=True)
    (nnunet / "plans.json").write_text("{}")
    (nnunet / "fold_0" / "checkpoint_final.pth").touch()
    assert (standing_of(nnunet).kind, standing_of(nnunet).folds) == ("nnunet", ("0",))


def test_anything_else_is_one_sentence(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for path, said in (
        (tmp_path / "other", "is nothing that segfw knows"),
        (tmp_path / "other" / "notes.txt", "is nothing that segfw knows"),
        (tmp_path / "nowhere", "no such file or folder"),
    ):
        assert main(["status", str(path)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"segfw: {path}: {said}; give" in shown.err
    damaged = tmp_path / "work"
    damaged.mkdir()
    for name in ("plan.json", "splits.json"):
        (damaged / name).write_text("{}")
    assert main(["status", str(damaged)]) == 2
    assert f"{damaged / 'plan.json'}: field 'dataset'" in capsys.readouterr().err


def test_json_is_the_record_with_its_kind(capsys):
    for name, kind in (("work", "work"), ("model.zip", "model"), ("predicted", "masks"), ("raw", "data")):
        assert main(["status", str(BEFORE / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == kind
        assert kind in RECOGNISERS
        assert found["next"].startswith("segfw ")


def test_looking_loads_no_torch_and_opens_no_image():
    code = (
        "import sys; from segfw.cli import main; codes = [main(['status', path]) for path in sys.argv[1:]]; "
        "print(codes, 'torch' in sys.modules, 'nibabel' in sys.modules)"
    )
    paths = [str(BEFORE / name) for name in ("work", "model.zip", "imported", "predicted", "raw")]
    result = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, timeout=300
    )
    assert result.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0] False False"


def test_text_of_a_fold():
    fold = FoldStanding(
        fold="3", state="interrupted", resumable=True, epochs_done=12, epochs=100, dice=0.7125, hours_spent=1.2
    )
    fold = fold.model_copy(update={"dice_of": "validation patches", "hours_left": 9.84})
    assert fold.text() == (
        "fold 3: interrupted, 12 of 100 epochs done, can be resumed, Dice 0.713 of validation patches, 72 min spent, "
        "about 9.8 h left"
    )


def test_measures_are_recognised_with_what_is_missing(tmp_path):
    for number in range(3):
        mask = box((1, 3), (1, 5), (1, 5)) if number else box((0, 3), (1, 5), (1, 5))
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_labels(tmp_path / "masks" / f"case_{number}.nii.gz", mask, geometry())
    measure(tmp_path / "masks", tmp_path / "m.csv", part="1/2")
    found = standing_of(tmp_path / "m.json")
    assert (found.kind, found.cases, found.structures, found.missing) == ("measures", 2, ("label_1",), ("case_1",))
    assert (found.statuses["whole"], found.statuses["cut"]) == (1, 1)
    assert "statuses: 1 whole and 1 cut" in found.text()
    words = shlex.split(found.next)
    assert words[:2] == ["segfw", "measure"]
    assert main(words[1:]) == 0  # the line can be pasted, and does what is missing
    assert standing_of(tmp_path / "m.json").missing == ()


def test_the_next_line_of_measures_does_not_lose_their_features(tmp_path):
    (tmp_path / "masks").mkdir()
    write_labels(tmp_path / "masks" / "a.nii.gz", box((1, 3), (1, 5), (1, 5)), geometry())
    measure(tmp_path / "masks", tmp_path / "m.csv")
    assert "--radiomics" not in standing_of(tmp_path / "m.json").next
    content = json.loads((tmp_path / "m.json").read_text())
    (tmp_path / "m_radiomics.csv").write_text("case\n")  # of a version that did not keep what was asked
    assert shlex.split(standing_of(tmp_path / "m.json").next)[-1] == "--radiomics"
    (tmp_path / "m_radiomics.csv").unlink()
    (tmp_path / "m.json").write_text(json.dumps(content | {"radiomics": True, "stability": 5}))
    assert shlex.split(standing_of(tmp_path / "m.json").next)[-3:] == ["--radiomics", "--stability", "5"]


def test_the_next_line_of_measures_has_their_options(tmp_path):
    for number in range(3):
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = box((1, 3), (1, 5), (1, 5)) + box((1, 3), (6, 8), (1, 5), value=2)
        write_labels(tmp_path / "masks" / f"patient1_t{number}.nii.gz", mask, geometry())
    table = tmp_path / "names.csv"
    table.write_text("value,name\n1,left kidney\n2,liver\n")
    measure(
        tmp_path / "masks",
        tmp_path / "m.csv",
        part="1/2",
        only=("liver",),
        per_component=True,
        label_names=table,
        by_patient="(patient[0-9]+)_",
    )
    words = shlex.split(standing_of(tmp_path / "m.json").next)
    assert main(words[1:]) == 0
    assert standing_of(tmp_path / "m.json").missing == ()
    patients = (tmp_path / "m_patients.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in patients[1:]] == [
        ["patient1", "liver", "patient1_t0", f"patient1_t{number}"] for number in (1, 2)
    ]
    assert (tmp_path / "m_components.csv").is_file()

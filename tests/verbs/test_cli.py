"""The command line: help at once, one sentence for wrong input, and the promised exit codes."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import segfw
from builders.data import blocks_case, write_nifti
from segfw.base.durations import duration_s
from segfw.cli import build_parser, command_of, main
from segfw.inference.prediction_options import PredictOptions
from segfw.training.settings import TrainOptions, TrainSettings

VERBS = (
    *(
        "check",
        "join",
        "run",
        "plan-and-preprocess",
        "pretrain",
        "compare-starts",
        "train",
        "predict",
        "ensemble",
        "select",
    ),
    *("calibrate",),
    *("evaluate", "measure", "outcome", "stress", "refine", "queue", "review", "accept", "reject"),
    *("import-corrected", "deliver", "retrain", "serve-monailabel", "export", "import-nnunet", "info", "find"),
    *("status", "doctor", "demo", "completion"),
)


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("12m", 720), ("1h30m", 5400), ("2h", 7200), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "m", "-3m", "0s", "1d", "90 s m"])
def test_what_is_no_duration(text, capsys):
    assert main(["train", "work", "2d", "0", f"--time-budget={text}"]) == 2
    assert "duration" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example_that_parses(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    example = re.search(r"example: segfw (.*)$", shown).group(1)
    assert build_parser().parse_args(shlex.split(example)).verb == verb


@pytest.mark.parametrize("kind", ["--onnx", "--nnunet"])
def test_the_kind_of_export_may_stand_before_or_after_the_folder(kind):
    for arguments in (["work", "out", kind], ["work", kind, "out"], [kind, "work", "out"]):
        args = build_parser().parse_args(["export", *arguments])
        assert (args.model, args.output, args.onnx, args.nnunet) == (
            *(Path("work"), Path("out")),
            *(kind == "--onnx", kind == "--nnunet"),
        )


FUNCTIONS = {verb: verb.replace("-", "_") for verb in VERBS[1:12]} | {
    "check": "check_dataset",
    "export": "export_model",
    "import-nnunet": "import_nnunet",
    "find": "find",
    "deliver": "deliver",
    "retrain": "retrain",
}


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_the_verbs_are_functions_that_take_the_same_arguments(verb):
    parser = next(action for action in build_parser()._actions if action.dest == "verb").choices[verb]
    function = getattr(segfw, FUNCTIONS[verb])
    taken = set(inspect.signature(function).parameters)
    taken |= {each.name for record in function.records.values() for each in fields(record)}
    asked = {action.dest for action in parser._actions} - {"help", "debug", "quiet", "json", "settings_file"}
    if verb == "export":  # of which two forms are functions of their own, and --ending is what export_nnunet takes
        asked -= {"onnx", "nnunet"}
        taken |= set(inspect.signature(segfw.export_nnunet).parameters)
    assert asked <= taken
    page = Path(__file__).parents[2] / "docs" / "howto" / "python.md"
    assert re.search(rf"`segfw[ .]{verb}`|segfw.{FUNCTIONS[verb]}`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("verb", VERBS)
def test_options_have_allowed_defaults(verb):
    for record in command_of(verb).records.values():  # whose defaults are not checked when it is made
        assert set(record().as_json()) == {each.name for each in fields(record)}


def test_what_is_typed_becomes_the_records():
    typed = build_parser().parse_args(
        ["train", "work", "2d", "0", "--epochs", "3", "--time-budget", "2m", "--mirroring", "off", "--extend", "1h"]
    )
    assert TrainSettings.from_arguments(typed) == TrainSettings(epochs=3, time_budget_s=120.0, mirroring=False)
    assert TrainOptions.from_arguments(typed) == TrainOptions(extend_s=3600.0)
    typed = build_parser().parse_args(
        ["predict", "work", "new", "masks", "--weights", "best", "--no-mirroring", "--device", "cuda:0", "cuda:1"]
    )
    options = PredictOptions(best=True, mirroring=False, device=("cuda:0", "cuda:1"))
    assert PredictOptions.from_arguments(typed) == options


def test_help_does_not_wait_for_torch():
    code = "import sys; from segfw.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules, 'nibabel' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert result.stdout.splitlines()[-1] == "False False"


def test_help_of_a_verb_reads_no_other_verb():
    code = "import sys; from segfw.cli import main\ntry: main(['info', '--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted(name for name in sys.modules if name.startswith('segfw.verbs.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert result.stdout.splitlines()[-1] == "['segfw.verbs.info']"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["run", "nowhere", "work"], "segfw: nowhere: no such folder; give the folder that holds the images and masks"),
        (
            ["train", "work", "2d", "0"],
            "segfw: work: no such folder; give the work folder of segfw run or segfw plan-and-",
        ),
        (["predict", "work", "in", "out"], "segfw: work: no such folder or file; give the work folder"),
        (["evaluate", "a", "b"], "segfw: a: no such folder; give the folder that holds the masks"),
        (["info", "work"], "segfw: work: no such folder; run segfw plan-and-preprocess RAW work first"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(sentence)
    assert len(errors.splitlines()) == 1


def test_debug_shows_the_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--debug", "info", "work"]) == main(["info", "work", "--debug"]) == 2
    assert capsys.readouterr().err.count("Traceback") == 2


def test_unknown_device_is_wrong_input(capsys, make_raw, tmp_path):
    work = str(tmp_path / "work")
    assert main(["run", str(make_raw()), work, "--device", "gpu9", "--folds", "0"]) == 2
    assert "--device 'gpu9' is unknown; use auto, cpu, cuda, cuda:1 or mps" in capsys.readouterr().err


def test_the_whole_chain_by_the_command_line(make_raw, tmp_path, capsys):
    raw, work, masks = make_raw(), str(tmp_path / "work"), tmp_path / "masks"
    short = ["--epochs", "1", "--steps-per-epoch", "1", "--device", "cpu"]
    assert main(["plan-and-preprocess", str(raw), work, "--configurations", "3d_fullres"]) == 0
    assert "next: segfw train" in capsys.readouterr().out
    assert main(["train", work, "3d_fullres", "0", *short]) == 0
    assert f"next: segfw predict {work}" in capsys.readouterr().out
    assert main(["predict", work, str(raw / "imagesTr"), str(masks), "--device", "cpu", "--no-mirroring"]) == 0
    assert "next: segfw evaluate" in capsys.readouterr().out
    output, report = tmp_path / "scores.json", tmp_path / "report.html"
    scoring = ["--output", str(output), "--report", str(report), "--images", str(raw / "imagesTr")]
    assert main(["evaluate", str(masks), str(raw / "labelsTr"), *scoring]) == 0
    table = capsys.readouterr().out
    assert re.search(r"bright +\d\.\d{3}", table)
    assert output.with_suffix(".csv").is_file()
    assert "case_03" in report.read_text()
    assert main(["info", work, "--device", "cpu"]) == 0
    explained = capsys.readouterr().out
    assert "Labels in the files: bright = 3, dark = 7." in explained
    assert "Target spacing (z, y, x) 4 x 1.5 x 1 mm: the median of 6 cases." in explained
    assert "Fold 0 is trained." in explained
    assert re.search(r"about [\d.,]+ hours per fold", explained)


def test_some_failed_cases_are_exit_code_1(make_raw, tmp_path, capsys):
    raw, work = make_raw(), str(tmp_path / "work")
    short = ["--epochs", "1", "--steps-per-epoch", "1", "--device", "cpu", "--configurations", "3d_fullres"]
    assert main(["run", str(raw), work, *short, "--folds", "0"]) == 0
    write_nifti(tmp_path / "new" / "good.nii.gz", blocks_case(9)[0])
    (tmp_path / "new" / "bad.nii.gz").write_text("not an image")
    assert main(["predict", work, str(tmp_path / "new"), str(tmp_path / "masks"), "--device", "cpu"]) == 1
    errors = capsys.readouterr().err
    assert "segfw: 1 case failed in prediction, all others are done" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "masks" / "good.nii.gz").is_file()


def test_data_problems_are_all_listed_and_nothing_is_started(make_raw, tmp_path, capsys):
    raw, work = make_raw(), tmp_path / "work"
    (raw / "labelsTr" / "case_01.nii.gz").unlink()
    image, mask = blocks_case(2)
    write_nifti(raw / "labelsTr" / "case_02.nii.gz", mask + 1)
    assert main(["run", str(raw), str(work)]) == 2
    errors = capsys.readouterr().err
    assert "2 problems in 5 cases; nothing was started" in errors
    assert "case_01: imagesTr/case_01_0000.nii.gz: has no mask; add the mask or move the image" in errors
    assert "case_02: labelsTr/case_02.nii.gz: holds the label value 1, 4, 8, which dataset.json does not list" in errors
    assert not work.exists()


def test_doctor_names_versions_device_memory_and_disk(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for part in ("Python 3.", "torch ", "Memory: ", "Disk here: ", "segfw will use: "):
        assert part in shown


def test_check_says_what_is_wrong_and_ends_with_its_code(make_raw, tmp_path, capsys):
    raw = make_raw(cases=5)
    assert main(["check", str(raw), "--output", str(tmp_path / "report")]) == 0
    assert "5 cases" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"check.json", "check.html"}
    shutil.copyfile(raw / "imagesTr" / "case_01_0000.nii.gz", raw / "imagesTr" / "case_02_0000.nii.gz")
    assert main(["check", str(raw)]) == 1
    assert "the image is the same as that of case_01" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("given, meant", [("auto", "auto"), ("24", 24.0)])
def test_memory_is_a_number_or_auto(given, meant):
    assert build_parser().parse_args(["run", "a", "b", "--gpu-memory-gb", given]).gpu_memory_gb == meant


def test_every_verb_of_the_parser_is_tested_here():
    choices = next(action for action in build_parser()._actions if action.dest == "verb").choices
    assert tuple(choices) == VERBS


def test_interrupting_says_how_to_go_on(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("segfw.base.machine.describe_machine", interrupted)
    assert main(["doctor"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err

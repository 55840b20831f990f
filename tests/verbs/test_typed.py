"""What people type wrong, and the sentence that they get for it: exit code 2, one line, nothing written."""

from __future__ import annotations

import pytest

from segfw.base.errors import UserError
from segfw.cli import VERBS, build_parser, main

TYPED = {
    # Verbs
    "trian work 2d 0": "there is no verb 'trian'; did you mean train?",
    "chek raw": "there is no verb 'chek'; did you mean check?",
    "tra work 2d 0": "there is no verb 'tra'; did you mean train?",
    "e a b": "there is no verb 'e'; did you mean ensemble, evaluate or export?",
    "plan_and_preprocess raw work": "there is no verb 'plan_and_preprocess'; did you mean plan-and-preprocess?",
    "help pridict": "there is no verb 'pridict'; did you mean predict?",
    "hlep": "there is no verb 'hlep'; did you mean help?",
    "xyzzy": "there is no verb 'xyzzy'; segfw --help lists them",
    "--epochs 3 train work 2d 0": "segfw has no option --epochs; the options of a verb stand after it",
    "--vershun": "segfw has no option --vershun; did you mean --version?",
    # Options
    "train work 2d 0 --epoch 3": "train has no option --epoch; did you mean --epochs?",
    "train work 2d 0 --e 3": "train has no option --e; did you mean --epochs, --elastic or --extend?",
    "run raw work --presett plain": "run has no option --presett; did you mean --preset?",
    "run raw work --configuration 2d": "run has no option --configuration; did you mean --configurations?",
    "run raw work --time_budget 2h": "run has no option --time_budget; did you mean --time-budget?",
    "run raw work --Folds 0": "run has no option --Folds; did you mean --folds?",
    "run raw work -folds 0": "run has no option -folds; did you mean --folds?",
    "run raw work --quite": "run has no option --quite; did you mean --quiet?",
    "predict work new masks --gpu": "predict has no option --gpu; the options are in segfw predict --help",
    # Values
    "train work 2d 0 --precision fp31": "--precision: 'fp31' is none of auto, fp32, bf16 and fp16; did you mean fp32?",
    "train work 2d 0 --mirroring yes": "--mirroring: 'yes' is none of auto, on and off",
    "train work 2d 0 --augmentation devise": (
        "--augmentation: 'devise' is none of device, reference and none; did you mean device?"
    ),
    "predict m new masks --save-probabilities 7": "--save-probabilities: 7 is none of 8 and 16",
    "train work 2d 0 --epochs three": "--epochs: 'three' is no whole number",
    "predict m new masks --step half": "--step: 'half' is no number",
    "train work 2d 0 --time-budget 12": "--time-budget: '12' is no duration; write for example 90s, 12m, 2h or 1h30m",
    "run raw work --gpu-memory-gb all": "--gpu-memory-gb: 'all' is neither a number of GB nor auto",
    "train work 2d 0 --epochs": "--epochs needs a value",
    "run raw work --spacing-mm 1 2": "--spacing-mm needs 3 values",
    "run raw work --folds": "--folds needs at least one value",
    "train work 2d 0 --resume=yes": "--resume takes no value; leave out yes",
    "export work out --onnx --nnunet": "--nnunet and --onnx exclude each other; leave out one of them",
    # Too little and too much
    "train work": "train needs CONFIGURATION and FOLD; for example: segfw train work 3d_fullres 0 --time-budget 2h",
    "ensemble a b": "ensemble needs --output; for example: segfw ensemble masks_2d masks_3d --output masks",
    "train work 2d 0 1": "train takes no '1' after WORK, CONFIGURATION and FOLD; leave it out",
    "doctor work": "doctor takes no 'work' after its name; leave it out",
}


@pytest.mark.parametrize("typed", TYPED)
def test_what_is_typed_wrong_is_one_sentence(typed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    said = capsys.readouterr()
    assert said.err == f"segfw: {TYPED[typed]}\n"
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_begins_like_an_option_is_told_how_to_give_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-liver.csv").touch()
    typed = "refine work scan.nii.gz mask.nii.gz --output new.nii.gz --clicks -liver.csv"
    assert main(typed.split()) == 2
    assert capsys.readouterr().err == (
        "segfw: refine has no option -liver.csv; write ./-liver.csv for the file of that name\n"
    )


def verb_parsers():
    return next(action for action in build_parser()._actions if action.dest == "verb").choices


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_and_no_option_is_known_by_its_beginning(verb):
    with pytest.raises(UserError, match=f"there is no verb '{verb[:-1]}'; did you mean .*{verb}"):
        build_parser().parse_args([verb[:-1]])
    parser = verb_parsers()[verb]
    options = [name for name in parser._option_string_actions if name.startswith("--")]
    assert {"--help", "--debug", "--quiet"} <= set(options)
    for option in options:
        short = option[:-1]
        if short not in options:
            with pytest.raises(UserError, match=rf"^{verb} has no option {short}; did you mean .*{option}\b"):
                parser.parse_args([short])


def test_segfw_alone_and_help_show_the_verbs(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    for arguments in (["--help"], ["help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert capsys.readouterr().out == alone
    assert all(f"\n    {verb}" in alone for verb in VERBS)


def test_help_of_a_verb_is_the_verbs_help(capsys):
    shown = []
    for arguments in (["help", "train"], ["train", "--help"], ["train", "-h"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == shown[2]
    assert "example: segfw train work" in shown[0]


def test_the_version_is_that_of_the_package(capsys):
    import segfw

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"segfw {segfw.__version__}\n"

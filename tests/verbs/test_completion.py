"""The scripts of ``segfw completion`` complete in the shells that are here: bash always, others where installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from segfw.cli import VERBS, main
from segfw.verbs.completion import SHELLS

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            assert main(["completion", shell, "--quiet"]) == 0
        (folder / shell).write_text(shown.getvalue(), encoding="utf-8")
    return folder


def completed_by_bash(script, words, folder) -> set[str]:
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}\n"
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'\n"
        "COMP_POINT=${#COMP_LINE}\n"
        'function=$(complete -p segfw | sed "s/.*-F \\([^ ]*\\) .*/\\1/")\n'
        f"$function segfw '{words[-1]}' '{words[-2]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    return {line.strip() for line in done.stdout.splitlines()} - {""}


@needs_bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["segfw", "tr"], {"train"}),
        (["segfw", "e"], {"ensemble", "evaluate", "export"}),
        (["segfw", "train", "--ti"], {"--time-budget"}),
        (["segfw", "train", "work", "2d", "0", "--loss", "dice-t"], {"dice-topk"}),
        (["segfw", "run", "raw", "work", "--preset", "resenc"], {"resenc-m", "resenc-l", "resenc-xl"}),
        (["segfw", "completion", "z"], {"zsh"}),
        (["segfw", "check", "hippo"], {"hippocampus"}),
        (["segfw", "run", "raw", "work", "--settings", "ru"], {"run.toml"}),
    ],
)
def test_bash_completes_verbs_options_choices_and_files(words, offered, scripts, tmp_path):
    (tmp_path / "hippocampus").mkdir()
    (tmp_path / "run.toml").touch()
    assert completed_by_bash(scripts / "bash", words, tmp_path) == offered


@needs_bash
def test_bash_offers_every_verb_and_every_option_of_a_verb(scripts, tmp_path):
    assert completed_by_bash(scripts / "bash", ["segfw", ""], tmp_path) >= set(VERBS)
    options = completed_by_bash(scripts / "bash", ["segfw", "predict", "--"], tmp_path)
    assert {"--folds", "--device", "--save-probabilities", "--no-mirroring"} <= options
    assert "--epochs" not in options


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(scripts):
    code = f"source {scripts / 'fish'}; complete -C 'segfw tr'; complete -C 'segfw train w 2d 0 --loss dice-t'"
    done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["train", "dice-topk"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(scripts):
    subprocess.run(["zsh", "-n", scripts / "zsh"], check=True, timeout=300)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_knows_verbs_options_and_choices(shell, scripts):
    text = (scripts / shell).read_text(encoding="utf-8")
    for word in ("plan-and-preprocess", "save-probabilities", "dice-topk"):
        assert re.search(rf"\b{word}\b", text)


def test_a_shell_that_is_not_known_is_told(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == ("segfw: shell: 'tcsh' is none of bash, zsh, fish and powershell\n")

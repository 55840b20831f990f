"""One entry for all measurements, and what runs beside nnU-Net stands alone."""

import ast
import subprocess
import sys

import pytest

from bench import CLONE
from bench.__main__ import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_its_options(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m bench {verb} ")


def test_the_entry_lists_all_verbs_in_the_root_of_a_clone():
    shown = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=CLONE, capture_output=True, text=True, check=True, timeout=300
    )
    assert [line.split()[0] for line in shown.stdout.splitlines()[2:]] == list(VERBS)


@pytest.mark.parametrize("path", sorted((CLONE / "bench" / "in_nnunet").glob("*.py")), ids=lambda path: path.stem)
def test_what_runs_in_nnunets_environment_imports_nothing_of_segfw(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert not [name for name in imported if name.split(".")[0] == "segfw"]
    bench = {name for name in imported if name.split(".")[0] == "bench"}
    assert all(name.startswith("bench.in_nnunet.") for name in bench)

"""The notebook is clean and short and says how it can be made shorter; ``make docs-commands`` runs it."""

import ast
import json

import segfw
from documents.blocks import ROOT
from documents.notebook import NOTEBOOK, SHORT, cells


def test_the_notebook_holds_no_outputs_and_code_that_python_can_read():
    held = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))
    code = [cell for cell in held["cells"] if cell["cell_type"] == "code"]
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert len({cell["id"] for cell in held["cells"]}) == len(held["cells"])
    assert (ROOT / NOTEBOOK).stat().st_size < 20_000
    assert len(code) > 5


def test_its_first_cell_says_how_much_is_computed():
    code = [text for kind, text in cells() if kind == "code"]
    names = {target.id for node in ast.parse(code[0]).body for target in node.targets}
    assert names == set(SHORT)


def test_what_it_calls_of_segfw_is_public():
    code = "\n".join(text for kind, text in cells() if kind == "code")
    called = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "segfw"
    }
    assert {"check_dataset", "run", "predict", "evaluate", "export_model"} <= called <= set(segfw.__all__)

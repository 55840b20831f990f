"""The tutorial as a notebook: its cells of code run one after the other, short, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path

from documents.blocks import ROOT
from documents.walk import inside

NOTEBOOK = "docs/tutorial.ipynb"
# The first cell of code says how much is computed; this stands in its place.
SHORT = {"CASES": 6, "TEST_CASES": 2, "TRAINING": {"epochs": 1, "steps_per_epoch": 2}}


def cells() -> list[tuple[str, str]]:
    """Kind and text of each cell."""
    held = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in held["cells"]]


def run_notebook(folder: Path) -> dict[str, object]:
    """Runs the cells of code in a folder; what they have defined."""
    import matplotlib

    matplotlib.use("Agg")  # no window
    names: dict[str, object] = {"__name__": "notebook"}
    code = [text for kind, text in cells() if kind == "code"]
    with inside(folder):
        for number, text in enumerate(code, 1):
            exec(compile(text, f"{NOTEBOOK}, cell {number}", "exec"), names)
            if number == 1:
                missing = SHORT.keys() - names.keys()
                if missing:
                    raise ValueError(f"{NOTEBOOK}: its first cell does not set {', '.join(sorted(missing))}")
                names |= SHORT
    return names

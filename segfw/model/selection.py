"""What ``segfw select`` found best, as MODEL/selection.json keeps it: one verb writes it, all that predict read it."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import Record
from segfw.model.postprocess import Postprocessing
from segfw.model.source import SELECTION_FILE, read_model_file, trained_folds

SEPARATOR = " + "  # between the names of a pair


class Candidate(Record):
    """One configuration, or two whose probabilities are averaged, and its mean Dice in cross-validation."""

    configurations: tuple[str, ...]
    stages: int  # networks that run one after the other: a cascade has two
    foreground_mean: float | None
    labels: dict[str, float | None]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.configurations)


class Trial(Record):
    """One step of postprocessing that was tried: mean Dice of all structures before and after, and whether it stays."""

    name: str
    before: float | None
    after: float | None
    is_kept: bool


class Selection(Record):
    """What ``predict`` uses without further options, and how it came about."""

    configurations: tuple[str, ...]
    folds: dict[str, tuple[str, ...]]  # by configuration: all trained ones, which predict together
    postprocessing: Postprocessing
    compared_folds: tuple[str, ...]  # whose validation cases all candidates were scored on
    cases: int
    is_whole_cross_validation: bool
    tolerance: float
    candidates: tuple[Candidate, ...]  # without postprocessing, best first
    trials: tuple[Trial, ...]  # steps of postprocessing
    labels: dict[str, float | None]  # mean Dice of what was selected, after postprocessing
    foreground_mean: float | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.configurations)


def load_selection(work: Path) -> Selection | None:
    """What ``select`` found best, None if it was not run.

    Prints a warning if folds have been trained since. UserError if the file is damaged.
    """
    path = Path(work) / SELECTION_FILE
    content = read_model_file(path)  # also where the model is one file
    if content is None:
        return None
    selection = Selection.parse(content, path)
    for name, folds in selection.folds.items():
        if set(folds) != set(trained_folds(Path(work), name)) - {"all"}:
            print(f"warning: the trained folds of {name} have changed since {path} was made; run segfw select again")
    return selection

"""What ``segfw select`` found best, as MODEL/selection.json keeps it: one verb writes it, all that predict read it."""

from __future__ import annotations

from pathlib import Path

from segfw.base.errors import UserError, unreadable
from segfw.base.records import Record
from segfw.base.written_by_people import parse_json
from segfw.model.postprocess import Postprocessing
from segfw.model.source import SELECTION_FILE, ModelSource, postprocessing_file, read_model_file

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


class DecodingTrial(Record):
    """The mask of largest expected Dice of one structure, tried on cases by what was found on others.

    ``gain`` is the change of its mean Dice over patients, with the 90 % interval ``low`` to ``high`` (None of few
    patients). ``temperature`` is by all cases, None where these gain by none: 1, or ``calibrated``, by which
    probabilities agree best with references. ``gain_calibrated`` is the gain if every fold is decoded by that of the
    other folds, whether these gain or not, and ``gain_uncalibrated`` if every fold is by 1.
    """

    name: str
    temperature: float | None
    gain: float
    low: float | None
    high: float | None
    calibrated: float
    gain_calibrated: float
    gain_uncalibrated: float
    patients: int
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
    decoding_trials: tuple[DecodingTrial, ...] = ()
    labels: dict[str, float | None]  # mean Dice of what was selected, after postprocessing
    foreground_mean: float | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return SEPARATOR.join(self.configurations)


def read_selection(source: ModelSource) -> Selection | None:
    """The selection.json of an opened model, None if ``select`` was not run. UserError if it is damaged."""
    content = source.read_if_there(SELECTION_FILE)
    return None if content is None else Selection.parse(content, source.path / SELECTION_FILE)


def current_selection(source: ModelSource) -> Selection | None:
    """As ``read_selection``, with a warning if folds have been trained since."""
    selection = read_selection(source)
    for name, folds in selection.folds.items() if selection else ():
        if set(folds) != set(source.trained_folds(name)) - {"all"}:
            path = source.path / SELECTION_FILE
            print(f"warning: the trained folds of {name} have changed since {path} was made; run segfw select again")
    return selection


def load_selection(work: Path) -> Selection | None:
    """What ``select`` found best, None if it was not run.

    Prints a warning if folds have been trained since. UserError if the file is damaged.
    """
    with ModelSource.open(work) as source:
        return current_selection(source)


def load_postprocessing(path: Path) -> Postprocessing:
    """The steps of a selection.json, or of the postprocessing.json of an imported model, whichever it is by content.

    Also of one inside a model file. Raises UserError if it is neither, such as nnU-Net's own file.
    """
    path = Path(path)
    try:
        content = read_model_file(path)
    except OSError as error:
        raise unreadable(path, error, f"{path}: cannot be read ({error.strerror}); give a file") from None
    if content is None:
        raise UserError(f"{path}: no such file; give a selection.json or a postprocessing.json of a model")
    return postprocessing_in(content, path)


def postprocessing_in(content: bytes, path: Path) -> Postprocessing:
    """As ``load_postprocessing``, of the content of the file ``path``, which errors name."""
    try:
        found = parse_json(content, path)
    except UserError:
        found = None
    keys = found.keys() if isinstance(found, dict) else set()
    if path.suffix == ".pkl" or "postprocessing_fns" in keys:
        where = postprocessing_file(Path("MODEL"), "CONFIGURATION")
        raise UserError(f"{path}: is nnU-Net's own; import its model first and give the {where} that this makes")
    if {"configurations", "postprocessing"} <= keys:
        return Selection.parse(content, path).postprocessing
    if "steps" not in keys:
        raise UserError(f"{path}: holds no steps; give a selection.json or an imported model's postprocessing.json")
    return Postprocessing.parse(content, path)

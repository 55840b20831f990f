"""Where a model lies: a folder or one file (a zip), opened once and then read by the same names.

``plan.json`` and ``runs/CONFIGURATION/fold_K/weights.safetensors``: a work folder is a model, one with only these files
still is, and so is a file of ``segfw export``, whose members have such names as well. Nothing that is read can run
code.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.errors import unreadable
from segfw.base.file_names import PLAN_FILE
from segfw.base.records import GIGABYTE, NAME, UserError
from segfw.model.card import CARD_FILE, Card

if TYPE_CHECKING:
    from segfw.planning.plan import Plan

WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.safetensors"
SELECTION_FILE = "selection.json"
QUALITY_FILE = "quality.json"  # how far masks may be trusted, of segfw calibrate
POSTPROCESSING_FILE = "postprocessing.json"
# The only names a model file may have: no path can lead out of it, and nothing in it is of another kind.
MEMBER = re.compile(
    rf"(model|plan|selection|quality)\.json|runs/{NAME}/(postprocessing\.json|fold_{NAME}/weights\.safetensors)"
)
MOST_MEMBERS = 1000
LARGEST_JSON = 1 << 26  # bytes; a plan has some ten thousand
LARGEST_WEIGHTS = 16 * GIGABYTE  # of one fold


def fold_folder(model_dir: Path, configuration: str, fold: str) -> Path:
    """Where everything about one fold is kept."""
    return model_dir / "runs" / configuration / f"fold_{fold}"


def fold_lock(folder: Path) -> Path:
    """The lock of a fold: beside its folder, which may be deleted and made anew meanwhile."""
    return folder.with_name(f".{folder.name}.lock")


def postprocessing_file(model: Path, configuration: str) -> Path:
    """Where the postprocessing that came with an imported configuration is kept; it is applied only if asked for."""
    return Path(model) / "runs" / configuration / POSTPROCESSING_FILE


def weights_name(configuration: str, fold: str, file: str = WEIGHTS_FILE) -> str:
    """The name inside a model, folder or file, of a fold's file of weights."""
    return (fold_folder(Path(), configuration, fold) / file).as_posix()


def postprocessing_name(configuration: str) -> str:
    """The name inside a model, folder or file, of the postprocessing that came with an imported configuration."""
    return postprocessing_file(Path(), configuration).as_posix()


def is_model_file(model: Path) -> bool:
    """True for a model in one file, as ``segfw export`` writes it; False for a folder."""
    return Path(model).is_file()


def kept_folders(model: Path) -> tuple[Path, Path]:
    """Where a work folder keeps what is trained and preprocessed; no result goes in there."""
    return Path(model) / "runs", Path(model) / "preprocessed"


def is_model_file_of_segfw(path: Path) -> bool:
    """Whether a file is a zip with a card, as ``segfw export`` writes it; what else it holds is not looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            return CARD_FILE in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """An opened model. Names inside it are relative and have '/' between their parts, such as ``plan.json``."""

    path: Path  # of the folder or the file
    root: Path | zipfile.Path  # what the names are below
    card: Card | None  # what a model file says of itself; a folder has none

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[ModelSource]:
        """The model at ``path``, which is closed when the block ends; what is no file is taken for a folder.

        Raises UserError, one sentence, if a file is damaged or holds anything but a model.
        """
        path = Path(path)
        if not is_model_file(path):
            yield cls(path=path, root=path, card=None)
            return
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            damaged = f"{path}: is no model folder and no whole model file of segfw export ({error})"
            raise unreadable(path, error, damaged) from None
        with archive:
            members = archive.infolist()
            # Before zipfile.Path sees the names: Pythons before 3.11.10 and 3.12.6 look for the parents of '//x' for
            # ever (CVE-2024-8088).
            _check_members(path, members)
            root = zipfile.Path(archive)
            card = Card.parse(_content(root, CARD_FILE, path), f"{path}/{CARD_FILE}")
            _check_card_lists(path, members, card)
            yield cls(path=path, root=root, card=card)

    def has(self, name: str) -> bool:
        """True if the model holds a file of this name."""
        return (self.root / name).is_file() if self.card is None else name in self.card.members

    def read(self, name: str) -> bytes:
        """Content of a file that the model holds; UserError if a member of a model file is not what its card says."""
        if self.card is None:
            return (self.root / name).read_bytes()
        if not self.has(name):
            raise UserError(f"{self.path}: holds no {name}; make the file again with segfw export")
        content = _content(self.root, name, self.path)
        if hashlib.sha256(content).hexdigest() != self.card.members[name]:
            raise UserError(f"{self.path}: {name} was altered or damaged; get the file again from where it was made")
        return content

    def read_if_there(self, name: str) -> bytes | None:
        """Content of a file of the model, None if it holds none of this name."""
        return self.read(name) if self.has(name) else None

    def plan(self) -> Plan:
        """The model's plan; UserError if there is none."""
        from segfw.planning.plan import Plan  # here: who only looks at a model does not wait for PyTorch

        if self.card is None and not self.has(PLAN_FILE):
            lacks = f"holds no {PLAN_FILE}" if self.path.is_dir() else "no such folder or file"
            remedy = "give the work folder of segfw run or segfw train, or a model file of segfw export"
            raise UserError(f"{self.path}: {lacks}; {remedy}")
        if self.card is None:
            return Plan.load(self.path / PLAN_FILE)
        return Plan.parse(self.read(PLAN_FILE), self.path / PLAN_FILE)

    def trained_folds(self, configuration: str) -> list[str]:
        """Names of the folds whose training is finished, in order."""
        runs = self.root / "runs" / configuration
        if not runs.is_dir():
            return []
        folders = [folder for folder in runs.iterdir() if folder.name.startswith("fold_")]
        return sorted(folder.name.removeprefix("fold_") for folder in folders if (folder / WEIGHTS_FILE).is_file())

    def weight_names(
        self, configuration: str, folds: tuple[str, ...] | None = None, *, best: bool = False
    ) -> dict[str, str]:
        """The name of the file of weights of each fold, by fold; all trained folds if none are asked for.

        ``best`` takes the weights of the best validation in training instead of the last ones; a model file holds only
        one kind, under the same name. Raises UserError if a fold lacks.
        """
        present = self.trained_folds(configuration)
        for fold in folds or ():
            if fold not in present:
                trained = f"trained are {', '.join(present)}" if present else "none is trained"
                raise UserError(f"{self.path}: fold {fold} of {configuration} is not trained to its end; {trained}")
        if not present:
            raise UserError(f"{self.path}: no fold of {configuration} is trained to its end; run segfw train first")
        names = {fold: weights_name(configuration, fold) for fold in folds or predicting_folds(present)}
        if not best:
            return names
        if self.card is not None:
            if self.card.weights != "best":
                raise UserError(f"{self.path}: holds the weights of the training's end; predict with --weights last")
            return names
        names = {fold: weights_name(configuration, fold, BEST_FILE) for fold in names}
        for name in names.values():
            if not self.has(name):
                raise UserError(
                    f"{self.path / name}: no weights of a best epoch were kept; predict with --weights last"
                )
        return names

    def best_weight_names(self, configuration: str) -> dict[str, str]:
        """The names of the weights of the best epoch of those trained folds that kept them beside the last ones."""
        names = {fold: weights_name(configuration, fold, BEST_FILE) for fold in self.trained_folds(configuration)}
        return {fold: name for fold, name in names.items() if self.has(name)}


def predicting_folds(trained: Sequence[str]) -> tuple[str, ...]:
    """The folds that predict by default.

    One trained on all cases has seen every validation case: it is used alone, and only if asked for or alone.
    """
    return tuple(fold for fold in trained if fold != "all") or tuple(trained)


def load_plan(model: Path) -> Plan:
    """The plan of a model, a folder or a file; raises UserError if there is none."""
    with ModelSource.open(model) as source:
        return source.plan()


def trained_folds(model: Path, configuration: str) -> list[str]:
    """Names of the folds of a model, a folder or a file, whose training is finished, in order."""
    with ModelSource.open(model) as source:
        return source.trained_folds(configuration)


def read_model_file(path: Path) -> bytes | None:
    """Content of a file of a model, such as MODEL/selection.json, also where MODEL is one file; None if it has none."""
    inside = split_model_path(path)
    if inside is None:
        return Path(path).read_bytes() if Path(path).is_file() else None
    model, name = inside
    with ModelSource.open(model) as source:
        return source.read_if_there(name)


def split_model_path(path: Path) -> tuple[Path, str] | None:
    """The model file that a path leads into and the name inside it; None for a path that leads into none."""
    path = Path(path)
    for parent in path.parents:
        if parent.is_file():
            name = path.relative_to(parent).as_posix()
            if MEMBER.fullmatch(name):
                return parent, name
    return None


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """UserError if anything but the members of a model is listed, or if they say that they are larger than the file."""
    names = [member.filename for member in members]
    if CARD_FILE not in names:
        raise UserError(f"{path}: holds no {CARD_FILE}, so it is no model file; make one with segfw export")
    if len(names) > MOST_MEMBERS:
        raise UserError(f"{path}: holds {len(names)} members, more than any model has ({MOST_MEMBERS})")
    for member in members:
        name = member.filename
        if not MEMBER.fullmatch(name) or member.orig_filename != name:
            raise UserError(f"{path}: holds {name!r}, which no model file does; it was not made by segfw export")
        if names.count(name) > 1:
            raise UserError(f"{path}: holds {name} twice; it was not made by segfw export")
        # Stored as it is, a member cannot be larger than the file that holds it.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UserError(f"{path}: {name} is compressed, which no model file's members are; use segfw export")
        limit = LARGEST_JSON if name.endswith(".json") else LARGEST_WEIGHTS
        if member.file_size > limit:
            raise UserError(f"{path}: {name} says it has {member.file_size} bytes, more than any model's ({limit})")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(f"{path}: its members say they are larger than the file; get it again from where it was made")


def _check_card_lists(path: Path, members: list[zipfile.ZipInfo], card: Card) -> None:
    """UserError unless the card lists exactly the members that there are beside it."""
    present = {member.filename for member in members} - {CARD_FILE}
    listed = set(card.members)
    if present != listed:
        odd = sorted(present ^ listed)[0]
        problem = "is missing" if odd in listed else "is not listed in its card"
        raise UserError(f"{path}: {odd} {problem}; get the file again from where it was made")


def _content(root: Path | zipfile.Path, name: str, path: Path) -> bytes:
    """Content of a member of the model file ``path``; UserError if it is damaged."""
    try:
        return (root / name).read_bytes()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        damaged = f"{path}: {name} cannot be read ({error}); get the file again from where it was made"
        raise unreadable(path, error, damaged) from None

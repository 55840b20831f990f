"""Finds nnU-Net's trained models in a folder or a zip: TRAINER__PLANS__CONFIGURATION with plans.json and fold_*."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory

from segfw.nnunet.postprocessing import POSTPROCESSING
from segfw.planning.nnunet_plans import read_json
from segfw.records import UserError

PLANS_FILE, DATASET_FILE = "plans.json", "dataset.json"
FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
# What is taken out of a zip; pictures, logs and predictions stay in it.
WANTED = {PLANS_FILE, DATASET_FILE, FINAL, BEST, *POSTPROCESSING}


@dataclass(frozen=True, kw_only=True)
class TrainedFolder:
    """One trained configuration: its folder, and the checkpoints of its folds by fold name ('0' to '4', 'all')."""

    path: Path
    plans: dict
    dataset: dict
    final: dict[str, Path]
    best: dict[str, Path]

    @property
    def configuration(self) -> str:
        """By the folder's name; a checkpoint says it too."""
        return self.path.name.rsplit("__", 1)[-1]


@contextmanager
def opened(source: Path, beside: Path) -> Iterator[Path]:
    """A folder with what ``source``, a folder or a zip, holds; a zip is unpacked beside ``beside`` for the while."""
    source = Path(source)
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder; give a trained model of nnU-Net v2, or its exported zip")
    if not zipfile.is_zipfile(source):
        raise UserError(f"{source}: is neither a folder nor a zip; give a trained model of nnU-Net v2")
    with TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        _unpack(source, Path(folder))
        yield Path(folder)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                _require_inside(member, source)  # of all, also of those that are left in
            chosen = [member for member in archive.infolist() if PurePosixPath(member.filename).name in WANTED]
            needed, free = sum(member.file_size for member in chosen), shutil.disk_usage(folder).free
            if needed > free:
                raise UserError(f"{source}: unpacks to {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free")
            for member in chosen:
                archive.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{source}: cannot be unpacked ({error}); copy or export it again") from None


def _require_inside(member: zipfile.ZipInfo, source: Path) -> None:
    """UserError if a file would be written elsewhere than in the folder, or be a link to elsewhere."""
    name = member.filename
    is_absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    is_outside = ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts
    if is_absolute or is_outside or stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{source}: holds {name!r}, which points outside of it; do not trust this file")


def find_trained(folder: Path) -> list[TrainedFolder]:
    """Every trained configuration in ``folder`` itself or up to three folders below, first stages of cascades too.

    The first stage of a cascade that is given by its own folder lies beside it, as nnU-Net keeps them.
    """
    holders = [folder, *(path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))]
    paths = [path for path in holders if (path / PLANS_FILE).is_file() and [*path.glob("fold_*/*.pth")]]
    if not paths:
        raise UserError(
            f"{folder}: holds no trained model of nnU-Net v2 ({PLANS_FILE}, and {FINAL} in fold_0 ...); give the "
            "folder TRAINER__PLANS__CONFIGURATION, or one that holds several"
        )
    found = [_read(path) for path in paths]
    if paths == [folder]:
        found = [*_first_stage(found[0]), *found]
    names = [one.configuration for one in found]
    for one in found:
        if names.count(one.configuration) > 1:
            others = ", ".join(other.path.name for other in found if other.configuration == one.configuration)
            raise UserError(f"{folder}: {one.configuration} is trained more than once ({others}); give one of them")
    return found


def _first_stage(second: TrainedFolder) -> list[TrainedFolder]:
    entry = second.plans.get("configurations", {}).get(second.configuration, {})
    previous = entry.get("previous_stage")
    if not isinstance(previous, str):
        return []
    whole = second.path.resolve()
    path = whole.with_name("__".join((*whole.name.split("__")[:-1], previous)))
    if not (path / PLANS_FILE).is_file():
        raise UserError(
            f"{second.path}: is the second stage of a cascade, and the first, {path.name}, is not beside it"
        )
    return [_read(path)]


def _read(path: Path) -> TrainedFolder:
    folds = sorted(fold for fold in path.glob("fold_*") if fold.is_dir())
    final = {fold.name.removeprefix("fold_"): fold / FINAL for fold in folds if (fold / FINAL).is_file()}
    best = {fold.name.removeprefix("fold_"): fold / BEST for fold in folds if (fold / BEST).is_file()}
    if not final and not best:
        raise UserError(f"{path}: no fold holds {FINAL} or {BEST}; finish the training, or give another folder")
    whole = path.resolve()  # '.' has no name
    plans, dataset = read_json(path / PLANS_FILE), read_json(path / DATASET_FILE)
    return TrainedFolder(path=whole, plans=plans, dataset=dataset, final=final, best=best)

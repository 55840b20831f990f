"""Finds nnU-Net's trained models in a folder or a zip: TRAINER__PLANS__CONFIGURATION with plans.json and fold_*."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from segfw.base.errors import DiskFull, UserError, raise_if_full, unreadable
from segfw.nnunet.postprocessing_files import JSON_FILE, PICKLE_FILE
from segfw.nnunet.read_plans import CONFIGURATION_NAME, read_json, resolved
from segfw.nnunet.torch_checkpoint import read_checkpoint

PLANS_FILE = "plans.json"
DATASET_FILE = "dataset.json"
FINAL = "checkpoint_final.pth"
BEST = "checkpoint_best.pth"
UNPACKED = ".unpacked"  # where a zip is unpacked to, in the folder that the model is made in
FOLD = re.compile(r"fold_(\d+|all)")  # fold_0_old is nobody's
OLD_MODEL = "model_final_checkpoint.model"
LARGEST_RATIO = 200  # of what a zip unpacks to and its own size; weights hardly get smaller, text to a tenth
# What is taken out of a zip; pictures, logs and predictions stay in it.
WANTED = {PLANS_FILE, DATASET_FILE, FINAL, BEST, JSON_FILE, PICKLE_FILE}


@dataclass(frozen=True, kw_only=True)
class TrainedFolder:
    """One trained configuration: its folder, and the checkpoints of its folds by fold name ('0' to '4', 'all').

    ``unfinished`` folds have another checkpoint alone, such as checkpoint_latest.
    """

    path: Path
    configuration: str
    plans: dict
    dataset: dict
    final: dict[str, Path]
    best: dict[str, Path]
    unfinished: tuple[str, ...]

    @property
    def folds(self) -> tuple[str, ...]:
        """Those that are taken: as nnU-Net does, all with a final checkpoint, and without any all with a best."""
        return tuple(sorted(self.final or self.best))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Folds with some checkpoint that are not taken."""
        return tuple(sorted({*self.best, *self.unfinished} - {*self.folds}))


@contextmanager
def opened(source: Path, place: Path) -> Iterator[Path]:
    """A folder with what ``source``, a folder or a zip, holds; a zip is unpacked into ``place`` for the while."""
    source = Path(source)
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder; give a trained model of nnU-Net v2, or its exported zip")
    if source.suffix in (".pth", ".model", ".pkl") or not zipfile.is_zipfile(source):
        raise UserError(f"{source}: is neither a folder nor a zip; give the whole folder of a model of nnU-Net v2")
    place.mkdir()
    try:
        _unpack(source, place)
        yield place.resolve()
    except DiskFull:
        raise
    except UserError as error:  # where it was unpacked to tells nobody anything
        raise UserError(str(error).replace(str(place.resolve()), str(source))) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                _require_inside(member, source)  # of all, also of those that are left in
            chosen = [member for member in archive.infolist() if PurePosixPath(member.filename).name in WANTED]
            _require_harmless(chosen, archive, source)
            needed = sum(member.file_size for member in chosen)
            free = shutil.disk_usage(folder).free
            if needed > free:
                raise UserError(f"{source}: unpacks to {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free")
            for member in chosen:
                archive.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, OSError) as error:
        raise_if_full(error, folder)
        reason = str(error).replace(str(folder), str(source))
        raise unreadable(source, error, f"{source}: cannot be unpacked ({reason}); copy or export it again") from None


def _require_inside(member: zipfile.ZipInfo, source: Path) -> None:
    """UserError if a file would be written elsewhere than in the folder."""
    name = member.filename
    is_absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    is_outside = ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts
    if is_absolute or is_outside:
        raise UserError(f"{source}: holds {name!r}, which points outside of it; do not trust this file")


def _require_harmless(chosen: list[zipfile.ZipInfo], archive: zipfile.ZipFile, source: Path) -> None:
    """UserError if what is unpacked is encrypted, a link, would lie over one another or is out of proportion."""
    times = Counter(member.filename.casefold() for member in chosen)
    for member in chosen:
        if member.flag_bits & 1:
            raise UserError(f"{source}: {member.filename!r} is encrypted; unpack it and give the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{source}: {member.filename!r} is a link; zip the files themselves")
        if times[member.filename.casefold()] > 1:
            raise UserError(f"{source}: holds {member.filename!r} more than once; do not trust this file")
    needed = sum(member.file_size for member in chosen)
    size = source.stat().st_size
    if needed > LARGEST_RATIO * size:
        raise UserError(f"{source}: unpacks from {size:,} bytes to {needed:,}; do not trust this file")
    if not chosen and any(PurePosixPath(name).name == OLD_MODEL for name in archive.namelist()):
        raise _of_version_1(source)


def _of_version_1(source: Path) -> UserError:
    return UserError(
        f"{source}: is a model of nnU-Net v1 ({OLD_MODEL}), whose plans are a pickle and cannot be opened without "
        "running code; predict with nnU-Net v1, or train again with segfw run on its data set"
    )


def find_trained(folder: Path) -> list[TrainedFolder]:
    """Every trained configuration in ``folder`` itself or up to three folders below, first stages of cascades too.

    The first stage of a cascade that is given by its own folder lies beside it, as nnU-Net keeps them.
    """
    holders = [folder]
    for depth in ("*", "*/*", "*/*/*"):
        holders += sorted(folder.glob(depth))
    holders = [*{path.resolve(): path for path in reversed(holders)}.values()][::-1]  # links lead to the same again
    paths = [path for path in holders if (path / PLANS_FILE).is_file() and [*path.glob("fold_*/*.pth")]]
    if not paths:
        if any([*path.glob(OLD_MODEL), *path.glob(f"fold_*/{OLD_MODEL}")] for path in holders):
            raise _of_version_1(folder)
        if FOLD.fullmatch(folder.name) and (folder.parent / PLANS_FILE).is_file():
            raise UserError(f"{folder}: is one fold of a model; give {folder.parent}, all its folds are taken")
        raise UserError(
            f"{folder}: holds no trained model of nnU-Net v2 ({PLANS_FILE}, and {FINAL} in fold_0 ...); give the "
            "folder TRAINER__PLANS__CONFIGURATION, or one that holds several"
        )
    untrained = [path for path in paths if not _checkpoints(path, FINAL) and not _checkpoints(path, BEST)]
    if len(untrained) < len(paths):
        for path in untrained:
            print(f"note: {path.name} is left out, because no fold of it holds {FINAL} or {BEST}")
        paths = [path for path in paths if path not in untrained]
    found = [_read(path) for path in paths]
    if paths == [folder]:
        found = [*_first_stage(found[0]), *found]
    names = [trained.configuration for trained in found]
    for name in names:
        if names.count(name) > 1:
            others = ", ".join(trained.path.name for trained in found if trained.configuration == name)
            raise UserError(
                f"{folder}: {name} is trained more than once ({others}); give one of them, of a zip after unpacking it"
            )
    return found


def _first_stage(second: TrainedFolder) -> list[TrainedFolder]:
    previous = resolved(second.plans, second.configuration, second.path / PLANS_FILE).get("previous_stage")
    if not isinstance(previous, str) or not CONFIGURATION_NAME.fullmatch(previous) or previous == second.configuration:
        return []  # refused with the plans, if it is anything else
    whole = second.path.resolve()
    path = whole.with_name("__".join((*whole.name.split("__")[:-1], previous)))
    if not (path / PLANS_FILE).is_file():
        raise UserError(
            f"{second.path}: is the second stage of a cascade, and the first, {path.name}, is not beside it"
        )
    return [_read(path)]


def _read(path: Path) -> TrainedFolder:
    final, best, others = (_checkpoints(path, name) for name in (FINAL, BEST, "*.pth"))
    if not final and not best:
        raise UserError(f"{path}: no fold holds {FINAL} or {BEST}; finish the training, or give another folder")
    whole = path.resolve()  # '.' has no name
    plans = read_json(path / PLANS_FILE)
    dataset = read_json(path / DATASET_FILE)
    name = whole.name.rsplit("__", 1)[-1]
    known = plans.get("configurations")
    if isinstance(known, dict) and name not in known:  # the folder was renamed, which nnU-Net does not mind
        name = read_checkpoint(next(iter([*final.values(), *best.values()]))).configuration
    return TrainedFolder(
        path=whole,
        configuration=name,
        plans=plans,
        dataset=dataset,
        final=final,
        best=best,
        unfinished=tuple(sorted({*others} - {*final, *best})),
    )


def _checkpoints(path: Path, name: str) -> dict[str, Path]:
    """The first file of each fold that is called ``name``, which may be a pattern."""
    folds = [fold for fold in path.glob("fold_*") if fold.is_dir() and FOLD.fullmatch(fold.name)]
    found = {fold.name.removeprefix("fold_"): next(iter(sorted(fold.glob(name))), None) for fold in folds}
    return {fold: file for fold, file in found.items() if file and file.is_file()}

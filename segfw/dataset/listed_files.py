"""Files that a list in dataset.json names: where they lie, and what is told of those that are missing or not listed."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from segfw.base.words import with_folder
from segfw.dataset.cases import Finding
from segfw.dataset.image_files import image_files
from segfw.images.formats import split_ending


def listed_path(raw: Path, name: str) -> Path:
    """A file that dataset.json names, from its own folder; also where the list was written on Windows or a Mac.

    Letters with accents are one character or two (Unicode's forms NFC and NFD), as the system has it that wrote the
    list; names in folders are compared without that difference, and so are these.
    """
    path = raw / name
    if path.exists():
        return path
    if "\\" in name:
        path = raw / name.replace("\\", "/")
    return path if path.exists() or name.isascii() else _in_either_form(path)


def _in_either_form(path: Path) -> Path:
    """The path with every part as it stands on the disk, in whatever form; itself if there is no such file."""
    found = Path(path.anchor)
    for part in path.relative_to(found).parts:
        if (found / part).exists():
            found /= part
            continue
        alike = [] if not found.is_dir() else [e for e in found.iterdir() if _composed(e.name) == _composed(part)]
        if not alike:
            return path
        found = alike[0]
    return found


def _composed(name: str) -> str:
    return normalize("NFC", name)


def missing_file(case_id: str, file: Path) -> Finding:
    """An error: dataset.json lists a file that is not there."""
    return Finding(
        kind="missing-file",
        severity="error",
        case=case_id,
        file=str(file),
        what="is listed but missing",
        remedy="add the file or remove the entry from dataset.json",
    )


def unlisted_images(listed: set[Path]) -> list[Path]:
    """Images that lie beside listed ones."""
    found = []
    for folder in {file.parent for file in listed if file.parent.is_dir()}:
        found += [file for file in image_files(folder) if file.resolve() not in listed]
    return sorted(found)


def not_listed(file: Path) -> Finding:
    """A warning: an image lies beside listed ones, and no case is made of it."""
    return Finding(
        kind="not-listed",
        severity="warning",
        case=split_ending(file)[0],
        file=with_folder(file),
        what="is not listed in dataset.json and is not used",
        remedy="list it, or move it away",
    )

"""The files of the page, listed once when the server starts: what is not in the list is not served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE_FOLDER = Path(__file__).with_name("page")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class PageFile:
    """A file, and as what a browser is to take it."""

    path: Path
    media_type: str


PageFiles = Mapping[str, PageFile]


def page_files(folder: Path = PAGE_FOLDER) -> PageFiles:
    """The files of a folder and of the folders in it, by name: 'index.html', 'text/en.json'."""
    found = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        media_type = MEDIA_TYPES.get(path.suffix)
        if path.is_file() and media_type is not None:
            found[path.relative_to(folder).as_posix()] = PageFile(path, media_type)
    return found

"""What an earlier version wrote, in tests/written_before, and copies of it to work in."""

from __future__ import annotations

import shutil
from pathlib import Path

WRITTEN = Path(__file__).resolve().parents[1] / "written_before"


def written_copy(folder: Path) -> Path:
    """All of it in ``folder``, which is new; the work folder names the images beside it."""
    shutil.copytree(WRITTEN, folder)
    for path in (folder / "work").rglob("*.json"):
        path.write_text(path.read_text().replace("/data/", f"{folder.as_posix()}/"))
    return folder

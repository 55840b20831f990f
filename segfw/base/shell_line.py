"""A command as it can be pasted into a shell."""

from __future__ import annotations

import os
import re
import shlex

PLAIN_ON_WINDOWS = re.compile(r"[\w@+=:,./\\-]+")


def shell_line(*parts: object, is_windows: bool = os.name == "nt") -> str:
    """The parts of a command in one line, quoted where they must be: '' for POSIX, "" for cmd and PowerShell."""
    texts = [str(part) for part in parts]
    if not is_windows:
        return shlex.join(texts)
    return " ".join(text if PLAIN_ON_WINDOWS.fullmatch(text) else f'"{text}"' for text in texts)

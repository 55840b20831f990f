"""Where the commands that work in a work folder keep what they say."""

from __future__ import annotations

import argparse

from segfw.base.speech import LOG_FILE, LogPlace


def log_in_work(typed: argparse.Namespace) -> LogPlace:
    """The log of WORK, from when its data are read: a folder that is refused is left as it is, a model too."""
    from segfw.dataset.cases import MANIFEST_FILE
    from segfw.planning.splits import SPLITS_FILE

    return LogPlace(file=typed.work / LOG_FILE, marks=(typed.work / MANIFEST_FILE, typed.work / SPLITS_FILE))

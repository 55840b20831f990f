"""``segfw serve-monailabel`` with a planted refiner, as a program: ``python -m builders.planted_labels FOLDER ...``."""

from __future__ import annotations

import sys
from pathlib import Path

import segfw.interaction.refiner
from builders.planted_refiner import BallRefiner
from segfw.cli import main
from segfw.dataset.labels import LABELS_FILE, LabelSet


def planted(path: Path, *, device: str) -> BallRefiner:
    """Takes the place of a trained one."""
    return BallRefiner(LabelSet.load(Path(sys.argv[1]) / LABELS_FILE))


if __name__ == "__main__":
    segfw.interaction.refiner.Refiner = planted
    sys.exit(main(["serve-monailabel", *sys.argv[1:]]))

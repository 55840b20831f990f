"""Cases as they are found by the names of files."""

from __future__ import annotations

from pathlib import Path

from builders.data import touch_files
from segfw.dataset.cases import FoundDataset
from segfw.dataset.layouts import find_dataset


def in_folders(raw: Path, images: str, labels: str, description: object = None) -> FoundDataset:
    return find_dataset(touch_files(raw, {"images": images.split(), "labels": labels.split()}, description))


def names(found: FoundDataset) -> dict[str, list[str]]:
    """Files of each case without the usual ending, the mask last."""
    return {case.id: [path.name.removesuffix(".nii.gz") for path in (*case.images, case.label)] for case in found.cases}


def problems(found: FoundDataset) -> list[str]:
    return [problem.full_sentence for problem in found.findings]


def channels(found: FoundDataset) -> list[str]:
    return [channel.name for channel in found.channels]

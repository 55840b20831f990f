"""Finds the cases of a RAW folder in any of the three accepted layouts, without opening an image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from segfw.base.records import UserError
from segfw.dataset.cases import Case, Channel, FoundDataset, LabelSet, Problem
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of, read_description, with_label_maps
from segfw.dataset.pairing import Pairing, channel_names, common_channels, file_problems, pair, pair_numbered
from segfw.images.dicom import holds_dicom
from segfw.images.formats import FORMATS, split_ending


def find_dataset(raw: Path) -> FoundDataset:
    """Recognises the layout of a RAW folder and lists its training cases; raises UserError if it is none.

    Layouts: 'nnunet' (imagesTr + labelsTr + dataset.json with channel_names), 'decathlon' (dataset.json with
    modality and training), 'folders' (images + labels, all else inferred).
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder that holds the images and masks")
    return with_label_maps(_find(raw, read_description(raw / DESCRIPTION_FILE)))


def _find(raw: Path, description: dict | None) -> FoundDataset:
    if (raw / "images").is_dir() and (raw / "labels").is_dir():
        return _find_folders(raw, description)
    if description and "training" in description and "channel_names" not in description:
        return _find_decathlon(raw, description)
    if description and (raw / "imagesTr").is_dir() and (raw / "labelsTr").is_dir():
        return _find_nnunet(raw, description)
    present = ", ".join(sorted(path.name for path in raw.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{raw}: holds {present}; expected images/ and labels/, or imagesTr/, labelsTr/ and dataset.json "
        "(nnU-Net or Medical Segmentation Decathlon)"
    )


def image_files(folder: Path) -> list[Path]:
    """Files of a folder in a format we read and folders in it that hold a DICOM series, sorted; no hidden ones."""
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in shown if (holds_dicom(path) if path.is_dir() else split_ending(path)[1]))


def series_folders(folder: Path) -> list[Path]:
    """All folders inside ``folder``, however deep, that hold DICOM files themselves; sorted, without hidden ones."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found += ([path] if holds_dicom(path) else []) + series_folders(path)
    return found


def group_channels(
    files: Iterable[Path], channel_count: int, stem_of: Callable[[Path], str] = lambda path: split_ending(path)[0]
) -> dict[str, list[Path]]:
    """Files by case id. CASE_0000, CASE_0001, ... are channels of CASE; a plain name is a case of its own.

    Names that only look numbered (scan_2021, or frame_0000 to frame_0019 of a single channel) are plain ones: a name
    counts as a channel only if no file of the same CASE has a number that is no channel.
    """
    files = list(files)
    stems = [stem_of(path) for path in files]
    numbered = [re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems]
    only_looks_numbered = {match[1] for match in numbered if match and int(match[2]) >= channel_count}
    cases: dict[str, list[Path]] = {}
    for path, stem, match in zip(files, stems, numbered):
        is_channel = match and match[1] not in only_looks_numbered
        cases.setdefault(match[1] if is_channel else stem, []).append(path)
    return cases


def read_labels(dataset_json: Path) -> LabelSet:
    """The labels of a dataset.json; raises UserError naming the field that is wrong."""
    return labels_of(read_description(dataset_json) or {}, dataset_json)


def _find_nnunet(raw: Path, description: dict) -> FoundDataset:
    path = raw / DESCRIPTION_FILE
    channels = channels_of(description, path)
    masks = image_files(raw / "labelsTr")
    pairing = pair_numbered(image_files(raw / "imagesTr"), masks)
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout="nnunet",
        channels=channels,
        labels=labels_of(description, path),
        cases=_cases(pairing),
        problems=tuple(file_problems(pairing, masks, [f"{index:04}" for index in range(len(channels))])),
    )


def _cases(pairing: Pairing) -> tuple[Case, ...]:
    return tuple(
        Case(
            id=case,
            images=tuple(path for paths in pairing.channels_of(case).values() for path in paths),
            label=pairing.masks[case],
        )
        for case in pairing.cases
    )


def _find_decathlon(raw: Path, description: dict) -> FoundDataset:
    path = raw / DESCRIPTION_FILE
    entries = description["training"]
    if not isinstance(entries, list):
        raise UserError(f"{path}: field 'training' must be a list of {{'image': ..., 'label': ...}}; correct it")
    problems, cases, seen, listed = [], [], Counter(), set()
    for entry in entries:
        files = [entry.get(part) for part in ("image", "label")] if isinstance(entry, dict) else [None]
        if not all(isinstance(file, str) for file in files):
            raise UserError(f"{path}: an entry of 'training' is {entry!r}; it must have 'image' and 'label'")
        image, label = (raw / file for file in files)
        case_id = split_ending(image)[0]
        seen[case_id] += 1
        listed.add(image.resolve())
        for file in (image, label):
            if not file.exists():
                remedy = "add the file or remove the entry from dataset.json"
                problems.append(
                    Problem(
                        kind="missing-file", case=case_id, file=str(file), what="is listed but missing", remedy=remedy
                    )
                )
        if image.exists() and label.exists() and seen[case_id] == 1:
            cases.append(Case(id=case_id, images=(image,), label=label))
    for case_id, count in seen.items():
        if count > 1:
            what = f"is listed {count} times"
            problems.append(
                Problem(kind="listed-twice", case=case_id, file="dataset.json", what=what, remedy="keep one entry")
            )
    folders = {file.parent for file in listed if file.parent.is_dir()}
    for extra in sorted(file for folder in folders for file in image_files(folder) if file.resolve() not in listed):
        what, remedy = "is not listed in dataset.json and is not used", "list it, or move it away"
        problems.append(
            Problem(
                kind="not-listed",
                case=split_ending(extra)[0],
                file=extra.name,
                what=what,
                remedy=remedy,
                is_warning=True,
            )
        )
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout="decathlon",
        channels=channels_of(description, path),
        labels=labels_of(description, path),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        problems=tuple(problems),
    )


def _find_folders(raw: Path, description: dict | None) -> FoundDataset:
    images, masks = image_files(raw / "images"), image_files(raw / "labels")
    if not images or not masks:
        empty = "images" if not images else "labels"
        raise UserError(f"{raw / empty}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    described = description or {}
    path = raw / DESCRIPTION_FILE
    channels = channels_of(described, path) if {"channel_names", "modality"} & described.keys() else None
    labels = labels_of(described, path) if "labels" in described else None
    pairing = pair(images, masks)
    cases, expected = _cases(pairing), common_channels(pairing)
    notes = [f"paired {len(cases)} cases by name, such as {_pairing_example(cases)}"] if cases else []
    if channels is None and len(expected) > 1:
        channels = tuple(Channel(name=name) for name in channel_names(expected))
        notes.append(f"channels by file name: {', '.join(channel.name for channel in channels)}")
    return FoundDataset(
        name=str(described.get("name", raw.resolve().name)),
        root=raw,
        layout="folders",
        channels=channels,
        labels=labels,
        cases=cases,
        problems=tuple(file_problems(pairing, masks, expected)),
        notes=tuple(notes),
    )


def find_images_alone(raw: Path) -> FoundDataset:
    """The images of a folder that has no masks, for a check of what can be told without; UserError if it has none."""
    folder = raw / "images"
    files = image_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    return FoundDataset(
        name=raw.resolve().name,
        root=raw,
        layout="images without masks",
        channels=None,
        labels=None,
        cases=tuple(Case(id=split_ending(path)[0], images=(path,)) for path in files),
        notes=("there are no masks (labels/): only the images were checked",),
    )


def _pairing_example(cases: tuple[Case, ...]) -> str:
    return f"{' + '.join(path.name for path in cases[0].images)} with {cases[0].label.name}"

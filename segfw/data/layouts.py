"""Finds the cases of a RAW folder in any of the three accepted layouts, without opening an image."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from segfw.data.formats import FORMATS, split_ending
from segfw.data.manifest import Case, Channel, FoundDataset, LabelSet, Problem
from segfw.records import UserError


def find_dataset(raw: Path) -> FoundDataset:
    """Recognises the layout of a RAW folder and lists its training cases; raises UserError if it is none.

    Layouts: 'nnunet' (imagesTr + labelsTr + dataset.json with channel_names), 'decathlon' (dataset.json with
    modality and training), 'folders' (images + labels, all else inferred).
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder that holds the images and masks")
    description = _read_description(raw / "dataset.json")
    if (raw / "images").is_dir() and (raw / "labels").is_dir():
        return _find_folders(raw, description)
    if description and "training" in description:
        return _find_decathlon(raw, description)
    if description and (raw / "imagesTr").is_dir() and (raw / "labelsTr").is_dir():
        return _find_nnunet(raw, description)
    present = ", ".join(sorted(path.name for path in raw.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{raw}: holds {present}; expected images/ and labels/, or imagesTr/, labelsTr/ and dataset.json "
        "(nnU-Net or Medical Segmentation Decathlon)"
    )


def image_files(folder: Path) -> list[Path]:
    """Files of a folder in a format we read, sorted by name; hidden files are left out."""
    return sorted(path for path in folder.iterdir() if split_ending(path)[1] and not path.name.startswith("."))


def group_channels(files: Iterable[Path], channel_count: int) -> dict[str, list[Path]]:
    """Files by case id. CASE_0000, CASE_0001, ... are channels of CASE; a plain name is a case of its own.

    With one channel, a name that only looks numbered (scan_2021) is still taken as CASE_NNNN if all files are.
    """
    files = list(files)
    stems = [split_ending(path)[0] for path in files]
    numbered = [re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems]
    are_channels = all(match and int(match[2]) < max(channel_count, 1) for match in numbered)
    cases: dict[str, list[Path]] = {}
    for path, stem, match in zip(files, stems, numbered):
        cases.setdefault(match[1] if are_channels else stem, []).append(path)
    return cases


def read_labels(dataset_json: Path) -> LabelSet:
    """The labels of a dataset.json; raises UserError naming the field that is wrong."""
    return _labels_of(_read_description(dataset_json) or {}, dataset_json)


def _read_description(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); correct it or take it from the original") from None
    if not isinstance(description, dict):
        raise UserError(f"{path}: must be a JSON object with 'labels' and 'channel_names' or 'modality'")
    return description


def _labels_of(description: dict, path: Path) -> LabelSet:
    """Labels of a dataset.json: {'name': 1} (nnU-Net) or {'1': 'name'} (Decathlon)."""
    entries = description.get("labels")
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: field 'labels' is missing; add for example {{'background': 0, 'tumour': 1}}")
    named: dict[str, int] = {}
    for key, value in entries.items():
        name, number = (value, key) if isinstance(value, str) and re.fullmatch(r"-?\d+", key) else (key, value)
        if isinstance(number, list) or name == "ignore":
            what = "an ignore label" if name == "ignore" else f"the region {name!r}"
            raise UserError(f"{path}: field 'labels' has {what}, which this version cannot train; use plain labels")
        try:
            named[name] = int(number)
        except (TypeError, ValueError):
            raise UserError(f"{path}: label {name!r} has value {number!r}; it must be an integer") from None
    background = named.pop("background", 0)
    named = {name: value for name, value in named.items() if value != background}
    try:
        return LabelSet(names=("background", *named), values=(background, *named.values()))
    except ValueError as error:
        raise UserError(f"{path}: field 'labels': {error.errors()[0]['msg']}; correct it") from None


def _channels_of(description: dict, path: Path) -> tuple[Channel, ...]:
    entries = description.get("channel_names", description.get("modality"))
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: field 'channel_names' is missing; add for example {{'0': 'CT'}}")
    try:
        return tuple(Channel(name=str(entries[key])) for key in sorted(entries, key=int))
    except ValueError:
        raise UserError(
            f"{path}: keys of 'channel_names' must be numbers ('0', '1', ...), got {list(entries)}"
        ) from None


def _find_nnunet(raw: Path, description: dict) -> FoundDataset:
    channels = _channels_of(description, raw / "dataset.json")
    images = group_channels(image_files(raw / "imagesTr"), channel_count=10_000)
    return _pair_by_id(raw, "nnunet", description, channels, images, image_files(raw / "labelsTr"))


def _pair_by_id(
    raw: Path,
    layout: str,
    description: dict,
    channels: tuple[Channel, ...],
    images: dict[str, list[Path]],
    label_files: list[Path],
) -> FoundDataset:
    """Pairs images and masks that carry the same case id; what is left over or incomplete becomes a Problem."""
    stems = [split_ending(path)[0] for path in label_files]
    labels = dict(zip(stems, label_files))
    problems = [
        Problem(case=stem, file=f"{stem}.*", what=f"{count} masks have this id", remedy="keep one of them")
        for stem, count in Counter(stems).items()
        if count > 1
    ]
    cases = []
    for case_id in sorted(images.keys() | labels.keys()):
        files = sorted(images.get(case_id, []), key=lambda path: split_ending(path)[0])
        problems += _file_problems(case_id, files, labels.get(case_id), len(channels))
        if files and case_id in labels:
            cases.append(Case(id=case_id, images=tuple(files), label=labels[case_id]))
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout=layout,
        channels=channels,
        labels=_labels_of(description, raw / "dataset.json"),
        cases=tuple(cases),
        problems=tuple(problems),
    )


def _file_problems(case_id: str, images: list[Path], label: Path | None, channel_count: int) -> list[Problem]:
    """Missing, extra and doubled files of one case."""
    problems = []
    if label is None:
        name = images[0].name
        problems.append(Problem(case=case_id, file=name, what="has no mask", remedy="add the mask or move the image"))
    if not images:
        problems.append(Problem(case=case_id, file=label.name, what="has no image", remedy="add it or move the mask"))
        return problems
    stems = Counter(split_ending(path)[0] for path in images)
    doubled = [stem for stem, count in stems.items() if count > 1]
    if doubled:
        what = f"{stems[doubled[0]]} image files have this name with different endings"
        problems.append(Problem(case=case_id, file=f"{doubled[0]}.*", what=what, remedy="keep one of them"))
    elif len(images) not in (1, channel_count):
        what = f"{len(images)} image files ({', '.join(path.name for path in images)}) for {channel_count} channels"
        problems.append(Problem(case=case_id, file="", what=what, remedy="add or remove files so that they match"))
    return problems


def _find_decathlon(raw: Path, description: dict) -> FoundDataset:
    path = raw / "dataset.json"
    problems, cases, seen = [], [], Counter()
    for entry in description["training"]:
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            raise UserError(f"{path}: an entry of 'training' is {entry!r}; it must have 'image' and 'label'")
        image, label = raw / entry["image"], raw / entry["label"]
        case_id = split_ending(image)[0]
        seen[case_id] += 1
        for file in (image, label):
            if not file.is_file():
                remedy = "add the file or remove the entry from dataset.json"
                problems.append(Problem(case=case_id, file=str(file), what="is listed but missing", remedy=remedy))
        if image.is_file() and label.is_file() and seen[case_id] == 1:
            cases.append(Case(id=case_id, images=(image,), label=label))
    for case_id, count in seen.items():
        if count > 1:
            what = f"is listed {count} times"
            problems.append(Problem(case=case_id, file="dataset.json", what=what, remedy="keep one entry"))
    listed = {case.images[0].resolve() for case in cases}
    folders = {file.parent for file in listed}
    for extra in sorted(file for folder in folders for file in image_files(folder) if file.resolve() not in listed):
        what, remedy = "is not listed in dataset.json and is not used", "list it, or move it away"
        problems.append(
            Problem(case=split_ending(extra)[0], file=extra.name, what=what, remedy=remedy, is_warning=True)
        )
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout="decathlon",
        channels=_channels_of(description, path),
        labels=_labels_of(description, path),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        problems=tuple(problems),
    )


def _find_folders(raw: Path, description: dict | None) -> FoundDataset:
    images, masks = image_files(raw / "images"), image_files(raw / "labels")
    if not images or not masks:
        empty = "images" if not images else "labels"
        raise UserError(f"{raw / empty}: holds no image segfw can read ({', '.join(FORMATS)})")
    described = description or {}
    path = raw / "dataset.json"
    channels = _channels_of(described, path) if {"channel_names", "modality"} & described.keys() else None
    labels = _labels_of(described, path) if "labels" in described else None
    groups, label_of, channel_names = _pair(images, masks)
    problems, cases = [], []
    expected = len(channels or channel_names)
    for case_id in sorted(groups.keys() | label_of.keys()):
        files = groups.get(case_id, [])
        problems += _file_problems(case_id, files, label_of.get(case_id), expected)
        if files and case_id in label_of:
            cases.append(Case(id=case_id, images=tuple(files), label=label_of[case_id]))
    notes = [f"paired {len(cases)} images with masks by name, such as {_pairing_example(cases)}"] if cases else []
    if channels is None and len(channel_names) > 1:
        channels = tuple(Channel(name=name) for name in channel_names)
        notes.append(f"channels by file name: {', '.join(channel_names)}")
    return FoundDataset(
        name=str(described.get("name", raw.resolve().name)),
        root=raw,
        layout="folders",
        channels=channels,
        labels=labels,
        cases=tuple(cases),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _pairing_example(cases: list[Case]) -> str:
    return f"{' + '.join(path.name for path in cases[0].images)} with {cases[0].label.name}"


def _pair(images: list[Path], masks: list[Path]) -> tuple[dict[str, list[Path]], dict[str, Path], list[str]]:
    """Case ids for images and masks in two folders: (images by id, mask by id, channel names).

    Tried in turn: equal names; CASE_0000 channels; names that share their leading parts, where what follows the
    id is a channel (BRAIN_01_flair, BRAIN_01_t1 with BRAIN_01_seg). The first that places every mask wins;
    otherwise the one that places most masks, so that the left-over files can be reported.
    """
    attempts = [_pair_equal(images, masks), _pair_numbered(images, masks), _pair_by_prefix(images, masks)]
    return max(attempts, key=lambda attempt: len(attempt[0].keys() & attempt[1].keys()))


def _pair_equal(images: list[Path], masks: list[Path]) -> tuple[dict[str, list[Path]], dict[str, Path], list[str]]:
    groups: dict[str, list[Path]] = {}
    for path in images:
        groups.setdefault(split_ending(path)[0], []).append(path)
    return groups, {split_ending(path)[0]: path for path in masks}, ["image"]


def _pair_numbered(images: list[Path], masks: list[Path]) -> tuple[dict[str, list[Path]], dict[str, Path], list[str]]:
    groups = group_channels(images, channel_count=10_000)
    count = Counter(len(files) for files in groups.values()).most_common(1)[0][0]
    return groups, {split_ending(path)[0]: path for path in masks}, [f"channel_{index}" for index in range(count)]


def _pair_by_prefix(images: list[Path], masks: list[Path]) -> tuple[dict[str, list[Path]], dict[str, Path], list[str]]:
    mask_ids = _without_common_tail([_parts(split_ending(path)[0]) for path in masks])
    if len(masks) == 1:  # nothing to compare the mask's name with: its id is what it shares with the first image
        mask_ids = [_common_head(mask_ids[0], _parts(split_ending(images[0])[0]))]
    label_of = {"".join(parts).rstrip("_-. "): path for parts, path in zip(mask_ids, masks)}
    groups: dict[str, list[Path]] = {}
    tails: Counter[str] = Counter()
    for path in images:
        stem = split_ending(path)[0]
        fitting = [case_id for case_id in label_of if re.match(re.escape(case_id) + r"(?![A-Za-z0-9])", stem)]
        case_id = max(fitting, key=len, default=stem)
        groups.setdefault(case_id, []).append(path)
        tails[stem[len(case_id) :]] += 1
    tail_parts = [_parts(tail) for tail in sorted(tails)]
    names = ["".join(parts).strip("_-. ") for parts in _without_common_tail(tail_parts)]
    common = _common_head(*tail_parts) if len(tail_parts) > 1 else []
    names = [name.removeprefix("".join(common).lstrip("_-. ")) or "image" for name in names]
    return groups, label_of, names


def _parts(stem: str) -> list[str]:
    """['brats', '_', 'pat', '01'] of 'brats_pat01': runs of letters, digits and separators."""
    return re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]+", stem)


def _common_head(*lists: list[str]) -> list[str]:
    head = []
    for parts in zip(*lists):
        if len(set(parts)) > 1:
            break
        head.append(parts[0])
    return head


def _without_common_tail(lists: list[list[str]]) -> list[list[str]]:
    if len(lists) < 2:
        return lists
    tail = len(_common_head(*(parts[::-1] for parts in lists)))
    return [parts[: len(parts) - tail] for parts in lists]

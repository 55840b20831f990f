"""Finds the cases of a RAW folder in any of the three accepted layouts, without opening an image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case, Channel, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of, read_description, with_label_maps
from segfw.dataset.labels import LabelSet
from segfw.dataset.pairing import Pairing, channel_names, common_channels, file_findings, pair, pair_numbered
from segfw.images.dicom import holds_dicom, may_be_lost
from segfw.images.formats import FORMATS, split_ending

FILES_FIELD = "dataset"  # of nnU-Net's dataset.json


def find_dataset(raw: Path) -> FoundDataset:
    """Recognises the layout of a RAW folder and lists its training cases; raises UserError if it is none.

    Layouts: 'nnunet' (imagesTr + labelsTr + dataset.json with channel_names, or the files that its field 'dataset'
    names), 'decathlon' (dataset.json with modality and training), 'folders' (images + labels, all else inferred).
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder that holds the images and masks")
    return with_label_maps(_with_painting_problem(_find(raw, read_description(raw / DESCRIPTION_FILE))))


def _with_painting_problem(found: FoundDataset) -> FoundDataset:
    """The data set with an error if its regions are listed so that masks cannot hold them."""
    problem = found.labels.painting_problem if found.labels is not None else ""
    if not problem:
        return found
    finding = Finding(
        kind="region-order",
        severity="error",
        file=DESCRIPTION_FILE,
        what=problem,
        remedy="list in 'labels' the regions from large to small, and the values that they are painted as likewise in "
        "'regions_class_order'",
    )
    return replace(found, findings=(*found.findings, finding))


def _find(raw: Path, description: dict | None) -> FoundDataset:
    if description and isinstance(description.get(FILES_FIELD), dict):
        return _find_by_list(raw, description)
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
    """Files of a folder in a format we read and folders in it that hold a DICOM series, sorted; no hidden ones.

    Raises UserError if it is no folder.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {problem}; give a folder of images or masks")
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if _is_image(path))


def _is_image(path: Path) -> bool:
    """By its name alone, so that links to nothing, pipes and folders of that name are told of and not passed over."""
    return bool(split_ending(path)[1]) or may_be_lost(path) or (path.is_dir() and holds_dicom(path))


def series_folders(folder: Path) -> list[Path]:
    """All folders inside ``folder``, however deep, that hold DICOM files themselves; sorted, without hidden ones.

    Links to folders are followed, but no real folder is searched twice, so that links in a circle come to an end.
    """
    found: list[Path] = []
    searched: set[Path] = set()

    def search(inside: Path, above: tuple[Path, ...]) -> None:
        searched.add(inside.resolve())
        for path in sorted(path for path in inside.iterdir() if path.is_dir() and not path.name.startswith(".")):
            real = path.resolve()
            if real in above:
                continue
            if holds_dicom(path) or any(may_be_lost(entry) for entry in path.iterdir()):
                found.append(path)
            if real not in searched:
                search(path, (*above, real))

    search(folder, (folder.resolve(),))
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
        case = stem
        if match and match[1] not in only_looks_numbered:
            case = match[1]
        cases.setdefault(case, []).append(path)
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
        findings=tuple(file_findings(pairing, masks, [f"{index:04}" for index in range(len(channels))])),
    )


def _cases(pairing: Pairing) -> tuple[Case, ...]:
    return tuple(
        Case(id=case, images=tuple(chain(*pairing.channels_of(case).values())), label=pairing.masks[case])
        for case in pairing.cases
    )


def _find_by_list(raw: Path, description: dict) -> FoundDataset:
    """nnU-Net's field 'dataset': {case: {"images": [a file for each channel], "label": file}}, wherever they lie."""
    path = raw / DESCRIPTION_FILE
    channels = channels_of(description, path)
    cases: list[Case] = []
    findings: list[Finding] = []
    listed: set[Path] = set()
    for case_id, entry in sorted(description[FILES_FIELD].items()):
        images, label = _files_of_entry(case_id, entry, raw, path)
        listed |= {image.resolve() for image in images}
        missing = [file for file in (*images, label) if not file.exists()]
        findings += [_missing_file(case_id, file) for file in missing]
        if len(images) not in (1, len(channels)):  # one file may hold all channels
            findings.append(_wrong_number(case_id, len(images), len(channels)))
        elif not missing:
            cases.append(Case(id=case_id, images=images, label=label))
    findings += [_not_listed(file) for file in _unlisted_images(listed)]
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout="nnunet",
        channels=channels,
        labels=labels_of(description, path),
        cases=tuple(cases),
        findings=tuple(findings),
        notes=(f"cases by the field '{FILES_FIELD}' of {path.name}", *_where_lists_disagree(description, raw, path)),
    )


def _files_of_entry(case_id: str, entry: object, raw: Path, dataset_json: Path) -> tuple[tuple[Path, ...], Path]:
    """Images and mask of an entry of nnU-Net's field 'dataset'."""
    if isinstance(entry, dict):
        images = entry.get("images")
        label = entry.get("label")
        if isinstance(images, list) and images and isinstance(label, str) and all(isinstance(n, str) for n in images):
            return tuple(_listed(raw, name) for name in images), _listed(raw, label)
    what = f"the entry {case_id!r} of {FILES_FIELD!r} must have 'images', a list of files, and 'label', a file"
    raise UserError(f"{dataset_json}: {what}; correct it")


def _where_lists_disagree(description: dict, raw: Path, dataset_json: Path) -> tuple[str, ...]:
    """A note where the field 'training' of the same file names other masks, which nnU-Net does not read."""
    entries = description.get("training")
    if not isinstance(entries, list) or not entries:
        return ()
    trained = {_listed(raw, str(entry.get("label"))).resolve() for entry in entries if isinstance(entry, dict)}
    used = {_listed(raw, str(entry["label"])).resolve() for entry in description[FILES_FIELD].values()}
    if trained == used:
        return ()
    what = f"its field 'training' lists {count(len(trained), 'mask')}, of which {len(trained & used)} are used"
    return (f"{what}: '{FILES_FIELD}' in {dataset_json.name} counts, as in nnU-Net",)


def _wrong_number(case_id: str, images: int, channels: int) -> Finding:
    return Finding(
        kind="missing-channel" if images < channels else "unexpected-channel",
        severity="error",
        case=case_id,
        file=DESCRIPTION_FILE,
        what=f"lists {count(images, 'image')} for {count(channels, 'channel')}",
        remedy="list one file for each channel",
    )


def _listed(raw: Path, name: str) -> Path:
    """A file that dataset.json names, from its own folder; also where the list was written on Windows."""
    path = raw / name
    return path if "\\" not in name or path.exists() else raw / name.replace("\\", "/")


def _find_decathlon(raw: Path, description: dict) -> FoundDataset:
    path = raw / DESCRIPTION_FILE
    channels = channels_of(description, path)
    entries = description["training"]
    if not isinstance(entries, list):
        raise UserError(f"{path}: field 'training' must be a list of {{'image': ..., 'label': ...}}; correct it")
    cases: list[Case] = []
    findings: list[Finding] = []
    times_listed: Counter[str] = Counter()
    listed: set[Path] = set()
    for entry in entries:
        image, label = _listed_files(entry, raw, path)
        images = _files_of_channels(image, len(channels))
        case_id = split_ending(image)[0]
        times_listed[case_id] += 1
        listed |= {file.resolve() for file in images}
        missing = [file for file in (*images, label) if not file.exists()]
        findings += [_missing_file(case_id, file) for file in missing]
        if not missing and times_listed[case_id] == 1:
            cases.append(Case(id=case_id, images=images, label=label))
    findings += [_listed_twice(case_id, times) for case_id, times in times_listed.items() if times > 1]
    findings += [_not_listed(file) for file in _unlisted_images(listed)]
    return FoundDataset(
        name=str(description.get("name", raw.resolve().name)),
        root=raw,
        layout="decathlon",
        channels=channels,
        labels=labels_of(description, path),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        findings=tuple(findings),
    )


def _files_of_channels(image: Path, channel_count: int) -> tuple[Path, ...]:
    """The file that a list names; or CASE_0000, CASE_0001, ... where it names CASE alone, as nnU-Net v1 wanted it."""
    stem, ending = split_ending(image)
    numbered = tuple(image.with_name(f"{stem}_{number:04}{ending}") for number in range(channel_count))
    return numbered if numbered and numbered[0].exists() and not image.exists() else (image,)


def _listed_files(entry: object, raw: Path, dataset_json: Path) -> tuple[Path, Path]:
    """Image and mask of an entry of a Decathlon 'training' list."""
    if isinstance(entry, dict):
        image = entry.get("image")
        label = entry.get("label")
        if isinstance(image, str) and isinstance(label, str):
            return _listed(raw, image), _listed(raw, label)
    raise UserError(f"{dataset_json}: an entry of 'training' is {entry!r}; it must have 'image' and 'label'")


def _missing_file(case_id: str, file: Path) -> Finding:
    return Finding(
        kind="missing-file",
        severity="error",
        case=case_id,
        file=str(file),
        what="is listed but missing",
        remedy="add the file or remove the entry from dataset.json",
    )


def _listed_twice(case_id: str, times: int) -> Finding:
    return Finding(
        kind="listed-twice",
        severity="error",
        case=case_id,
        file="dataset.json",
        what=f"is listed {times} times",
        remedy="keep one entry",
    )


def _unlisted_images(listed: set[Path]) -> list[Path]:
    """Images that lie beside listed ones."""
    found = []
    for folder in {file.parent for file in listed if file.parent.is_dir()}:
        found += [file for file in image_files(folder) if file.resolve() not in listed]
    return sorted(found)


def _not_listed(file: Path) -> Finding:
    return Finding(
        kind="not-listed",
        severity="warning",
        case=split_ending(file)[0],
        file=file.name,
        what="is not listed in dataset.json and is not used",
        remedy="list it, or move it away",
    )


def _find_folders(raw: Path, description: dict | None) -> FoundDataset:
    images = image_files(raw / "images")
    masks = image_files(raw / "labels")
    if not images or not masks:
        empty = "images" if not images else "labels"
        raise UserError(f"{raw / empty}: holds no image segfw can read ({', '.join(FORMATS)}, or folders of DICOM)")
    described = description or {}
    path = raw / DESCRIPTION_FILE
    channels = channels_of(described, path) if {"channel_names", "modality"} & described.keys() else None
    labels = labels_of(described, path) if "labels" in described else None
    pairing = pair(images, masks)
    cases = _cases(pairing)
    expected = common_channels(pairing)
    notes = [f"paired {len(cases)} cases by name, such as {_pairing_example(pairing, cases[0])}"] if cases else []
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
        findings=tuple(file_findings(pairing, masks, expected)),
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


def _pairing_example(pairing: Pairing, case: Case) -> str:
    return f"{' + '.join(path.name for path in case.images)} with {pairing.masks[case.id].name}"

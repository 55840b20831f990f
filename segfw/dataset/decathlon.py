"""The layout of the Medical Segmentation Decathlon: a dataset.json that lists images and masks under 'training'."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segfw.base.records import UserError
from segfw.dataset.cases import Case, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of
from segfw.dataset.listed_files import listed_path, missing_file, not_listed, unlisted_images
from segfw.images.formats import split_ending


def find_decathlon(raw: Path, description: dict | None) -> FoundDataset | None:
    """The cases that dataset.json lists under 'training'; None if it lists none, or has nnU-Net's channel_names."""
    if not description or "training" not in description or "channel_names" in description:
        return None
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
        findings += [missing_file(case_id, file) for file in missing]
        if not missing and times_listed[case_id] == 1:
            cases.append(Case(id=case_id, images=images, label=label))
    findings += [_listed_twice(case_id, times) for case_id, times in times_listed.items() if times > 1]
    findings += [not_listed(file) for file in unlisted_images(listed)]
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
            return listed_path(raw, image), listed_path(raw, label)
    raise UserError(f"{dataset_json}: an entry of 'training' is {entry!r}; it must have 'image' and 'label'")


def _listed_twice(case_id: str, times: int) -> Finding:
    return Finding(
        kind="listed-twice",
        severity="error",
        case=case_id,
        file="dataset.json",
        what=f"is listed {times} times",
        remedy="keep one entry",
    )

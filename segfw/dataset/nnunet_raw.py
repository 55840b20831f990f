"""nnU-Net's raw layout: imagesTr, labelsTr and dataset.json; or the files that its field 'dataset' names."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of
from segfw.dataset.image_files import image_files
from segfw.dataset.listed_files import listed_path, missing_file, not_listed, unlisted_images
from segfw.dataset.pairing import cases_of, file_findings, pair_numbered

FILES_FIELD = "dataset"  # of nnU-Net's dataset.json


def find_nnunet(raw: Path, description: dict | None) -> FoundDataset | None:
    """imagesTr and labelsTr with a dataset.json that names channels and labels; None without the two folders."""
    if not (raw / "imagesTr").is_dir() or not (raw / "labelsTr").is_dir():
        return None
    if not description:
        what = (
            "holds imagesTr/ and labelsTr/ but no dataset.json, which says in nnU-Net's layout what channels there are"
        )
        raise UserError(f"{raw}: {what}; add it, or call the folders images/ and labels/")
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
        cases=cases_of(pairing),
        findings=tuple(file_findings(pairing, masks, [f"{index:04}" for index in range(len(channels))])),
    )


def find_by_list(raw: Path, description: dict | None) -> FoundDataset | None:
    """nnU-Net's field 'dataset': {case: {"images": [a file for each channel], "label": file}}, wherever they lie."""
    if not description or not isinstance(description.get(FILES_FIELD), dict):
        return None
    path = raw / DESCRIPTION_FILE
    channels = channels_of(description, path)
    cases: list[Case] = []
    findings: list[Finding] = []
    listed: set[Path] = set()
    for case_id, entry in sorted(description[FILES_FIELD].items()):
        images, label = _files_of_entry(case_id, entry, raw, path)
        listed |= {image.resolve() for image in images}
        missing = [file for file in (*images, label) if not file.exists()]
        findings += [missing_file(case_id, file) for file in missing]
        if len(images) not in (1, len(channels)):  # one file may hold all channels
            findings.append(_wrong_number(case_id, len(images), len(channels)))
        elif not missing:
            cases.append(Case(id=case_id, images=images, label=label))
    findings += [not_listed(file) for file in unlisted_images(listed)]
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
            return tuple(listed_path(raw, name) for name in images), listed_path(raw, label)
    what = f"the entry {case_id!r} of {FILES_FIELD!r} must have 'images', a list of files, and 'label', a file"
    raise UserError(f"{dataset_json}: {what}; correct it")


def _where_lists_disagree(description: dict, raw: Path, dataset_json: Path) -> tuple[str, ...]:
    """A note where the field 'training' of the same file names other masks, which nnU-Net does not read."""
    entries = description.get("training")
    if not isinstance(entries, list) or not entries:
        return ()
    trained = {listed_path(raw, str(entry.get("label"))).resolve() for entry in entries if isinstance(entry, dict)}
    used = {listed_path(raw, str(entry["label"])).resolve() for entry in description[FILES_FIELD].values()}
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

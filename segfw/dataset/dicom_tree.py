"""A tree of DICOM series with structure sets or segmentations in it: which of them belong together, by their UIDs.

Neither folders nor names of files matter. The series that a structure set says it was drawn on is its image, and all
other series are left out. Cases are called by folders, or by pseudonyms, and never by what is said of a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from segfw.base.words import count, with_folder
from segfw.dataset.cases import Case, Channel, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of
from segfw.dataset.image_files import JUNK_FOLDERS
from segfw.dataset.structure_map import (
    STRUCTURES_FILE,
    StructureMap,
    names_in_words,
    proposed,
    read_structure_map,
)
from segfw.images.dicom import is_dicom, may_be_lost
from segfw.images.dicom_header import DicomHeader, read_header
from segfw.images.dicom_masks import MASKS
from segfw.images.formats import UnreadableFile, open_named_mask, split_ending
from segfw.images.named_mask import NamedMask

SHOWN = 4
MOST_DEEP = 8  # folders in each other: site, patient, study, series, and some more
WITHOUT_FOLDER = "case"


@dataclass(frozen=True, kw_only=True)
class Series:
    """The files of one series, by the folder that they lie in."""

    header: DicomHeader
    files: Mapping[Path, tuple[Path, ...]]
    instance_uids: frozenset[str]

    @property
    def folder(self) -> Path:
        """The folder that holds most of its files."""
        return max(self.files, key=lambda folder: (len(self.files[folder]), str(folder)))


@dataclass(kw_only=True)
class DicomTree:
    """All series and masks below a folder, and files that cannot be read."""

    series: dict[str, Series] = field(default_factory=dict)
    masks: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    series_in: Counter[Path] = field(default_factory=Counter)  # how many series a folder holds

    def image_of(self, series: Series) -> Path:
        """What stands for a series: its folder, or one of its files where the folder holds others too."""
        folder = series.folder
        return folder if self.series_in[folder] == 1 else series.files[folder][0]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted, without hidden ones; no folder is searched twice, and none that lies deeper
    than archives nest them.
    """
    searched: set[Path] = set()

    def search(inside: Path, depth: int) -> Iterator[Path]:
        real = inside.resolve()
        if real in searched or depth > MOST_DEEP:
            return
        searched.add(real)
        for path in sorted(inside.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if path.name.lower() not in JUNK_FOLDERS:
                    yield from search(path, depth + 1)
            else:
                yield path

    yield from search(folder, 0)


def read_tree(raw: Path) -> DicomTree:
    """Looks at the first elements of all DICOM files below a folder."""
    tree = DicomTree()
    files: dict[str, dict[Path, list[Path]]] = {}
    headers: dict[str, DicomHeader] = {}
    uids: dict[str, set[str]] = {}
    for path in files_below(raw):
        if split_ending(path)[1] or path.name.upper() == "DICOMDIR":
            continue
        if may_be_lost(path):
            tree.damaged.append(path)
            continue
        if not is_dicom(path):
            continue
        header = read_header(path)
        if header is None:
            tree.damaged.append(path)
        elif header.kind in MASKS:
            tree.masks.append(path)
        elif header.kind == "image":
            uid = header.series.series or str(path.parent)
            headers.setdefault(uid, header)
            files.setdefault(uid, {}).setdefault(path.parent, []).append(path)
            uids.setdefault(uid, set()).add(header.instance_uid)
    for uid, by_folder in files.items():
        kept = {folder: tuple(found) for folder, found in by_folder.items()}
        tree.series[uid] = Series(header=headers[uid], files=kept, instance_uids=frozenset(uids[uid]))
        tree.series_in.update(kept.keys())
    return tree


def holds_dicom_mask(raw: Path) -> bool:
    """Whether a structure set or segmentation lies anywhere below a folder."""
    for path in files_below(raw):
        if split_ending(path)[1] or not is_dicom(path):
            continue
        header = read_header(path)
        if header is not None and header.kind in MASKS:
            return True
    return False


# ---- which series a mask belongs to ----


@dataclass(frozen=True, kw_only=True)
class _Pair:
    mask: Path
    series: Series
    structures: tuple[str, ...]


def find_dicom_tree(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set of series and what was drawn on them; None if there is no structure set and no segmentation.

    Without ``structures.csv`` the labels are proposed, and an error tells that nothing is trained on a proposal.
    """
    if not holds_dicom_mask(raw):
        return None
    tree = read_tree(raw)
    findings: list[Finding] = [_damaged(path) for path in tree.damaged]
    pairs: list[_Pair] = []
    for path in tree.masks:
        try:
            mask = open_named_mask(path)
        except UnreadableFile as error:
            findings.append(_unreadable(path, error))
            continue
        if mask is None:
            continue
        series, problem = _series_of(mask, path, tree)
        if series is None:
            findings.append(problem or _no_series(path, mask))
            continue
        if problem is not None:
            findings.append(problem)
        structures = tuple(dict.fromkeys(structure.name for structure in mask.structures))
        pairs.append(_Pair(mask=path, series=series, structures=structures))
    pairs, several = _one_mask_each(pairs)
    names = Counter(name for pair in pairs for name in pair.structures)
    described = description or {}
    structure_map, map_findings = _structure_map(raw, names)
    described_labels = labels_of(described, raw / DESCRIPTION_FILE) if "labels" in described else None
    is_given = structure_map.path.is_file()
    has_labels = is_given or any(row.label for row in structure_map.rows)
    labels = structure_map.labels(described_labels if is_given else None) if has_labels else None
    ids = _case_ids(raw, pairs)
    cases = []
    for pair in pairs:
        if labels is None:
            continue
        drawn_as = structure_map.drawn_as(pair.structures, labels)
        if not drawn_as:
            if not structure_map.unknown(pair.structures):  # which are told already
                findings.append(_nothing_drawn(ids[pair.mask], pair, structure_map))
            continue
        image = tree.image_of(pair.series)
        cases.append(Case(id=ids[pair.mask], images=(image,), label=pair.mask, drawn_as=drawn_as))
    return FoundDataset(
        name=str(described.get("name", raw.resolve().name)),
        root=raw,
        layout="DICOM series with structure sets",
        channels=_channels(described, raw, pairs),
        labels=labels,
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        findings=(*findings, *several, *map_findings),
        notes=_notes(tree, pairs, structure_map, names),
        patient_of=_patients(pairs, ids, {case.id for case in cases}),
        labels_source=STRUCTURES_FILE,
        labels_may_be_absent=True,
        structure_names=names,
    )


def _series_of(mask: NamedMask, path: Path, tree: DicomTree) -> tuple[Series | None, Finding | None]:
    """The series that a mask was drawn on, and what is wrong with it; by its UID, else by the frame of reference."""
    by_uid = [tree.series[each.series] for each in mask.series if each.series in tree.series]
    found = by_uid
    if not found:
        frames = {each.frame for each in mask.series} - {""}
        found = [series for series in tree.series.values() if series.header.series.frame in frames]
    if not found:
        return None, None
    if len(found) > 1:
        what = f"was drawn on one of {len(found)} series here, and does not say on which"
        if by_uid:
            what = f"says that it was drawn on {len(found)} series"
        return None, _error("several-series", path, what, "keep the one that is meant, or convert the mask to NIfTI")
    series = found[0]
    drawn_on = mask.image_uids
    missing = len(drawn_on - series.instance_uids)
    problem = None
    if drawn_on & series.instance_uids and missing:
        lacking = f"{missing} {'is' if missing == 1 else 'are'} not in {series.folder.name}"
        what = f"was drawn on {count(len(drawn_on), 'slice')}, of which {lacking}"
        problem = _error("missing-slices", path, what, "complete the series")
    if len(series.files) > 1:
        folders = ", ".join(folder.name for folder in list(series.files)[:SHOWN])
        what = f"was drawn on a series whose slices lie in {len(series.files)} folders ({folders})"
        problem = _error("series-in-folders", path, what, "put all slices of a series into one folder")
    return series, problem


def _one_mask_each(pairs: Sequence[_Pair]) -> tuple[list[_Pair], list[Finding]]:
    """The pairs without those of which several masks were drawn on one series, and a finding for each of these."""
    by_series: dict[str, list[_Pair]] = {}
    for pair in pairs:
        by_series.setdefault(str(pair.series.folder) + pair.series.header.series.series, []).append(pair)
    kept = []
    findings = []
    for group in by_series.values():
        if len(group) == 1:
            kept.append(group[0])
            continue
        names = ", ".join(with_folder(pair.mask) for pair in group[:SHOWN])
        what = f"{names} were drawn on one series, and each could be the mask"
        findings.append(_error("several-masks", group[0].mask, what, "keep one of them, and move the others away"))
    return kept, findings


def _structure_map(raw: Path, names: Mapping[str, int]) -> tuple[StructureMap, list[Finding]]:
    path = raw / STRUCTURES_FILE
    if not names and not path.is_file():
        return StructureMap(path=path, rows=()), []
    if not path.is_file():
        table, _ = proposed(names, path)
        unnamed = table.left_out(names)
        said = f"; {names_in_words(unnamed, names)} would mean nothing" if unnamed else ""
        what = f"nothing says which label each of the structures' names means ({count(len(names), 'name')}){said}"
        remedy = (
            f"segfw check {raw} --output DIR writes a proposal, DIR/{STRUCTURES_FILE}: read it, correct it, and put it "
            f"into {raw}"
        )
        finding = Finding(kind="no-structure-map", severity="error", file=STRUCTURES_FILE, what=what, remedy=remedy)
        return table, [finding]
    table = read_structure_map(path)
    unknown = table.unknown(names)
    if not unknown:
        return table, []
    what = f"has no line for {names_in_words(unknown, names)}"
    remedy = "add one for each, with its label, or with none to leave it out; or the line * to leave out all others"
    return table, [Finding(kind="unknown-structure", severity="error", file=STRUCTURES_FILE, what=what, remedy=remedy)]


def _case_ids(raw: Path, pairs: Sequence[_Pair]) -> dict[Path, str]:
    """A name for each pair, by its mask: the first folder in which series differ, numbered where several are in one."""
    folders = {pair.series.folder.relative_to(raw).parts for pair in pairs}
    shared = 0
    if len(folders) > 1:
        shared = next(level for level, names in enumerate(zip_longest(*folders)) if len(set(names)) > 1)
    bases: dict[Path, str] = {}
    for pair in pairs:
        parts = pair.series.folder.relative_to(raw).parts[shared:]
        bases[pair.mask] = parts[0] if parts else WITHOUT_FOLDER
    times = Counter(bases.values())
    numbers: Counter[str] = Counter()
    ids = {}
    for mask, base in sorted(bases.items()):
        ids[mask] = base
        while times[base] > 1 and ids[mask] in times:  # also of folders that are called like that
            numbers[base] += 1
            ids[mask] = f"{base}_{numbers[base]}"
    return ids


def _patients(pairs: Iterable[_Pair], ids: Mapping[Path, str], used: set[str]) -> dict[str, str]:
    """Which cases are of one patient, called by the first of them; those of no known patient each by themselves."""
    first: dict[str, str] = {}
    found = {}
    for pair in sorted(pairs, key=lambda each: ids[each.mask]):
        case = ids[pair.mask]
        if case in used:
            patient = pair.series.header.patient
            found[case] = first.setdefault(patient, case) if patient else case
    return found


def _channels(description: Mapping, raw: Path, pairs: Sequence[_Pair]) -> tuple[Channel, ...] | None:
    if {"channel_names", "modality"} & description.keys():
        return channels_of(description, raw / DESCRIPTION_FILE)
    kinds = {pair.series.header.channel for pair in pairs}
    return (Channel(name=next(iter(kinds))),) if len(kinds) == 1 and "" not in kinds else None


def _notes(tree: DicomTree, pairs: Sequence[_Pair], table: StructureMap, names: Mapping[str, int]) -> tuple[str, ...]:
    notes = []
    others = len(tree.series) - len({str(pair.series.folder) + pair.series.header.series.series for pair in pairs})
    if others:
        notes.append(f"{count(others, 'series', 'series')} without a structure set left out")
    left_out = table.left_out(names)
    if left_out and table.rows:
        notes.append(f"structures left out: {names_in_words(left_out, names)}")
    return tuple(notes)


# ---- what is wrong ----


def _error(kind: str, path: Path, what: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity="error", file=with_folder(path), what=what, remedy=remedy)


def _damaged(path: Path) -> Finding:
    return _error("unreadable", path, "is damaged, cut short or a link to nothing", "copy it again, or move it away")


def _unreadable(path: Path, error: UnreadableFile) -> Finding:
    what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return _error("unreadable", path, what, remedy)


def _no_series(path: Path, mask: NamedMask) -> Finding:
    uid = next((each.series for each in mask.series if each.series), "")
    what = f"was drawn on the series {uid}, which is not here" if uid else "does not say which series it was drawn on"
    return _error("no-series", path, what, "put that series beside it, or move the mask away")


def _nothing_drawn(case: str, pair: _Pair, table: StructureMap) -> Finding:
    names = ", ".join(pair.structures[:SHOWN])
    more = f" and {len(pair.structures) - SHOWN} more" if len(pair.structures) > SHOWN else ""
    what = f"none of its structures ({names}{more}) has a label in {table.path.name}"
    remedy = "give one of them a label there, or move the mask away"
    return Finding(
        kind="nothing-drawn", severity="error", case=case, file=with_folder(pair.mask), what=what, remedy=remedy
    )

"""By what scores are grouped: columns of tables, and what headers tell. Wrong tables are told before cases are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.words import count
from segfw.dataset.case_values import table_column, values_of_cases, values_of_patients
from segfw.dataset.layouts import find_dataset, find_dataset_of_masks
from segfw.dataset.patients import read_groups
from segfw.evaluation.case_traits import CaseTraits, rounded, thirds
from segfw.evaluation.metrics import LabelScore
from segfw.evaluation.pairs import Pairs

HEADER = "header"
MOST_NUMBERS = 6  # that are a group each; of more numbers there are thirds


@dataclass(frozen=True, kw_only=True)
class Column:
    """Groups of patients by one thing. ``structure`` is whose scores alone they are of, '' for those of cases.

    ``groups`` are the names in their order; a patient who has none, such as one without the structure, is in no group.
    """

    name: str
    source: str
    structure: str
    group_of: Mapping[str, str]
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What was asked for: columns of tables, and whether headers are asked, too; whose each case is."""

    columns: tuple[Column, ...]
    by_header: bool
    patient_of: Mapping[str, str]

    @property
    def note(self) -> str:
        """How many patients there are."""
        patients = len(set(self.patient_of.values()))
        return f"{count(len(self.patient_of), 'case')} of {count(patients, 'patient')}"


def read_grouping(by: Sequence[str], groups: str | Path | None, pairs: Pairs, reference: Path) -> Grouping:
    """The columns that ``by`` names ('FILE.csv:COLUMN' or 'header'), for the cases of ``pairs``.

    ``groups`` say which cases are of one patient, as for training; without it the folders or names tell. Raises
    UserError if a table lacks its column or a case, or if a patient is in two groups.
    """
    patient_of = read_groups(groups, list(pairs), _patients_by_folder(pairs, reference))
    columns = []
    for typed in dict.fromkeys(by):
        if typed == HEADER:
            continue
        asked = table_column(typed, "--by")
        value_of = values_of_patients(values_of_cases(asked, patient_of), patient_of, asked)
        group_of, names = _named_groups(value_of)
        columns.append(
            Column(name=asked.column, source=asked.path.name, structure="", group_of=group_of, groups=tuple(names))
        )
    if not columns and HEADER not in by:
        raise UserError("--by names nothing; give FILE.csv:COLUMN, such as sites.csv:site, or header")
    return Grouping(columns=tuple(columns), by_header=HEADER in by, patient_of=patient_of)


def header_columns(
    traits: Mapping[str, CaseTraits], cases: Mapping[str, Mapping[str, LabelScore]], patient_of: Mapping[str, str]
) -> list[Column]:
    """Groups by voxel sizes, by the size of each structure, and by whether it is cut.

    A patient's numbers are means over the patient's cases, so that nobody is in two groups; a structure is cut where it
    is in any of them.
    """
    columns = []
    for name, field in (("spacing in plane", "in_plane_mm"), ("slice thickness", "slice_mm")):
        value_of = _means({case: getattr(found, field) for case, found in traits.items()}, patient_of)
        columns.append(_by_thirds(name, "", value_of, "mm"))
    for structure in next(iter(cases.values()), {}):
        found = {case: by_label[structure] for case, by_label in cases.items()}
        units = next(iter(found.values())).units
        sizes = {case: getattr(score, f"reference_{units.size}") or None for case, score in found.items()}
        value_of = _means(sizes, patient_of)
        columns.append(_by_thirds(f"size of {structure}", structure, value_of, units.size))
        is_cut = dict.fromkeys(value_of, "whole")
        for case, trait in traits.items():
            if structure in trait.cut and found[case].annotated:
                is_cut[patient_of[case]] = "cut"
        columns.append(
            Column(
                name=f"{structure} whole or cut",
                source=HEADER,
                structure=structure,
                group_of=is_cut,
                groups=tuple(name for name in ("whole", "cut") if name in is_cut.values()),
            )
        )
    return [column for column in columns if column.groups]


def _by_thirds(name: str, structure: str, value_of: Mapping[str, float], unit: str) -> Column:
    group_of, groups = thirds(value_of, unit)
    return Column(name=name, source=HEADER, structure=structure, group_of=group_of, groups=tuple(groups))


def _means(value_of_case: Mapping[str, float | None], patient_of: Mapping[str, str]) -> dict[str, float]:
    """Each patient's mean over the cases that have a value; patients without any are left out.

    It is rounded, so that what is the same in all cases is so in the means over three of them and over one.
    """
    values: dict[str, list[float]] = {}
    for case, value in value_of_case.items():
        if value is not None:
            values.setdefault(patient_of[case], []).append(value)
    return {patient: rounded(sum(found) / len(found)) for patient, found in values.items()}


def _named_groups(value_of: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The group of every patient, and the groups in their order: of many numbers thirds, else the values themselves."""
    numbers = _numbers(value_of)
    if numbers is None:
        return dict(value_of), sorted(set(value_of.values()))
    if len(set(numbers.values())) > MOST_NUMBERS:
        return thirds(numbers, "")
    return dict(value_of), sorted(set(value_of.values()), key=float)


def _numbers(value_of: Mapping[str, str]) -> dict[str, float] | None:
    """The values as numbers; None if one is none."""
    try:
        numbers = {patient: float(value) for patient, value in value_of.items()}
    except ValueError:
        return None
    return numbers if all(abs(value) < float("inf") for value in numbers.values()) else None


def _patients_by_folder(pairs: Pairs, reference: Path) -> dict[str, str]:
    """The patient of each case where the folders of the reference tell it, else empty."""
    try:
        found = find_dataset_of_masks(reference) or find_dataset(reference)
    except UserError:
        return {}
    patients = {
        case.label.resolve(): found.patient_of[case.id]
        for case in found.cases
        if case.label is not None and case.id in found.patient_of
    }
    by_folder = {case: patients.get(path.resolve(), "") for case, (path, _) in pairs.items()}
    return by_folder if all(by_folder.values()) else {}

"""Scores by groups of patients, from the scores of single cases.

Legend: N cases, P patients, M columns (a metric of a label), G groups, B draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segfw.evaluation.case_traits import CaseTraits
from segfw.evaluation.group_statistics import (
    LEAST_PATIENTS,
    GroupedScores,
    GroupMean,
    PatientSums,
    ScoreGroup,
    holm,
    largest_gap,
    permutation_p,
)
from segfw.evaluation.groupings import Column, Grouping, header_columns
from segfw.evaluation.metrics import METRICS, LabelScore
from segfw.evaluation.statistics import RESAMPLES, intervals
from segfw.evaluation.summary import value_table

GROUPED = ("dice", "nsd", "hd95_mm", "hd95_px")
CASE_MEAN = "mean of each case"
GROUP_POLICY = (
    "Means are over cases; intervals hold them with 95 % confidence, by "
    f"{RESAMPLES} bootstrap samples of patients, and tend to be too narrow below about 20 of these. That of the "
    "largest gap allows for few patients, and for all pairs of groups. p is of a permutation test of Dice over whole "
    f"patients; corrected is by Holm, for all columns. Groups of fewer than {LEAST_PATIENTS} patients have values, and "
    "are in no test. What differs between groups need not be the cause"
)


def group_scores(
    cases: Mapping[str, Mapping[str, LabelScore]], traits: Mapping[str, CaseTraits], grouping: Grouping
) -> tuple[GroupedScores, ...]:
    """Scores by every column of ``grouping``, with p values corrected for how many columns there are."""
    columns = list(grouping.columns)
    if grouping.by_header:
        columns += header_columns(traits, cases, grouping.patient_of)
    table = _Table.of(cases, grouping.patient_of)
    found = [table.by(column) for column in columns]
    tested = [index for index, one in enumerate(found) if one.p is not None]
    corrected = holm([found[index].p or 0.0 for index in tested])
    for index, p_holm in zip(tested, corrected):
        found[index] = found[index].model_copy(update={"p_holm": p_holm})
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The metrics of GROUPED for every case (N, labels + 1, M), of its labels and last of its mean over these.

    ``patient_n`` is the place of each case's patient among ``patients``.
    """

    cases: tuple[str, ...]
    labels: tuple[str, ...]
    values_nlm: np.ndarray
    patients: tuple[str, ...]
    patient_n: np.ndarray

    @classmethod
    def of(cls, cases: Mapping[str, Mapping[str, LabelScore]], patient_of: Mapping[str, str]) -> _Table:
        """The scores of every case, and whose each is."""
        labels = tuple(next(iter(cases.values())))
        metrics = [list(METRICS).index(name) for name in GROUPED]
        values_nlm = value_table(cases, labels)[:, :, metrics]
        exists_nlm = np.isfinite(values_nlm)
        with np.errstate(invalid="ignore"):
            mean_nm = np.where(exists_nlm, values_nlm, 0.0).sum(1) / exists_nlm.sum(1)
        patients = tuple(sorted({patient_of[case] for case in cases}))
        place = {patient: index for index, patient in enumerate(patients)}
        return cls(
            cases=tuple(cases),
            labels=labels,
            values_nlm=np.concatenate([values_nlm, mean_nm[:, None]], axis=1),
            patients=patients,
            patient_n=np.array([place[patient_of[case]] for case in cases]),
        )

    def by(self, column: Column) -> GroupedScores:
        """The scores of each group of a column, their largest gap, and its test."""
        if column.structure:
            tested = column.structure
        else:
            tested = CASE_MEAN if len(self.labels) > 1 else self.labels[0]
        row = len(self.labels) if tested == CASE_MEAN else self.labels.index(tested)
        names = [name for name in column.groups if name in column.group_of.values()]
        place = {name: index for index, name in enumerate(names)}
        group_p = np.array([place.get(column.group_of.get(patient, ""), -1) for patient in self.patients])
        every = PatientSums.of(self.values_nlm.reshape(len(self.cases), -1), self.patient_n, len(self.patients))

        # Means of every group, with draws of its patients
        rng = np.random.default_rng(0)
        groups = []
        means_g = []
        resampled = []
        for index, name in enumerate(names):
            sums = every.of_patients(group_p == index)
            resampled_bm = sums.resampled_means(rng)
            groups.append(self._group(name, column, sums, resampled_bm, group_p == index))
            means_g.append(sums.means()[row * len(GROUPED)])
            resampled.append(resampled_bm[:, row * len(GROUPED)])

        # The test, of groups with enough patients
        dice_p = every.sums_pm[:, row * len(GROUPED)]
        count_p = every.counts_pm[:, row * len(GROUPED)]
        large = [index for index in range(len(names)) if ((group_p == index) & (count_p > 0)).sum() >= LEAST_PATIENTS]
        untested = _why_untested(names, large)
        gap = None
        p = None
        if not untested:
            large_names = [names[index] for index in large]
            resampled_bg = np.stack([resampled[index] for index in large], axis=1)
            patients_g = np.array([((group_p == index) & (count_p > 0)).sum() for index in large])
            gap = largest_gap(large_names, np.array([means_g[index] for index in large]), resampled_bg, patients_g)
            among_p = np.isin(group_p, large) & (count_p > 0)
            p = permutation_p(dice_p[among_p], count_p[among_p], group_p[among_p])
        return GroupedScores(
            column=column.name,
            source=column.source,
            tested=tested,
            groups=tuple(groups),
            gap=gap,
            p=p,
            p_holm=None,
            untested=untested,
        )

    def _group(
        self, name: str, column: Column, sums: PatientSums, resampled_bm: np.ndarray, is_in_p: np.ndarray
    ) -> ScoreGroup:
        """Means of one group: of one structure, or of all and of the cases' means over them."""
        is_in_n = is_in_p[self.patient_n]
        rows = {label: index for index, label in enumerate(self.labels) if column.structure in ("", label)}
        if not column.structure and len(self.labels) > 1:
            rows[CASE_MEAN] = len(self.labels)
        patients_m = (sums.counts_pm > 0).sum(0)
        found_intervals = intervals(resampled_bm, patients_m)
        means_m = sums.means()
        found: dict[str, dict[str, GroupMean]] = {}
        for title, row in rows.items():
            found[title] = {}
            for number, metric in enumerate(GROUPED):
                at = row * len(GROUPED) + number
                values_n = np.where(is_in_n, self.values_nlm[:, row, number], np.nan)
                if not np.isfinite(values_n).any():
                    continue
                worst = int(np.nanargmin(values_n) if METRICS[metric].larger_is_better else np.nanargmax(values_n))
                low, high = found_intervals[at] or (None, None)
                found[title][metric] = GroupMean(
                    mean=float(means_m[at]),
                    low=low,
                    high=high,
                    worst=float(values_n[worst]),
                    worst_case=self.cases[worst],
                    cases=int(np.isfinite(values_n).sum()),
                    patients=int(patients_m[at]),
                )
        return ScoreGroup(
            name=name,
            patients=int(is_in_p.sum()),
            cases=int(is_in_n.sum()),
            foreground=found.pop(CASE_MEAN, {}),
            labels=found,
        )


def _why_untested(names: Sequence[str], large: Sequence[int]) -> str:
    """Why groups are not compared, '' if they are."""
    if len(names) < 2:
        return f"all are {names[0]!r}" if names else "no case has it"
    if len(large) < 2:
        return f"{'no' if not large else 'only one'} group has {LEAST_PATIENTS} patients"
    return ""

"""Scores pairs of masks, one predicted and one of an expert, in threads; writes JSON, CSV and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segfw.base.parallel import CasesFailed, Outcome, map_bounded
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.evaluation.compare import compare_cases
from segfw.evaluation.metrics import LabelScore, Measures, Scores
from segfw.evaluation.pairs import (
    Pairs,
    listing,
)
from segfw.evaluation.result_files import write_report_of_pairs, write_scores
from segfw.evaluation.score import DEFAULT, lesion_names, score_case
from segfw.evaluation.summary import summarize
from segfw.images.formats import size_and_change, split_ending

BYTES_PER_VOXEL = 24  # of a case: both masks as stored and as classes, their surfaces, and a picture's worth of copies
COMPRESSION = 100  # of a mask in a format whose header is not looked into

CaseScores = dict[str, dict[str, LabelScore]]


@dataclass(frozen=True, kw_only=True)
class OtherMasks:
    """Second predictions that the first are compared with: what both are called, and the second's files."""

    names: tuple[str, str]
    pairs: Mapping[str, tuple[Path, Path]]


def evaluate_pairs(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: LabelSet,
    *,
    title: str,
    output: Path | None = None,
    report: Path | None = None,
    images: Mapping[str, Path] | None = None,
    curve: Sequence[Mapping[str, float]] | None = None,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    label_maps: Mapping[str, LabelMap] | None = None,
    measures: Measures = DEFAULT,
    workers: int | None = None,
    other: OtherMasks | None = None,
) -> Scores:
    """Scores {case id: (reference file, prediction file)} in threads, as many as ``workers`` and the memory allow.

    ``output`` (NAME.json) also gets NAME.csv (a row per case and label), NAME_summary.csv, and where there is something
    to say NAME_lesions.csv and NAME_comparison.csv. ``report`` is an HTML page: its pictures show ``images`` (file of
    the first channel by case id) where given, and ``curve`` has a mapping per epoch, as in metrics.jsonl.
    ``label_maps`` say by case id what values in its reference mean; voxels of the ignore label there count nowhere. A
    case that cannot be read or lies on another grid does not stop the others: the scores without it are written, with a
    note, and CasesFailed is raised at the end.
    """
    check_output(output)
    lesion_names(labels, measures)
    score = partial(_score_all, labels=labels, label_maps=label_maps or {}, measures=measures, workers=workers)
    cases, failures = score(pairs)
    if not cases:
        raise failures[0].error if failures else UserError("there are no cases to score; give at least one")
    if failures:
        left_out = f"could not be scored and not counted in the means ({listing([each.item for each in failures])})"
        notes = [*notes, f"{count(len(failures), 'case')} {left_out}"]
    comparison = None
    if other is not None:
        other_cases, other_failures = score(other.pairs)
        comparison = compare_cases(cases, other_cases, other.names)
        if other_failures:
            failed = f"could not be scored ({listing([each.item for each in other_failures])})"
            notes = [*notes, f"{other.names[1]}: {count(len(other_failures), 'case')} {failed}"]
            failures += other_failures
    scores = summarize(cases, [*notes, *labels.explanation], measures).model_copy(update={"comparison": comparison})
    if output is not None:  # before the report: a picture that cannot be drawn is not worth losing the scores for
        write_scores(Path(output), scores)
    if report is not None:
        write_report_of_pairs(
            Path(report), title, scores, labels, pairs, images or {}, curve, facts or {}, label_maps or {}
        )
    if failures:
        raise CasesFailed("in evaluation", failures, None if output is None else Path(output).parent)
    return scores


def check_output(output: Path | None) -> None:
    if output is not None and Path(output).suffix.lower() != ".json":
        raise UserError(f"{output}: scores are written as JSON (and CSV beside it); give a name that ends in .json")


def _score_all(
    pairs: Pairs, *, labels: LabelSet, label_maps: Mapping[str, LabelMap], measures: Measures, workers: int | None
) -> tuple[CaseScores, list[Outcome]]:
    """Scores of every case, in the order of ``pairs``, and the cases that could not be scored."""

    def score(case: str) -> dict[str, LabelScore]:
        return score_case(*pairs[case], labels, label_maps.get(case, ()), measures)

    found: CaseScores = {}
    failures = []
    for outcome in map_bounded(
        score, list(pairs), cost_bytes=lambda case: _cost_bytes(pairs[case][0]), workers=workers, what="scoring"
    ):
        if outcome.error is None:
            found[outcome.item] = outcome.result
        elif isinstance(outcome.error, UserError | OSError):
            failures.append(outcome)
        else:
            raise outcome.error
    failures.sort(key=lambda outcome: outcome.item)
    return {case: found[case] for case in pairs if case in found}, failures


def _cost_bytes(mask: Path) -> int:
    """Rough bytes that scoring a case takes."""
    if split_ending(mask)[1] in (".nii", ".nii.gz"):
        import nibabel

        try:
            return BYTES_PER_VOXEL * int(np.prod(nibabel.load(mask).shape, dtype=np.int64))
        except Exception:  # reading it says better what is wrong
            return 0
    return BYTES_PER_VOXEL * COMPRESSION * size_and_change(mask)[0]

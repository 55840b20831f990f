"""Scores pairs of masks, one predicted and one of an expert, in threads; writes JSON, CSV and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segfw.base.parallel import CasesFailed, Outcome, map_bounded
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.evaluation.case_traits import CaseTraits, case_traits
from segfw.evaluation.compare import compare_cases
from segfw.evaluation.group_scores import group_scores
from segfw.evaluation.groupings import Grouping
from segfw.evaluation.mask_facts import training_caveat, training_of
from segfw.evaluation.metrics import LabelScore, Measures, Scores
from segfw.evaluation.pairs import LabelledPairs, listing
from segfw.evaluation.result_files import ResultFiles, write_results
from segfw.evaluation.score import DEFAULT, lesion_names, score_case
from segfw.evaluation.summary import summarize
from segfw.images.formats import size_and_change, split_ending
from segfw.images.volume import Volume, to_canonical

BYTES_PER_VOXEL = 24  # of a case: both masks as stored and as classes, their surfaces, and a picture's worth of copies
NO_FILES = ResultFiles()
COMPRESSION = 100  # of a mask in a format whose header is not looked into

CaseScores = dict[str, dict[str, LabelScore]]
CaseOutcome = Outcome[str, dict[str, LabelScore]]


@dataclass(frozen=True, kw_only=True)
class OtherMasks:
    """Second predictions that the first are compared with: what both are called, and the second's files."""

    names: tuple[str, str]
    pairs: Mapping[str, tuple[Path, Path]]


def evaluate_pairs(
    pairs: LabelledPairs,
    files: ResultFiles = NO_FILES,
    *,
    measures: Measures = DEFAULT,
    notes: Sequence[str] = (),
    workers: int | None = None,
    other: OtherMasks | None = None,
    grouping: Grouping | None = None,
) -> Scores:
    """Scores all pairs in threads, as many as ``workers`` and the memory allow, and writes the ``files``.

    ``notes`` are kept with the scores, of which there are also those by ``grouping``, if it is given. A case that
    cannot be read or lies on another grid does not stop the others: the scores without it are written, with a note, and
    CasesFailed is raised at the end. UserError if there is no case, or no label of ``measures``.
    """
    _require_lesions_among(lesion_names(pairs.labels, measures), pairs.only)
    traits: dict[str, CaseTraits] | None = {} if grouping is not None and grouping.by_header else None
    cases, failures = _score_all(pairs, files.images, measures, workers, traits)
    if not cases:
        raise _first_error(failures)
    every_note = list(notes)
    if failures:
        which = listing([failure.item for failure in failures])
        every_note.append(f"{count(len(failures), 'case')} could not be scored and not counted in the means ({which})")
    comparison = None
    if other is not None:
        other_cases, other_failures = _score_all(replace(pairs, files=other.pairs), files.images, measures, workers)
        comparison = compare_cases(cases, other_cases, other.names)
        if other_failures:
            which = listing([failure.item for failure in other_failures])
            number = count(len(other_failures), "case")
            every_note.append(f"{other.names[1]}: {number} could not be scored ({which})")
            failures += other_failures
    training = training_caveat(files.training or training_of(files.curve))
    scores = summarize(cases, [*every_note, *filter(None, [training]), *pairs.labels.explanation], measures)
    by = () if grouping is None else group_scores(cases, traits or {}, grouping)
    scores = scores.model_copy(update={"comparison": comparison, "by": by})
    write_results(files, scores, pairs)
    if failures:
        raise CasesFailed("in evaluation", failures, None if files.output is None else files.output.parent)
    return scores


def _require_lesions_among(names: Sequence[str], only: Sequence[str]) -> None:
    outside = [name for name in names if only and name not in only]
    if outside and len(outside) == len(names):
        raise UserError(f"--lesions {outside[0]}: is none of the structures that are scored; name it in --only, too")


def _first_error(failures: Sequence[CaseOutcome]) -> Exception:
    """Why there is nothing to score."""
    for failure in failures:
        if failure.error is not None:
            return failure.error
    return UserError("there are no cases to score; give at least one")


def _score_all(
    pairs: LabelledPairs,
    images: Mapping[str, Path],
    measures: Measures,
    workers: int | None,
    traits: dict[str, CaseTraits] | None = None,
) -> tuple[CaseScores, list[CaseOutcome]]:
    """Scores of every case, in the order of ``pairs``, and the cases that could not be scored.

    What the references tell of the cases is put into ``traits``, if it is given.
    """

    def score(case: str) -> dict[str, LabelScore]:
        reference, prediction = pairs.files[case]
        label_map = pairs.label_maps.get(case, ())

        def look(reference_zyx: np.ndarray, stored: Volume) -> None:
            if traits is not None:
                geometry = to_canonical(stored).geometry
                traits[case] = case_traits(reference_zyx, geometry, stored.units, pairs.labels, pairs.only)

        return score_case(
            reference,
            prediction,
            pairs.labels,
            label_map,
            measures,
            image=images.get(case),
            prediction_map=pairs.prediction_map,
            only=pairs.only,
            annotated=pairs.annotated.get(case),
            look=look,
        )

    def cost_bytes(case: str) -> int:
        return _cost_bytes(pairs.files[case][0])

    found: CaseScores = {}
    failures: list[CaseOutcome] = []
    for outcome in map_bounded(score, list(pairs.files), cost_bytes=cost_bytes, workers=workers, what="scoring"):
        if outcome.result is not None:
            found[outcome.item] = outcome.result
        elif isinstance(outcome.error, UserError | OSError):
            failures.append(outcome)
        elif outcome.error is not None:
            raise outcome.error
    failures.sort(key=lambda outcome: outcome.item)
    return {case: found[case] for case in pairs.files if case in found}, failures


def _cost_bytes(mask: Path) -> int:
    """Rough bytes that scoring a case takes."""
    if split_ending(mask)[1] in (".nii", ".nii.gz"):
        try:
            return BYTES_PER_VOXEL * _voxels(mask)
        except Exception:  # reading it says better what is wrong
            return 0
    return BYTES_PER_VOXEL * COMPRESSION * size_and_change(mask)[0]


def _voxels(nifti: Path) -> int:
    """By the header alone."""
    from nibabel.loadsave import load
    from nibabel.spatialimages import SpatialImage

    image = load(nifti)
    if not isinstance(image, SpatialImage):
        raise ValueError(f"{nifti} is no image")
    return int(np.prod(image.shape, dtype=np.int64))

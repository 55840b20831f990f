"""Scores a folder of predicted masks against a folder of reference masks; writes JSON, CSV and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from segfw.base.parallel import CasesFailed, Outcome, map_bounded
from segfw.base.records import UserError, count, write_text
from segfw.dataset.cases import LabelMap, LabelSet
from segfw.evaluation.compare import compare_cases
from segfw.evaluation.masks import read_image, read_pair
from segfw.evaluation.metrics import LabelScore, Measures, Scores, mean_dice
from segfw.evaluation.overlays import Overlay, draw_overlay, overlay_cases
from segfw.evaluation.pairs import (
    Pairs,
    first_channel_files,
    known_labels,
    label_maps_of,
    labels_in_masks,
    listing,
    pair_masks,
)
from segfw.evaluation.report import write_report
from segfw.evaluation.score import DEFAULT, lesion_names, measures_of, score_case
from segfw.evaluation.summary import summarize
from segfw.evaluation.text import comparison_csv, lesions_csv, scores_csv, summary_csv
from segfw.images.formats import size_and_change, split_ending
from segfw.images.geometry import to_canonical

BYTES_PER_VOXEL = 24  # of a case: both masks as stored and as classes, their surfaces, and a picture's worth of copies
COMPRESSION = 100  # of a mask in a format whose header is not looked into

CaseScores = dict[str, dict[str, LabelScore]]


@dataclass(frozen=True, kw_only=True)
class OtherMasks:
    """Second predictions that the first are compared with: what both are called, and the second's files."""

    names: tuple[str, str]
    pairs: Mapping[str, tuple[Path, Path]]


def evaluate(
    predictions: Path,
    reference: Path,
    *,
    compare: Path | None = None,
    labels: LabelSet | None = None,
    output: Path | None = None,
    report: Path | None = None,
    images: Path | None = None,
    tolerance_mm: float = DEFAULT.tolerance_mm,
    surface: bool = True,
    lesions: Sequence[str] | None = None,
    lesion_strata_ml: Sequence[float] = DEFAULT.strata_ml,
    lesion_iou: float = 0.0,
    workers: int | None = None,
) -> Scores:
    """Scores every reference mask's prediction of the same name (the file endings may differ).

    ``compare`` is a second folder of predictions: the first is then compared with it case by case, in
    ``Scores.comparison``, and cases that only one of the two has are named there. Without ``labels`` they come from
    ``labels.json`` in the predictions folder, then from ``dataset.json`` beside the reference folder, else from the
    values in the reference masks. ``images`` is the folder of the images, for the report's pictures. NSD forgives
    ``tolerance_mm``; without ``surface`` neither it nor HD95 and ASSD are measured. ``lesions`` names the labels that
    are scored component by component (empty: all, None: none), ``lesion_strata_ml`` and ``lesion_iou`` say how (see
    ``Measures``). For the rest see ``evaluate_pairs``. Raises UserError if a prediction is missing (but not with
    ``compare``) or an argument is out of range, and CasesFailed like ``evaluate_pairs``.
    """
    _check_output(output)
    measures = measures_of(
        surface=surface,
        tolerance_mm=tolerance_mm,
        lesions=lesions,
        strata_ml=lesion_strata_ml,
        lesion_iou=lesion_iou,
    )
    predictions, reference = Path(predictions), Path(reference)
    pairs, notes = pair_masks(predictions, reference, partial=compare is not None)
    facts = {"Predictions": str(predictions), "Reference": str(reference)}
    other, every_pair = None, dict(pairs)
    if compare is not None:
        compare = Path(compare)
        other_pairs, other_notes = pair_masks(compare, reference, partial=True)
        other = OtherMasks(names=(str(predictions), str(compare)), pairs=other_pairs)
        notes += [f"{compare}: {note}" for note in other_notes]
        every_pair = other_pairs | every_pair
        facts["Compared with"] = str(compare)
    labels = labels or known_labels(predictions, reference)
    label_maps = label_maps_of(every_pair, reference, labels)
    if labels is None:
        files = {case: pair[0] for case, pair in every_pair.items()}
        labels, label_notes = labels_in_masks(reference, files.items(), label_maps)
        notes += label_notes
    return evaluate_pairs(
        pairs,
        labels,
        title=f"Evaluation of {predictions.resolve().name}",
        output=output,
        report=report,
        images=first_channel_files(Path(images)) if images else None,
        facts=facts,
        notes=notes,
        label_maps=label_maps,
        measures=measures,
        workers=workers,
        other=other,
    )


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
    _check_output(output)
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
        _write(Path(output), scores)
    if report is not None:
        _report(Path(report), title, scores, labels, pairs, images or {}, curve, facts or {}, label_maps or {})
    if failures:
        raise CasesFailed("in evaluation", failures, None if output is None else Path(output).parent)
    return scores


def _check_output(output: Path | None) -> None:
    if output is not None and Path(output).suffix.lower() != ".json":
        raise UserError(f"{output}: scores are written as JSON (and CSV beside it); give a name that ends in .json")


def _write(output: Path, scores: Scores) -> None:
    """The JSON and the tables beside it; the JSON last, because its presence says that the tables are there too."""
    tables = {".csv": scores_csv(scores), "_summary.csv": summary_csv(scores)}
    if any(label.lesions for label in scores.labels.values()):
        tables["_lesions.csv"] = lesions_csv(scores)
    if scores.comparison is not None:
        tables["_comparison.csv"] = comparison_csv(scores.comparison)
    for ending, text in tables.items():
        write_text(output.with_name(output.stem + ending), text)
    scores.save(output)


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


def _report(
    path: Path,
    title: str,
    scores: Scores,
    labels: LabelSet,
    pairs: Mapping[str, tuple[Path, Path]],
    images: Mapping[str, Path],
    curve: Sequence[Mapping[str, float]] | None,
    facts: Mapping[str, str],
    label_maps: Mapping[str, LabelMap],
) -> None:
    """Draws the worst, median and best cases, which are read again, and writes the page."""
    facts = {
        **facts,
        "Cases": str(len(scores.cases)),
        "Written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M} by segfw {version('segfw')}",
    }
    overlays = []
    for rank, case in overlay_cases(scores).items():
        reference_zyx, prediction_zyx, stored = read_pair(*pairs[case], labels, label_maps.get(case, ()))
        if labels.ignored_class is not None:  # which is not drawn
            reference_zyx[reference_zyx == labels.ignored_class] = 0
            prediction_zyx[prediction_zyx == labels.ignored_class] = 0
        image_zyx = None
        if case in images:
            try:
                image_zyx = read_image(images[case], pairs[case][0], stored)
            except UserError as error:  # a picture is not worth losing the report for
                facts[f"Image of {case} left out"] = str(error)
        spacing_mm = to_canonical(stored).geometry.spacing_mm
        picture = draw_overlay(image_zyx, reference_zyx, prediction_zyx, spacing_mm, labels.names)
        overlays.append(Overlay(case=case, rank=rank, dice=mean_dice(scores.cases[case]), image_png=picture))
    painted = labels.painted_classes or tuple(labels.foreground.values())
    colors = dict(zip(labels.structures, painted))
    write_report(path, title=title, scores=scores, overlays=overlays, curve=curve, facts=facts, colors=colors)

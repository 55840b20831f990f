"""Scores a folder of predicted masks against a folder of reference masks; writes JSON, CSV and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.dataset.labels import LabelSet
from segfw.evaluation.evaluate_pairs import OtherMasks, check_output, evaluate_pairs
from segfw.evaluation.metrics import Scores
from segfw.evaluation.pairs import first_channel_files, known_labels, label_maps_of, labels_in_masks, pair_masks
from segfw.evaluation.score import DEFAULT, measures_of


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
    check_output(output)
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

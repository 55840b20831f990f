"""``segfw evaluate``: a folder of predicted masks against a folder of reference masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside
from segfw.evaluation.evaluation_options import EvaluateOptions

if TYPE_CHECKING:
    from segfw.dataset.labels import LabelSet
    from segfw.evaluation.groupings import Grouping
    from segfw.evaluation.metrics import Scores
    from segfw.evaluation.pairs import Pairs


@takes_options(options=EvaluateOptions)
def evaluate(
    predictions: Path,
    reference: Path,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    labels: LabelSet | None = None,
) -> Scores:
    """Scores every reference mask's prediction of the same name (the file endings may differ).

    Parameters
    ----------
    predictions
        Folder of predicted masks.
    reference
        Folder of expert masks.
    options
        What is measured and written. ``compare`` is a second folder of predictions: the first is then compared with it
        case by case, in ``Scores.comparison``, and cases that only one of the two has are named there. ``images`` is
        the folder of the images, for the report's pictures (default: where ``predict`` found them, if they are still
        there). NSD forgives ``tolerance_mm``; without ``surface`` neither it nor HD95 and ASSD are measured.
        ``lesions`` names the labels that are scored component by component (empty: all, None: none),
        ``lesion_strata_ml`` and ``lesion_iou`` say how (see ``Measures``). ``only`` are names of structures, as
        ``find`` takes them, that alone are scored; by default those that the masks were predicted for. With ``names``
        the predictions have another program's numbers, which are taken for the structures that they mean. ``by`` groups
        the scores in ``Scores.by``, by columns of tables ('sites.csv:site') or by what the masks themselves tell
        ('header'); ``groups`` says which cases are of one patient, as for ``plan_and_preprocess``.
    labels
        What the values in the masks mean. Without it they come from the table ``label_names``, then from
        ``labels.json`` in the predictions folder, from ``dataset.json`` or a table beside the reference folder, else
        from the values in the reference masks.

    Returns
    -------
    Scores
        Of every case and label, and their means. Distances are in mm, volumes in ml, areas of single slices in mm2; of
        pictures that say no size of their pixels, both are in pixels.

    Raises
    ------
    UserError
        If a prediction is missing (but not with ``compare``) or an option is out of range.
    CasesFailed
        At the end, if a case cannot be read or lies on another grid; the scores of the others are written.
    """
    from segfw.evaluation.evaluate_pairs import OtherMasks, evaluate_pairs
    from segfw.evaluation.labelled_pairs import labelled_pairs
    from segfw.evaluation.mask_facts import images_of, read_mask_facts
    from segfw.evaluation.pairs import first_channel_files, pair_masks
    from segfw.evaluation.result_files import ResultFiles
    from segfw.evaluation.score import measures_of

    _check_options(options, reference, labels)
    measures = measures_of(
        surface=options.surface,
        tolerance_mm=options.tolerance_mm,
        lesions=options.lesions,
        strata_ml=options.lesion_strata_ml,
        lesion_iou=options.lesion_iou,
    )
    predictions = Path(predictions)
    reference = Path(reference)
    pairs, notes = pair_masks(predictions, reference, partial=options.compare is not None)
    facts = {"Predictions": str(predictions), "Reference": str(reference)}
    made_with = read_mask_facts(predictions)
    images = options.images or images_of(predictions, made_with)
    if images:
        facts["Images"] = str(images)
    grouping = _grouping(options, pairs, reference)
    if grouping is not None and options.by is not None:
        facts["Grouped by"] = f"{', '.join(options.by)} ({grouping.note})"

    # Second predictions to compare with
    other = None
    other_pairs: Pairs = {}
    if options.compare is not None:
        other_pairs, other_notes = pair_masks(options.compare, reference, partial=True)
        other = OtherMasks(names=(str(predictions), str(options.compare)), pairs=other_pairs)
        notes += [f"{options.compare}: {note}" for note in other_notes]
        facts["Compared with"] = str(options.compare)

    results = ResultFiles(
        title=f"Evaluation of {predictions.resolve().name}",
        output=options.output,
        report=options.report,
        images=first_channel_files(images) if images else {},
        facts=facts,
        training=made_with.training,
    )
    labelled, label_notes = labelled_pairs(pairs, other_pairs, predictions, reference, options, labels)
    return evaluate_pairs(
        labelled,
        results,
        measures=measures,
        notes=[*notes, *label_notes],
        workers=options.workers,
        other=other,
        grouping=grouping,
    )


def _check_options(options: EvaluateOptions, reference: Path, labels: LabelSet | None) -> None:
    """UserError for what is wrong with paths and tables, before masks are looked for."""
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.dataset.label_names import read_label_table
    from segfw.evaluation.result_files import check_output, check_report

    check_output(options.output)
    check_report(options.report)
    for output in (options.output, options.report):
        require_outside(output, (reference, options.images))
    if options.label_names is not None:
        if labels is not None:
            raise UserError(f"--label-names {options.label_names}: names the labels, and so does labels; give one")
        read_label_table(options.label_names)


def _grouping(options: EvaluateOptions, pairs: Pairs, reference: Path) -> Grouping | None:
    """How cases are grouped, by ``by`` and with the patients of ``groups``; None where they are not."""
    from segfw.base.records import UserError
    from segfw.evaluation.groupings import read_grouping

    if options.by is not None:
        return read_grouping(options.by, options.groups, pairs, reference)
    if options.groups is not None:
        raise UserError("--groups tells which cases are of one patient for --by; give --by, too, or leave it out")
    return None


def _say_result(typed: argparse.Namespace, scores: Scores) -> None:
    from segfw.evaluation.group_text import groups_text
    from segfw.evaluation.text import comparison_table, scores_table

    say = aside if typed.output or typed.report else print  # with --quiet what is in no file is the result
    say(scores_table(scores))
    if scores.comparison is not None:
        say(comparison_table(scores.comparison))
    if scores.by:
        say(groups_text(scores.by))
    for path in (typed.output, typed.report):
        if path:
            print(f"written: {path}")


COMMAND = Command(
    function=evaluate,
    what="Score a folder of masks against reference masks of the same names.",
    example="segfw evaluate masks labelsTs --output scores.json --report report.html",
    arguments=(
        Argument(name="predictions", help="folder of predicted masks"),
        Argument(name="reference", help="folder of expert masks"),
    ),
    say_result=_say_result,
)

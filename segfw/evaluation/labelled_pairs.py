"""What the values in masks that are to be scored mean, and which of their structures are scored."""

from __future__ import annotations

from pathlib import Path

from segfw.dataset.labels import LabelSet
from segfw.dataset.named_structures import structures_left_out
from segfw.dataset.own_names import own_names
from segfw.dataset.totalsegmentator import values_of_other
from segfw.evaluation.evaluation_options import EvaluateOptions
from segfw.evaluation.pairs import (
    LabelledPairs,
    Pairs,
    annotated_of,
    known_labels,
    label_maps_of,
    labels_in_masks,
    name_notes,
)
from segfw.evaluation.scored_structures import scored_structures


def labelled_pairs(
    pairs: Pairs, others: Pairs, predictions: Path, reference: Path, options: EvaluateOptions, labels: LabelSet | None
) -> tuple[LabelledPairs, list[str]]:
    """The pairs with their labels, and notes.

    ``others`` are pairs of a second folder of predictions, ``options.compare``. ``labels`` is what a caller says that
    the values mean, in place of the files. Raises UserError where files say nothing that fits, or a structure is asked
    for that is no label or was not predicted.
    """
    every_pair = {**others, **pairs}
    folders = [predictions] if options.compare is None else [predictions, options.compare]
    notes: list[str] = []

    # What the values mean
    if labels is None and options.names is None:
        for folder in folders:
            notes += name_notes(folder, reference, options.label_names)
    # Numbers of another program say nothing of the reference.
    described = predictions if options.names is None else reference
    labels = labels or known_labels(described, reference, options.label_names)
    label_maps = label_maps_of(every_pair, reference, labels, options.label_names)
    if labels is None:
        files = {case: pair[0] for case, pair in every_pair.items()}
        labels, label_notes = labels_in_masks(reference, files.items(), label_maps)
        notes += label_notes
    notes += structures_left_out((file for pair in every_pair.values() for file in pair), labels)
    prediction_map = () if options.names is None else values_of_other(labels, options.names, reference)

    # Which structures are scored
    if options.only is not None:
        labels, own_notes = own_names(labels, reference.resolve().parent)
        notes += own_notes
    has_other_numbers = options.names is not None
    only, only_notes = scored_structures(labels, folders, reference, options.only, has_other_numbers=has_other_numbers)
    found = LabelledPairs(
        files=pairs,
        labels=labels,
        label_maps=label_maps,
        prediction_map=prediction_map,
        only=only,
        annotated=annotated_of(every_pair, reference, labels),
    )
    return found, [*notes, *only_notes]

"""Which structures are scored: those that are asked for, or those that the masks were predicted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import only_structures
from segfw.evaluation.mask_facts import read_mask_facts, require_in_masks, structures_in_masks


def scored_structures(
    labels: LabelSet,
    predictions: Sequence[Path],
    reference: Path,
    asked: Sequence[str] | None,
    *,
    has_other_numbers: bool = False,
) -> tuple[tuple[str, ...], list[str]]:
    """Names of the structures that are scored, in the order of ``labels`` (empty: all), and notes.

    Raises UserError where masks were predicted for some structures alone and another one is ``asked`` for.
    """
    known = {
        folder: structures_in_masks(labels, folder, read_mask_facts(folder), has_other_numbers=has_other_numbers)
        for folder in predictions
    }
    if asked is not None:
        only = only_structures(labels, asked, reference)
        for folder, names in known.items():
            require_in_masks(folder, names, only)
        return only, []
    only = tuple(name for name in labels.structures if all(name in names for names in known.values()))
    if not only:
        each = listed([f"{folder} for {listed(names, 'and')}" for folder, names in known.items()], "and")
        raise UserError(f"the masks were predicted for different structures: {each}; predict the same ones in both")
    if len(only) == len(labels.structures):
        return (), []
    return only, [f"the masks were to hold {listed(only, 'and')} alone, and nothing else is scored"]

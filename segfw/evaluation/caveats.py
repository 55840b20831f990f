"""Plain sentences for scores that do not mean what they seem to."""

from __future__ import annotations

from collections.abc import Sequence

from segfw.base.words import count
from segfw.evaluation.metrics import LabelScore, Scores
from segfw.evaluation.statistics import LEAST_CASES

NAMED = 8  # labels in one sentence


def caveats(scores: Scores) -> list[str]:
    """What a reader should know before believing the means; nothing where nothing is odd."""
    every = [score for by_label in scores.cases.values() for score in by_label.values()]
    cases = len(scores.cases)
    found: list[str] = []
    if not any(score.tp + score.fn for score in every):
        found.append("The reference masks are empty in every case: there is nothing to score.")
    elif not any(score.tp + score.fp for score in every):
        found.append(
            f"The predicted masks are empty in {_every_case(cases)}: the scores say that nothing was found, not how "
            "well anything was outlined."
        )
    else:
        found += _absent_labels(scores)
        if _are_equal(every):
            found.append(
                "Every predicted mask equals its reference to the voxel: are both folders the reference, or was a "
                "folder compared with its copy?"
            )
    if cases < LEAST_CASES:
        found.append(
            f"{count(cases, 'case')} only: too few for a confidence interval ({LEAST_CASES} are needed), and each of "
            "them decides the means."
        )
    return found


def _every_case(cases: int) -> str:
    return "the only case" if cases == 1 else f"all {cases} cases"


def _absent_labels(scores: Scores) -> list[str]:
    """Of labels that no reference, or no prediction, has."""
    unknown = [name for name, label in scores.labels.items() if not label.cases - label.invented]
    never = [
        name
        for name, label in scores.labels.items()
        if label.missed and label.missed == label.cases - label.invented and not label.invented
    ]
    found = []
    if unknown:
        found.append(f"In no reference mask, so that nothing is known of them: {_listed(unknown)}.")
    if never:
        found.append(f"Predicted in no case, though references have them (Dice 0): {_listed(never)}.")
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _are_equal(scores: Sequence[LabelScore]) -> bool:
    return any(score.tp for score in scores) and not any(score.fp or score.fn for score in scores)

"""How single configurations and their averages agree with the references of cases that they did not see.

``WORK/selection/scores/CASE.json`` keeps the counts of all candidates. What is made from the same weights is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from segfw.base.parallel import Outcome
from segfw.base.progress import progress
from segfw.base.records import Record, UserError
from segfw.dataset.annotated_structures import is_annotated
from segfw.dataset.cases import Case, read_label
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import confusion, label_counts
from segfw.images.formats import size_and_change
from segfw.images.geometry import Geometry
from segfw.images.values import as_integers
from segfw.images.volume import Volume, stored_like
from segfw.inference.averaging import merged, merged_each
from segfw.inference.held_out import FOLDER, HeldOut
from segfw.inference.probabilities import Probabilities, read_probabilities
from segfw.model.selection import SEPARATOR

Counts = tuple[int, int, int]  # voxels of a structure: in both masks, predicted only, reference only


class CaseCounts(Record):
    """How all candidates agree with one case's reference, by candidate and structure, and what that was made from."""

    made_from: str
    counts: dict[str, dict[str, Counts]]


def count_case(work: Path, case: Case, items: Sequence[HeldOut], candidates: Sequence[tuple[str, ...]]) -> CaseCounts:
    """Counts of all candidates in one case, of which each configuration is restored only once.

    Kept from an earlier call if nothing that they were made from has changed. UserError if probabilities are of another
    network or image than ``items`` say.
    """
    label = _label_of(case)
    path = work / FOLDER / "scores" / f"{case.id}.json"
    networks = [(item.configuration, item.model) for item in items]
    sources = (*networks, *candidates, *size_and_change(label))
    told = f"{case.label_map}{case.drawn_as or ''}{'' if case.annotated is None else case.annotated}"
    made_from = hashlib.sha256(f"{sources}{told}".encode()).hexdigest()
    try:
        kept = CaseCounts.load(path)
        if kept.made_from == made_from:
            return kept
    except UserError:  # not there, or of another version
        pass

    # The probabilities of each configuration
    opened: dict[str, Probabilities] = {}
    for item in items:
        probabilities = read_probabilities(item.path(work))
        if probabilities.info.model != item.model:  # counts of it would be kept under a digest that is not theirs
            raise UserError(
                f"{probabilities.path}: is of other weights or of another image; predict it again with segfw select"
            )
        opened[item.configuration] = probabilities

    # The masks of each candidate against the reference
    names = list(opened)
    info = next(iter(opened.values())).info
    reference = reference_classes(case, info.labels, info.record.original)
    mixtures = [{names.index(name): 1.0 for name in candidate} for candidate in candidates]
    counts: dict[str, dict[str, Counts]] = {}
    for candidate, classes in zip(candidates, merged_each(list(opened.values()), mixtures)):
        joint = joint_counts(reference, classes, info.labels)
        by_structure: dict[str, Counts] = {}
        for name, members in info.labels.structures.items():
            tp, fp, fn = label_counts(joint, members)
            by_structure[name] = (tp, fp, fn) if is_annotated(case, name) else (0, 0, 0)  # which has no Dice
        counts[SEPARATOR.join(candidate)] = by_structure
    result = CaseCounts(made_from=made_from, counts=counts)
    result.save(path)
    return result


def count_cases(
    work: Path, items: Sequence[HeldOut], candidates: Sequence[tuple[str, ...]], *, without: Set[object]
) -> tuple[dict[str, CaseCounts], list[Outcome[str, None]]]:
    """Counts by case, and the cases that could not be counted; those in ``without`` are left out.

    Of these, probabilities of old weights may be there.
    """
    by_case: dict[str, list[HeldOut]] = {}
    for item in items:
        by_case.setdefault(item.case.id, []).append(item)
    counted: dict[str, CaseCounts] = {}
    failures: list[Outcome[str, None]] = []
    for case in progress("scoring", sorted(by_case.keys() - without)):
        try:
            counted[case] = count_case(work, by_case[case][0].case, by_case[case], candidates)
        except Exception as error:  # one bad case must not cost the user the others
            failures.append(Outcome(item=case, error=error))
    return counted, failures


def opened_cases(
    work: Path, items: Sequence[HeldOut], candidate: tuple[str, ...], what: str
) -> Iterator[tuple[list[HeldOut], list[Probabilities]]]:
    """The items of one candidate and their probabilities, case after case; ``what`` is done is shown."""
    by_case: dict[str, list[HeldOut]] = {}
    for item in items:
        if item.configuration in candidate:
            by_case.setdefault(item.case.id, []).append(item)
    for chosen in progress(what, list(by_case.values())):
        yield chosen, [read_probabilities(item.path(work)) for item in chosen]


def cases_of(items: Sequence[HeldOut], candidate: tuple[str, ...]) -> list[Case]:
    """The cases of one candidate, in the order in which ``opened_cases`` and ``masks_of`` take them."""
    return list({item.case.id: item.case for item in items if item.configuration in candidate}.values())


def masks_of(
    work: Path,
    items: Sequence[HeldOut],
    candidate: tuple[str, ...],
    labels: LabelSet,
    temperatures: Mapping[str, Mapping[int, float]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reference and classes (Z, Y, X) of every case by one candidate, case after case.

    ``temperatures`` {fold: {output: temperature}} are of what is decoded for its expected Dice.
    """
    for chosen, opened in opened_cases(work, items, candidate, "postprocessing"):
        classes = merged(opened, temperatures=temperatures.get(chosen[0].fold))
        yield reference_classes(chosen[0].case, labels, opened[0].info.record.original), classes


def reference_classes(case: Case, labels: LabelSet, geometry: Geometry) -> np.ndarray:
    """The case's reference (Z, Y, X) as classes, stored in the order of its image."""
    image = Volume(array=np.broadcast_to(np.uint8(0), (1, *geometry.shape)), geometry=geometry)
    mask = stored_like(read_label(case, image), image)
    return labels.to_classes(as_integers(mask.array), case.label_map)[0]


def _label_of(case: Case) -> Path:
    if case.label is None:
        raise ValueError(f"{case.id} has no reference")
    return case.label


def joint_counts(reference_zyx: np.ndarray, classes_zyx: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Voxels of every pair of classes (K, K), reference in rows; those of the ignore label count nowhere."""
    joint = confusion(reference_zyx, classes_zyx, labels.classes)
    if labels.ignored_class is not None:
        joint[labels.ignored_class] = 0
    return joint

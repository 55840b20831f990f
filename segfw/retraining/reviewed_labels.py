"""Labels that experts reviewed, read from folders under review: which are taken, and what their values mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count, listed
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.retraining.retraining_record import BeganAs, NewLabel
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.mask_version import MaskVersion
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file

WANTED = {"signed": ("SIGNED",), "reviewed": ("REVIEWED", "SIGNED")}
SHOWN = 5  # cases that a sentence lists


def reviewed_labels(folders: Sequence[Path], labels: LabelSet, states: str) -> list[NewLabel]:
    """The labels in the wanted states of all folders, by case.

    UserError if a folder has none, if a mask or a signed one's image is not what was reviewed, if two folders have a
    label of one case, or if a mask's labels are not called as in ``labels``.
    """
    found: dict[str, NewLabel] = {}
    for folder in folders:
        for label in _labels_of(folder, labels, states):
            other = found.get(label.case.id)
            if other is not None:
                raise UserError(
                    f"{folder}: case {label.case.id!r} has a label here and in {other.folder}; leave out one of the "
                    "folders, or reject the case in one of them"
                )
            found[label.case.id] = label
    return [found[case] for case in sorted(found)]


def _labels_of(folder: Path, labels: LabelSet, states: str) -> list[NewLabel]:
    store = ReviewStore.open(folder)
    standings = store.standings()
    wanted = [standing for standing in standings.values() if standing.state in WANTED[states]]
    if not wanted:
        others = Counter(standing.state for standing in standings.values())
        there = listed((f"{number} {state}" for state, number in sorted(others.items())), "and")
        remedy = "sign some with segfw review" if others["REVIEWED"] == 0 else "sign them, or give --states reviewed"
        raise UserError(f"{folder}: holds no {states} label ({there or 'nothing is under review'}); {remedy}")
    _require_unchanged(store, wanted)
    annotated = structures_decided(store, labels)
    found = []
    for standing in wanted:
        versions = {version.number: version for version in store.versions(standing.case)}
        version = versions[standing.version]
        images = store.image_files(standing.case)
        if not images:
            raise UserError(
                f"{folder}: the image of case {standing.case!r} is not where it was predicted from; put it back there"
            )
        found.append(
            NewLabel(
                case=Case(
                    id=standing.case,
                    images=tuple(path.absolute() for path in images),
                    label=version_file(folder, standing.case, version.number).absolute(),
                    label_map=label_map_by_name(version.label_names, labels, f"{folder}: case {standing.case!r}"),
                    annotated=annotated,
                ),
                folder=folder.absolute(),
                version=version.number,
                sha256=version.sha256,
                state=standing.state,
                began_as=began_as(versions, version.number),
                reviewed_by=standing.reviewed_by,
                signed_by=standing.signed_by,
            )
        )
    return found


def structures_decided(store: ReviewStore, labels: LabelSet) -> tuple[str, ...] | None:
    """The model's structures that people decided on; None if that is all.

    Masks that were predicted for some structures alone say nothing of the others, which are not background there.
    UserError where a structure is none of the model's.
    """
    if set(store.structures) == set(store.labels.structures):
        return None
    unknown = [name for name in store.structures if name not in labels.structures]
    if unknown:
        raise UserError(
            f"{store.folder}: its masks are of {listed(store.structures, 'and')} alone, and the model has no structure "
            f"{unknown[0]!r}; give masks of a model with the same structures"
        )
    return tuple(name for name in labels.structures if name in store.structures)


def _require_unchanged(store: ReviewStore, standings: Sequence[CaseStanding]) -> None:
    """UserError for masks that are no longer what was signed or reviewed, and images that are not what was signed.

    Another model by now does not matter here.
    """
    changed = {standing.case: _changed(store, standing) for standing in standings}
    wrong = [f"{case} ({listed(what, 'and')})" for case, what in changed.items() if what]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        is_signed = all(standing.state == "SIGNED" for standing in standings if changed[standing.case])
        done = "signed" if is_signed else "reviewed"
        raise UserError(
            f"{store.folder}: {', '.join(wrong[:SHOWN])}{more}: changed after it was {done}, so that nobody has {done} "
            f"what would be learned; review {'and sign ' if is_signed else ''}it again, or put the file back"
        )


def _changed(store: ReviewStore, standing: CaseStanding) -> list[str]:
    if standing.state == "SIGNED":
        return [what for what in store.changed(standing.case) if what in ("mask", "image")]
    try:
        is_same = store.sha256(standing.case, standing.version) == standing.sha256
    except UserError:
        is_same = False
    return [] if is_same else ["mask"]


def require_as_taken(new: Sequence[NewLabel]) -> None:
    """UserError if the file of a label does not hold what was taken, by the hash of its voxels, place and names."""
    stores = {folder: ReviewStore.open(folder) for folder in {label.folder for label in new}}
    for label in new:
        if stores[label.folder].sha256(label.case.id, label.version) != label.sha256:
            raise UserError(
                f"{label.case.label}: is not the version {label.version} of {label.case.id} that was taken; put the "
                "file back, or retrain into another folder"
            )


def began_as(versions: Mapping[int, MaskVersion], number: int) -> BeganAs:
    """Whether a mask was drawn without a model or, of one that began as a model's output, whether anybody changed it.

    What was imported counts as begun by the model: it mostly is its draft, corrected in another program.
    """
    is_changed = False
    while True:
        version = versions[number]
        if version.origin == "blank":
            return "blank"
        edits = version.all_edited
        is_changed = is_changed or edits.added > 0 or edits.removed > 0
        if version.parent not in versions:
            return "edited" if is_changed else "unedited"
        number = version.parent


def label_map_by_name(names: Mapping[str, str], labels: LabelSet, where: str) -> LabelMap:
    """What the values in a mask mean in the model's data set, by the names of both; empty where they are the same.

    ``names`` are those of the mask by value. UserError, about ``where``, if a name has no like.
    """
    meaning_of = dict(zip(labels.names, labels.values))
    background, *structures = names  # the background is listed first
    pairs = {int(background): labels.values[0]}
    for value in structures:
        if names[value] not in meaning_of:
            known = ", ".join(labels.names[1:])
            raise UserError(
                f"{where} has a label {names[value]!r}, which the model does not know ({known}); rename it, or leave "
                "the folder out"
            )
        pairs[int(value)] = meaning_of[names[value]]
    lacking = [name for name in labels.names[1:] if name not in names.values()]
    if lacking:
        raise UserError(
            f"{where} has {count(len(structures), 'label')}, without the model's {listed(lacking, 'and')}, which would "
            "be learned to be background; give masks of a model with the same labels"
        )
    return () if all(value == meaning for value, meaning in pairs.items()) else tuple(sorted(pairs.items()))

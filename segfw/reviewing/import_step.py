"""One corrected mask, from its file to a version, and to the end of the review of its case."""

from __future__ import annotations

from pathlib import Path

from segfw.base.errors import DiskFull, UserError
from segfw.reviewing.corrected_masks import corrected_values
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import LogDamaged
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.scripted_steps import BY_SCRIPT
from segfw.reviewing.states import Decision
from segfw.reviewing.step_options import CorrectedOptions


def import_case(
    store: ReviewStore, case: str, path: Path, person: Person, active_s: float, options: CorrectedOptions
) -> str:
    """Saves a corrected mask as a version, and ends the case unless ``options`` say otherwise; its state then.

    '' where that very mask counts already and was reviewed. Where something is wrong the case is as it was before.
    """
    values = corrected_values(store, case, path, options.label_names)
    standing = store.standing(case)
    is_there = standing.version > 0 and bool((store.read(case, standing.version).array[0] == values).all())
    if is_there and standing.state in ("REVIEWED", "SIGNED"):
        return ""
    was_open = standing.state == "IN_REVIEW"
    store.open_case(case, person)
    try:
        store.renew(case, person, active_s=active_s)
        if is_there:  # of a call that was interrupted
            made = store.version(case, standing.version)
        else:
            made = store.save(case, person, values, base=options.base, origin="imported", tool=options.tool)
        if not options.finish:
            store.release(case, person)
            return f"version {made.number}, unfinished"
        decisions: dict[str, Decision] = {}
        for name in store.structures:
            is_edited = any(label in made.edited_voxels for label in store.labels_of(name))
            decisions[name] = "edit" if is_edited else "accept"
        store.decide_all(case, person, decisions, BY_SCRIPT)
        store.finish(case, person)
    except UserError as error:
        if not was_open and not isinstance(error, DiskFull | LogDamaged):
            store.release(case, person)
        raise
    return "REVIEWED"

"""How the items of an audit came out: by what people decided on them after it began, and by how much they corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segfw.reviewing.review_folder import ReviewFolder
from segfw.reviewing.review_log import Event
from segfw.worklist.audit_sample import Audit, AuditFile, AuditResult, Pair, audit_results


def audit_state_of(audits: AuditFile) -> Literal["none", "drawn", "begun"]:
    """Where the last audit is."""
    last = audits.open
    if last is None:
        return "none"
    return "drawn" if last.begun_utc is None else "begun"


def results_so_far(store: ReviewFolder, audits: AuditFile) -> list[AuditResult]:
    """What the last audit says; nothing before it has begun."""
    last = audits.open
    if last is None or last.begun_utc is None:
        return []
    return audit_results(last, has_failed(store, last))


def has_failed(store: ReviewFolder, audit: Audit) -> dict[Pair, bool]:
    """Of the items that were read since the audit began: whether the draft has failed.

    Those of a rejected case have. Of others the voxels tell, whatever was decided, since what is accepted may have been
    corrected before: one has failed if the Dice of what counts now with the draft is below the limit of the audit.
    """
    decided = _decided_since(store.log.events(), audit.begun_at)
    found: dict[Pair, bool] = {}
    for case, structure in audit.to_read:
        decision = decided.get((case, None)) or decided.get((case, structure))
        if decision is None:
            continue
        if decision == "rejected":
            found[case, structure] = True
        else:
            found[case, structure] = _agreement(store, case, structure, decision) < audit.fail_below
    return found


def _decided_since(events: Sequence[Event], begun_at: int) -> dict[tuple[str, str | None], str]:
    """The last decision on each structure after a line of the log; of a rejected case under None."""
    decided: dict[tuple[str, str | None], str] = {}
    for event in events:
        if event.n <= begun_at or event.case is None:
            continue
        if event.event == "reject":
            decided[event.case, None] = "rejected"
        elif event.event == "decide" and event.region is None and event.decision is not None:
            decided[event.case, event.structure] = event.decision
    return decided


def _agreement(store: ReviewFolder, case: str, structure: str, decision: str) -> float:
    """Dice of the draft with what was decided."""
    if decision == "accept" and store.standing(case).version == 0:
        return 1.0
    draft = structure_mask(store, case, structure, 0)
    if decision == "absent":
        return 0.0 if draft.any() else 1.0
    return dice(draft, structure_mask(store, case, structure, None))


def structure_mask(store: ReviewFolder, case: str, structure: str, number: int | None) -> np.ndarray:
    """Where a version has the structure, (Z, Y, X); 0 is the draft, None what counts now."""
    values = [store.labels.stored_values[index] for index in store.labels.structures[structure]]
    return np.isin(store.read(case, number).array[0], values)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0

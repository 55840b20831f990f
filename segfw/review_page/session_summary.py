"""What the end of a session shows: minutes, states, planted errors that were revealed, the audit, the log's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segfw.base.errors import UserError
from segfw.reviewing.review_store import ReviewStore
from segfw.worklist.audit_reading import results_so_far
from segfw.worklist.audit_sample import AuditResult, read_audits
from segfw.worklist.planted_cases import PlantedCases, vigilance_of


def session_summary(store: ReviewStore) -> dict[str, Any]:
    """As JSON holds it; None of what there is not.

    Planted errors are told once ``segfw queue --reveal`` has ended them: a figure that moves would tell which they are.
    """
    standings = store.standings().values()
    states = [standing.state for standing in standings]
    head: dict[str, Any] = {"n": 0, "sha256": "", "problem": ""}
    if store.is_begun:
        check = store.log.verify()
        head = {"n": check.head_n, "sha256": check.head_sha256, "problem": check.what}
    return {
        "minutes": sum(standing.active_s for standing in standings) / 60,
        "cases": len(states),
        "signed": states.count("SIGNED"),
        "reviewed": states.count("REVIEWED"),
        "rejected": states.count("REJECTED"),
        "planted": _planted(store),
        "audit": _audit(_results(store)),
        "log": head,
    }


def _planted(store: ReviewStore) -> dict[str, Any] | None:
    revealed = PlantedCases(store.folder).read().revealed
    if not revealed:
        return None
    seen = vigilance_of(revealed)
    return {"shown": seen.answered, "caught": seen.caught, "lower_bound": seen.bound if seen.answered else None}


def _results(store: ReviewStore) -> list[AuditResult]:
    try:
        return results_so_far(store, read_audits(store.folder))
    except UserError:  # a damaged file must not cost the rest of the summary
        return []


def _audit(results: Sequence[AuditResult]) -> dict[str, Any] | None:
    """All together; the bound is the largest of all structures' bounds, None until all are read."""
    if not results:
        return None
    bounds = [each.bound for each in results if each.bound is not None]
    return {
        "checked": sum(each.read for each in results),
        "failures": sum(each.failed for each in results),
        "upper_bound": max(bounds) if len(bounds) == len(results) else None,
        "texts": [each.text for each in results],
    }

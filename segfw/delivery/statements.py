"""What delivered files say of a case: who signed it, or that nobody did."""

from __future__ import annotations

from segfw.dataset.finished_mask import MaskStatement, Progress, ReviewedVersion, Signature
from segfw.delivery.drawn_by import drawn_by
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.review_log import Event
from segfw.reviewing.review_store import ReviewStore

RESEARCH = "for research only"
RESEARCH_STAMP = "_DRAFT-for-research"  # after a case, in the names of files
UNFINISHED: Progress = "inprogress"


def statement_of(
    store: ReviewStore, standing: CaseStanding, sha256: str, logged: Event, identity: str
) -> MaskStatement:
    """What files say of a version; ``logged`` is the line of the log that tells of this delivery.

    ``identity`` is how the signer is known.
    """
    drawn = drawn_by(store.labels, store.versions(standing.case), standing.version)
    version = ReviewedVersion(number=standing.version, sha256=sha256, log_events=logged.n, log_sha256=logged.sha256)
    if standing.state != "SIGNED":
        title = f"DRAFT, {'reviewed but not signed' if standing.state == 'REVIEWED' else 'not reviewed'}; {RESEARCH}"
        progress: Progress = "notstarted" if standing.state == "DRAFT" else UNFINISHED
        return MaskStatement(title=title, progress=progress, version=version, drawn_by=drawn)
    name = standing.signed_name or standing.signed_by or ""
    signature = Signature(
        name=name,
        user=standing.signed_by or "",
        identity=identity,
        meaning=standing.meaning or "",
        utc=standing.signed_utc or "",
    )
    return MaskStatement(
        title=f"SIGNED by {name}",
        word="SIGNED",
        progress="completed",
        signature=signature,
        version=version,
        drawn_by=drawn,
    )

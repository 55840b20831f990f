"""Draws an audit and lets it begin, and tells the log of both."""

from __future__ import annotations

from collections.abc import Sequence

from segfw.base.errors import UserError
from segfw.base.words import count
from segfw.reviewing.review_log import Entry, utc_text
from segfw.reviewing.review_store import ReviewStore
from segfw.worklist.audit_sample import Pair, audit_file, begun_audit, drawn_audit, read_audits, require_another
from segfw.worklist.queue_options import QueueOptions


def draw_audit(store: ReviewStore, open_items: Sequence[Pair], options: QueueOptions) -> str:
    """Draws a sample of what is open, and says so. UserError where one is drawn, or where all that were announced are.

    The log has the seed before anything is drawn, so that a killed call can be seen and does not choose.
    """
    kept = read_audits(store.folder)
    announced = require_another(kept, options.audits)
    if not open_items:
        raise UserError(f"{store.folder}: every structure is decided; there is nothing to audit")
    audit = drawn_audit(
        open_items,
        options.audit or 0,
        seed=options.seed + len(kept.audits),
        by=options.audit_by,
        audits=announced,
        fail_below=options.fail_below,
        now=utc_text(store.clock()),
    )
    pool = sum(audit.pool.values())
    each = f" ({options.audit} of each)" if options.audit_by == "structure" else ""
    said = (
        f"audit {len(kept.audits) + 1} of {announced}: {len(audit.items)} of {count(pool, 'open structure')} "
        f"drawn{each}, seed {audit.seed}; a draft with a Dice below {options.fail_below:g} has failed"
    )
    store.log.append(Entry(event="audit-drawn", reason=said))
    kept.model_copy(update={"announced": announced, "audits": (*kept.audits, audit)}).save(audit_file(store.folder))
    return said


def begin_audit(store: ReviewStore, open_items: Sequence[Pair]) -> str:
    """The queue is over: what it did not reach of the sample is to be read. UserError where none is drawn."""
    kept = read_audits(store.folder)
    last = kept.open
    if last is None or last.begun_utc is not None:
        what = "none is drawn" if last is None else "the last one has begun already"
        raise UserError(f"{store.folder}: no audit can begin, because {what}; draw one with --audit 59")
    pool = sum(last.pool.values())
    event = store.log.append(Entry(event="audit-begun", reason=f"the queue is over; of {pool} items drawn from"))
    begun = begun_audit(last, open_items, begun_at=event.n, now=event.utc)
    kept.model_copy(update={"audits": (*kept.audits[:-1], begun)}).save(audit_file(store.folder))
    rest = sum(begun.rest.values())
    return (
        f"the audit begins: {len(begun.to_read)} of its {len(last.items)} items stand for {count(rest, 'structure')} "
        "that the queue did not reach; read all of them"
    )

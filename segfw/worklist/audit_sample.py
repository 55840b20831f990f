"""The audit of what nobody looked at: a simple random sample, drawn before, read when the queue is over.

When it begins, those of the sample that the queue has reached are behind it, and the others speak for all that it did
not reach. All of these are read, blind to what is predicted of them. To stop earlier, or to read on when the figure
does not please, would void the bound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.records import Record
from segfw.worklist.failure_bound import ALPHA, failure_bound

AUDIT_FILE = "audit.json"
OF_ALL = ""  # the name of the pool of all structures

Pair = tuple[str, str]  # case and structure


class Audit(Record):
    """One audit: ``items`` in the order in which they were drawn, of the structures of ``cases`` that were open then.

    ``pool`` says of how many, by structure or OF_ALL. When it begins, ``begun_at`` is the last line of the log,
    ``reached`` are the items that were done by then, and ``rest`` says how many of the pool were not.
    """

    seed: int
    by: Literal["pool", "structure"]
    alpha: float
    fail_below: float
    drawn_utc: str
    cases: tuple[str, ...]
    pool: dict[str, int]
    items: tuple[Pair, ...]
    begun_utc: str | None = None
    begun_at: int = 0
    reached: tuple[Pair, ...] = ()
    rest: dict[str, int] = {}

    @property
    def to_read(self) -> tuple[Pair, ...]:
        """Those that the queue did not reach; nothing before the audit has begun."""
        reached = set(self.reached)
        return tuple(item for item in self.items if item not in reached) if self.begun_utc else ()


class AuditFile(Record):
    """All audits of a folder, and how many were announced with the first."""

    announced: int = 1
    audits: tuple[Audit, ...] = ()

    @property
    def open(self) -> Audit | None:
        """The last one, unless there is none."""
        return self.audits[-1] if self.audits else None


class AuditResult(Record):
    """What an audit says of one structure, or of all: of ``rest`` drafts that the queue did not reach ``sampled`` are
    in the sample, ``read`` of them were read, and ``failed``.

    ``bound`` is the largest share of failures that is believable; None until all are read.
    """

    of: str
    rest: int
    sampled: int
    read: int
    failed: int
    alpha: float
    bound: float | None

    @property
    def text(self) -> str:
        """'at most 4.0 % of 200 unread drafts fail (0 of 59 did; holds in 95 of 100 audits)'."""
        what = f" of {self.of}" if self.of else ""
        if not self.rest:
            return f"nothing{what} is left that nobody looked at"
        if self.bound is None:
            return f"{self.read} of {self.sampled} items{what} are read; the bound is told when all are"
        sure = f"holds in {100 * (1 - self.alpha):g} of 100 audits"
        shown = f"{100 * self.bound:.1f} % of {self.rest} drafts{what} that the queue did not reach fail"
        return f"at most {shown} ({self.failed} of {self.sampled} did; {sure})"


def audit_file(folder: Path) -> Path:
    """Where audits lie in a folder of masks."""
    return folder / REVIEW_FOLDER / AUDIT_FILE


def read_audits(folder: Path) -> AuditFile:
    """The audits of a folder; none where there is no file."""
    path = audit_file(folder)
    return AuditFile.load(path) if path.is_file() else AuditFile()


def drawn_audit(
    open_items: Sequence[Pair],
    number: int,
    *,
    seed: int,
    by: Literal["pool", "structure"],
    audits: int,
    fail_below: float,
    now: str,
) -> Audit:
    """A simple random sample of open items, without replacement; of each structure by itself, if that is asked for.

    ``alpha`` is ALPHA divided by the number of audits and of structures, so that all bounds together hold.
    """
    groups: dict[str, list[Pair]] = {}
    for item in sorted(open_items):
        groups.setdefault(OF_ALL if by == "pool" else item[1], []).append(item)
    rng = np.random.default_rng(seed)
    drawn: list[Pair] = []
    for name in sorted(groups):
        members = groups[name]
        chosen = rng.choice(len(members), size=min(number, len(members)), replace=False)
        drawn += [members[int(index)] for index in chosen]
    return Audit(
        seed=seed,
        by=by,
        alpha=ALPHA / audits / max(1, len(groups)),
        fail_below=fail_below,
        drawn_utc=now,
        cases=tuple(sorted({case for case, _ in open_items})),
        pool={name: len(members) for name, members in sorted(groups.items())},
        items=tuple(drawn),
    )


def begun_audit(audit: Audit, open_items: Collection[Pair], *, begun_at: int, now: str) -> Audit:
    """The audit as it begins: which of its items are still open, and how many of its pool."""
    of_pool = set(audit.cases)
    still_open = {item for item in open_items if item[0] in of_pool}
    rest = dict.fromkeys(audit.pool, 0)
    for _, structure in still_open:
        name = OF_ALL if audit.by == "pool" else structure
        if name in rest:
            rest[name] += 1
    return audit.model_copy(
        update={
            "begun_utc": now,
            "begun_at": begun_at,
            "reached": tuple(item for item in audit.items if item not in still_open),
            "rest": rest,
        }
    )


def audit_results(audit: Audit, has_failed: Mapping[Pair, bool]) -> list[AuditResult]:
    """What the audit says by now: of items that are read ``has_failed`` tells how they came out."""
    results = []
    for name, rest in audit.rest.items():
        own = [item for item in audit.to_read if name in (OF_ALL, item[1])]
        told = [has_failed[item] for item in own if item in has_failed]
        is_done = len(told) == len(own) and len(own) > 0
        bound = failure_bound(sum(told), len(told), pool=rest, alpha=audit.alpha) if is_done else None
        results.append(
            AuditResult(
                of=name,
                rest=rest,
                sampled=len(own),
                read=len(told),
                failed=sum(told),
                alpha=audit.alpha,
                bound=0.0 if rest == 0 else bound,
            )
        )
    return results


def require_another(kept: AuditFile, audits: int) -> int:
    """How many audits are announced; UserError if one is on its way, or if all that were announced are done."""
    last = kept.open
    if last is None:
        return audits
    if last.begun_utc is None:
        raise UserError(
            f"an audit of {len(last.items)} items was drawn at {last.drawn_utc} already; read it with --read-audit "
            "when the queue is over"
        )
    if len(kept.audits) >= kept.announced:
        raise UserError(
            f"all audits that were announced ({kept.announced}) are drawn; another one would void their bounds: "
            "announce them with the first, such as --audits 2"
        )
    return kept.announced

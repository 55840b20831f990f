"""The steps of a review as scripts take them: many cases at once, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.errors import DiskFull, UserError
from segfw.base.progress import progress
from segfw.base.words import count, listed
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import LogDamaged
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import Decision, Meaning

BY_SCRIPT = "by a command, which asks nothing"
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The printed name of who signs, and what that means."""

    name: str
    meaning: Meaning


class StepsAnswer(Answer):
    """What became of each case: ``done`` and ``kept`` (nothing was to do) by what they are now, ``failed`` by why."""

    kind: Literal["review-steps"] = "review-steps"
    path: Path
    done: dict[str, str]
    kept: dict[str, str]
    failed: dict[str, str]

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def text(self) -> str:
        """A line for what was done, kept and failed."""
        lines = []
        for what, cases in (("", self.done), ("nothing to do, ", self.kept)):
            for state in dict.fromkeys(cases.values()):
                names = [case for case, its in cases.items() if its == state]
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{what}{state}: {count(len(names), 'case')} ({', '.join(names[:SHOWN])}{more})")
        if self.failed:
            lines.append(f"{count(len(self.failed), 'case')} failed, all others are done")
            lines += [f"  {case}: {reason.removeprefix(f'{case}: ')}" for case, reason in self.failed.items()]
        return "\n".join(lines) or "no case was given"


def chosen_cases(store: ReviewStore, names: Iterable[str]) -> list[str]:
    """The cases of these names or patterns (case_1*), in order; UserError for one that is of none."""
    chosen: set[str] = set()
    for name in names:
        found = {name} & set(store.case_ids) or {case for case in store.case_ids if fnmatchcase(case, name)}
        if not found:
            some = listed(store.case_ids[:5], "and")
            raise UserError(f"{store.folder}: has no case {name!r}; cases are named like {some}")
        chosen |= found
    return sorted(chosen)


def of_each(store: ReviewStore, cases: Sequence[str], step: Callable[[str], str], doing: str) -> StepsAnswer:
    """Takes a step with each case; ``step`` gives the state that it is in now, or '' where there was nothing to do."""
    done: dict[str, str] = {}
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    for case in progress(doing, cases):
        try:
            state = step(case)
        except (DiskFull, LogDamaged):  # which the next case would meet, too
            raise
        except UserError as error:
            failed[case] = str(error)
            continue
        if state:
            done[case] = state
        else:
            kept[case] = store.standing(case).state
    return StepsAnswer(path=store.folder, done=done, kept=kept, failed=failed)


def accept_case(store: ReviewStore, case: str, person: Person, active_s: float, signature: Signature | None) -> str:
    """Accepts all structures of a case that are not decided, and ends it; signs it if there is a signature.

    '' where it was reviewed, or signed, already.
    """
    state = store.standing(case).state
    if state not in ("REVIEWED", "SIGNED"):
        review_case(store, case, person, active_s, dict.fromkeys(store.structures, "accept"))
    if signature is None or state == "SIGNED":
        return "" if state in ("REVIEWED", "SIGNED") else "REVIEWED"
    sign_case(store, case, person, signature)
    return "SIGNED"


def review_case(store: ReviewStore, case: str, person: Person, active_s: float, decisions: dict[str, Decision]) -> None:
    """Opens a case, decides what is not decided yet, and ends it; where that fails it is given back."""
    was_open = store.standing(case).state == "IN_REVIEW"
    known = store.open_case(case, person).decisions
    try:
        store.renew(case, person, active_s=active_s)
        new = {name: decision for name, decision in decisions.items() if name not in known}
        store.decide_all(case, person, new, BY_SCRIPT)
        store.finish(case, person)
    except UserError as error:
        if not was_open and not isinstance(error, DiskFull | LogDamaged):
            store.release(case, person)
        raise


def sign_case(store: ReviewStore, case: str, person: Person, signature: Signature) -> None:
    """Signs the version that counts."""
    sha256 = store.standing(case).sha256 or ""
    store.sign(case, person, name=signature.name, meaning=signature.meaning, version_sha256=sha256)

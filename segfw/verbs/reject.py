"""``segfw reject``: drafts of which no mask can be had; and signatures that are taken back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.reviewing.step_options import RejectOptions

if TYPE_CHECKING:
    from segfw.reviewing.scripted_steps import StepsAnswer


@takes_options(options=RejectOptions)
def reject(folder: Path, cases: Sequence[str], options: RejectOptions = RejectOptions()) -> StepsAnswer:
    """Rejects cases, for a reason; or takes their signatures back, so that they are REVIEWED again.

    Parameters
    ----------
    folder
        Folder of masks that ``predict`` or ``ensemble`` wrote.
    cases
        Names of cases, or patterns such as 'case_1*'.
    options
        ``user`` is who rejects, ``minutes`` how long all of it took. ``reason`` is one of five, of which 'other' needs
        a ``text``. With ``signature`` what is signed is amended instead; the version that was signed stays.

    Returns
    -------
    StepsAnswer
        ``done``, ``kept`` and ``failed``, by case.

    Raises
    ------
    UserError
        If the folder holds no masks of segfw, a case is none, or the log was changed.
    """
    from segfw.base.records import UserError
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore
    from segfw.reviewing.scripted_steps import chosen_cases, of_each

    store = ReviewStore.open(Path(folder))
    wanted = chosen_cases(store, cases)
    person = Person.named(options.user)
    active_s = 60 * options.minutes / max(1, len(wanted))
    if not options.text.strip() and (options.signature or options.reason == "other"):
        raise UserError("--text is missing: say in words why, or give another --reason than other")

    def step(case: str) -> str:
        if options.signature:
            store.amend(case, person, options.text)
            return "REVIEWED"
        if store.standing(case).state == "REJECTED":
            return ""
        if active_s and store.standing(case).state == "DRAFT":
            store.open_case(case, person)
            store.renew(case, person, active_s=active_s)
        store.reject(case, person, options.reason, options.text)
        return "REJECTED"

    return of_each(store, wanted, step, "rejecting")


COMMAND = Command(
    function=reject,
    what="Say that no mask can be had from drafts, and why; or take signatures back.",
    example="segfw reject masks case_07 --user anna --reason image-bad",
    arguments=(
        Argument(name="folder", help="folder of masks that predict wrote"),
        Argument(name="cases", help="names of cases, or patterns; quote these", parse=str, nargs="+"),
    ),
    gives_json=True,
)

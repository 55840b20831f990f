"""``segfw accept``: masks are accepted, and signed, by a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.reviewing.step_options import AcceptOptions

if TYPE_CHECKING:
    from segfw.reviewing.scripted_steps import StepsAnswer


@takes_options(options=AcceptOptions)
def accept(folder: Path, cases: Sequence[str] = (), options: AcceptOptions = AcceptOptions()) -> StepsAnswer:
    """Accepts every structure of cases as it is, so that they are REVIEWED, and signs them if a name is given.

    Drafts stay as they are; what is accepted becomes a version in ``folder/review``. Structures that were decided on
    before keep their decisions. What is reviewed or signed already is left alone.

    Parameters
    ----------
    folder
        Folder of masks that ``predict`` or ``ensemble`` wrote.
    cases
        Names of cases, or patterns such as 'case_1*'.
    options
        ``user`` is who accepts, ``minutes`` how long all of it took. ``sign`` is the printed name of who signs, with
        the ``meaning``. ``from_file`` is decisions.json of a static review page: its decisions are taken, of all cases
        in it or of those that are named.

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
    from segfw.reviewing.noted_decisions import NotedDecision, read_decisions, take_noted
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore
    from segfw.reviewing.scripted_steps import Signature, accept_case, chosen_cases, of_each

    store = ReviewStore.open(Path(folder))
    signature = None if options.sign is None else Signature(name=options.sign, meaning=options.meaning)
    noted: dict[str, list[NotedDecision]] = {}
    if options.from_file is not None:
        for each in read_decisions(options.from_file):
            noted.setdefault(each.case, []).append(each)
    elif not cases:
        raise UserError(f"{folder}: which cases? give their names, or '*' for all, or --from decisions.json")
    wanted = chosen_cases(store, cases or noted)
    if noted:
        wanted = [case for case in wanted if case in noted]
    active_s = 60 * options.minutes / max(1, len(wanted))
    person = Person.named(options.user)

    def step(case: str) -> str:
        if noted:
            return take_noted(store, case, noted[case], options.user, active_s, signature)
        return accept_case(store, case, person, active_s, signature)

    return of_each(store, wanted, step, "accepting")


COMMAND = Command(
    function=accept,
    what="Accept masks as they are, so that they count as reviewed, and sign them.",
    example='segfw accept masks "case_1*" --user anna --minutes 12 --sign "Dr. Anna Weber"',
    arguments=(
        Argument(name="folder", help="folder of masks that predict wrote"),
        Argument(name="cases", help="names of cases, or patterns; quote these", parse=str, nargs="*"),
    ),
    gives_json=True,
)

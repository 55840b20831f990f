"""``segfw status``: what lies at a path, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import Options, option, takes_options

if TYPE_CHECKING:
    from segfw.base.answers import Answer


@dataclass(frozen=True, kw_only=True)
class StatusOptions(Options):
    """Of a folder of masks that people review."""

    verify: bool = option(False, "of masks under review: read the log and every mask; exit code 1 if one was changed")
    anchor: Path | None = option(
        None, "of masks under review: hold the log against this file, if it is there, and add its head", metavar="FILE"
    )


@takes_options(options=StatusOptions)
def status(path: Path, options: StatusOptions = StatusOptions()) -> Answer:
    """Recognises what lies at ``path`` and says how far it is, from small files alone.

    Parameters
    ----------
    path
        A work folder, a model, a folder of masks, a data set, scores of an evaluation, measures of masks, a study of an
        outcome, or a model for another program.
    options
        Of a folder of masks that people review: ``verify`` reads every version of a mask and holds it against the log.
        ``anchor`` is a file that keeps heads of the log and belongs elsewhere: with it a log shows that was cut off or
        written anew.

    Returns
    -------
    Answer
        A record; ``kind`` says of what, and its text is a few lines.

    Raises
    ------
    UserError
        If there is nothing that segfw knows, or a file of it is damaged; or if ``options`` are about a review, and
        there is none.
    """
    from segfw.base.records import UserError
    from segfw.standing.of_masks import MasksStanding
    from segfw.standing.of_review import review_facts
    from segfw.standing.recognise import standing_of

    found = standing_of(Path(path))
    is_asked = options.verify or options.anchor is not None
    review = None
    if isinstance(found, MasksStanding):
        review = review_facts(Path(path), verify=options.verify, anchor=options.anchor)
        if review is not None:
            return found.with_review(review)
    if is_asked:
        raise UserError(f"{path}: nothing was reviewed there; --verify and --anchor are of masks under review")
    return found


COMMAND = Command(
    function=status,
    what="Say what a folder or file is and how far the work in it is: folds, masks, hours left, and the next command.",
    example="segfw status work",
    arguments=(
        Argument(
            name="path",
            help="work folder, model, folder of masks or of deliveries, data set, scores.json, measures.json, "
            "stress.json, or folder of an outcome",
        ),
    ),
    gives_json=True,
)

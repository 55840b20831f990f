"""``segfw status``: what lies at a path, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command

if TYPE_CHECKING:
    from segfw.base.answers import Answer


def status(path: Path) -> Answer:
    """Recognises what lies at ``path`` and says how far it is, from small files alone.

    Parameters
    ----------
    path
        A work folder, a model, a folder of masks, a data set, scores of an evaluation, measures of masks, or a model
        for another program.

    Returns
    -------
    Answer
        A record; ``kind`` says of what, and its text is a few lines.

    Raises
    ------
    UserError
        If there is nothing that segfw knows, or a file of it is damaged.
    """
    from segfw.standing.recognise import standing_of

    return standing_of(Path(path))


COMMAND = Command(
    function=status,
    what="Say what a folder or file is and how far the work in it is: folds, masks, hours left, and the next command.",
    example="segfw status work",
    arguments=(
        Argument(
            name="path",
            help="work folder, model, folder of masks, data set, scores.json, measures.json, or stress.json",
        ),
    ),
    gives_json=True,
)

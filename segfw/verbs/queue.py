"""``segfw queue``: which masks a person should look at first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import say_next
from segfw.worklist.queue_options import QueueOptions

if TYPE_CHECKING:
    from segfw.reviewing.review_store import ReviewStore
    from segfw.worklist.queue_file import ReviewQueue
    from segfw.worklist.work_queue import FoundItems


@takes_options(options=QueueOptions)
def queue(folder: Path, options: QueueOptions = QueueOptions()) -> ReviewQueue:
    """Puts the structures of a folder of masks in the order in which correcting them pays most per minute.

    An item is a structure of a case, with ``regions`` also a suspected region of one. What it gains is told by the
    predicted Dice that ``predict`` writes of a calibrated model; what it takes by its slices and by what people took in
    this folder before. Call it again at any time: what is decided is left out, and minutes are learned anew.

    Parameters
    ----------
    folder
        Of masks, as ``predict`` wrote it with quality.
    options
        ``minutes`` may be spent; ``goal`` is 'pool' or 'model'; ``audit`` items are drawn before the work, read after
        it (``read_audit``), and bound what is wrong in the rest; ``plant`` errors are made in copies, and told at the
        end (``reveal``).

    Returns
    -------
    ReviewQueue
        Also in review/queue.json; the table is queue.csv and the page queue.html.

    Raises
    ------
    UserError
        If nothing tells how far the masks may be trusted, or what is asked for would void an audit.
    """
    from segfw.base.file_names import REVIEW_FOLDER
    from segfw.base.locks import alone
    from segfw.reviewing.review_store import ReviewStore
    from segfw.worklist.queue_outputs import write_outputs
    from segfw.worklist.second_reading import compared, prepare_second, second_cases, second_folder
    from segfw.worklist.work_queue import found_items, made_queue

    store = ReviewStore.open(Path(folder))
    with alone(store.folder / REVIEW_FOLDER / "locks" / "queue.lock"):
        found = found_items(store, options)
        if options.readers == 2:
            prepare_second(store, options.seed)
        _audit(store, found, options)
        _plant(store, found, options)
        made = made_queue(store, found, options)
        second = None
        if second_cases(store.folder):
            second = compared(store, ReviewStore.open(second_folder(store.folder)))
            print(second.text)
        write_outputs(store.folder, made, second)
    return made


def _audit(store: ReviewStore, found: FoundItems, options: QueueOptions) -> None:
    """Draws an audit, or lets it begin; both are told to the log."""
    from segfw.worklist.audit_steps import begin_audit, draw_audit

    if options.audit is not None:
        print(draw_audit(store, found.open_pairs, options))
    if options.read_audit:
        print(begin_audit(store, found.open_pairs))


def _plant(store: ReviewStore, found: FoundItems, options: QueueOptions) -> None:
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.worklist.planted_cases import PlantedCases, most_plants
    from segfw.worklist.work_queue import plantable

    planted = PlantedCases(store.folder)
    if options.reveal:
        result = planted.reveal(store)
        print(result.text)
        for plant in result.missed:
            print(f"not seen: {plant.structure} of a copy of {plant.source} ({plant.kind})")
    if options.plant is not None:
        items = len(found.open_pairs)
        most = most_plants(items)
        if options.plant > most:
            raise UserError(
                f"--plant {options.plant}: of {count(items, 'open structure')} at most 5 of 100 may be planted, which "
                f"is {most}; people would learn to expect them"
            )
        number = planted.make(store, plantable(found, store), options.plant, options.seed)
        print(f"{count(number, 'error')} planted; whoever reviews should not know where: see them with --reveal")


def _say_result(typed: argparse.Namespace, made: ReviewQueue) -> None:
    from segfw.worklist.queue_outputs import queue_lines

    print("\n".join(queue_lines(made)))
    print(f"written: {typed.folder / 'queue.html'}, {typed.folder / 'queue.csv'}")
    say_next("review", typed.folder)


COMMAND = Command(
    function=queue,
    what="Put masks in the order in which correcting them pays most per minute, and say when to stop.",
    example="segfw queue masks --minutes 120 --audit 59",
    arguments=(Argument(name="folder", help="folder of masks that segfw predict wrote, with quality"),),
    say_result=_say_result,
)

"""``segfw deliver``: masks that were signed, as files for others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.delivery.deliver_options import DeliverOptions

if TYPE_CHECKING:
    from segfw.delivery.deliver_cases import Delivery

SOME_WRONG = 1  # exit code of --check


@takes_options(options=DeliverOptions)
def deliver(folder: Path, output: Path, options: DeliverOptions = DeliverOptions()) -> Delivery:
    """Writes masks that a person signed into a folder of their own, in formats that other programs read.

    Each file says who signed which version, when and as what, and where the review log ended; it is read back before
    it gets its name. A case that was changed after it was signed is refused. ``output/delivered.json`` and ``.csv``
    list every file, and which copies no longer hold because their signature was taken back.

    Parameters
    ----------
    folder
        A folder of masks under review.
    output
        Folder for the files; it may hold earlier deliveries of the same review.
    options
        ``formats`` (``--as``) are as for ``predict``. ``cases`` are delivered, by default all that are signed.
        ``research`` delivers others as well: their names begin with the case and say DRAFT, and so do their headers.
        ``dicom`` is the series that DICOM formats refer to, where the images were no DICOM or lie elsewhere now.

    Returns
    -------
    Delivery
        ``files`` that were written, what the ``gate`` kept back, and ``superseded`` copies of these cases; with
        ``check`` the ``problems`` alone.

    Raises
    ------
    UserError
        Before anything is written, if a case that is asked for is not signed, or cannot be written in a format.
    CasesFailed
        At the end, with the cases that were changed after they were signed, or could not be written.
    """
    from segfw.delivery.deliver_cases import check_delivery, deliver_cases
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore

    store = ReviewStore.open(Path(folder))
    if options.check:
        return check_delivery(store, Path(output))
    return deliver_cases(store, Path(output), options, Person.named(options.user))


def _say_result(typed: argparse.Namespace, delivery: Delivery) -> int | None:
    from segfw.delivery.delivery_text import check_text, delivery_text

    if not typed.check:
        print(delivery_text(delivery))
        return None
    print(check_text(delivery))
    return SOME_WRONG if delivery.problems else None


COMMAND = Command(
    function=deliver,
    what="Write signed masks as files for other programs, with who signed them; refuse drafts and what was changed.",
    example="segfw deliver masks signed --as rtstruct dicom-seg --dicom scans",
    arguments=(
        Argument(name="folder", help="folder of masks under review"),
        Argument(name="output", help="folder for the delivered files"),
    ),
    say_result=_say_result,
)

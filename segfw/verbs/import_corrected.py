"""``segfw import-corrected``: masks that were corrected in 3D Slicer, ITK-SNAP or another program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.reviewing.step_options import CorrectedOptions

if TYPE_CHECKING:
    from segfw.reviewing.scripted_steps import StepsAnswer


@takes_options(options=CorrectedOptions)
def import_corrected(
    folder: Path, files: Sequence[Path], options: CorrectedOptions = CorrectedOptions()
) -> StepsAnswer:
    """Takes corrected masks as new versions of cases, which are REVIEWED then.

    NIfTI, NRRD and other images, ``.seg.nrrd``, DICOM SEG and RTSTRUCT. Names of structures decide, not numbers; one
    that is none here is refused. The grid must be that of the draft. Structures whose voxels changed count as edited,
    the others as accepted. Drafts and earlier versions stay as they are.

    Parameters
    ----------
    folder
        Folder of masks that ``predict`` or ``ensemble`` wrote.
    files
        Corrected masks, each named like its case, or folders of them.
    options
        ``user`` is who corrected them, with the ``tool``, in so many ``minutes`` for all. ``base`` is the version that
        was corrected: another one that came between is not lost by accident. ``label_names`` is a table of what the
        numbers in plain masks mean.

    Returns
    -------
    StepsAnswer
        ``done``, ``kept`` and ``failed``, by case.

    Raises
    ------
    UserError
        If the folder holds no masks of segfw, a file is named like no case, or the log was changed.
    """
    from segfw.reviewing.corrected_masks import files_by_case
    from segfw.reviewing.import_step import import_case
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore
    from segfw.reviewing.scripted_steps import of_each

    store = ReviewStore.open(Path(folder))
    found = files_by_case(store, map(Path, files), options.case)
    person = Person.named(options.user)
    active_s = 60 * options.minutes / max(1, len(found))
    return of_each(
        store, list(found), lambda case: import_case(store, case, found[case], person, active_s, options), "importing"
    )


COMMAND = Command(
    function=import_corrected,
    what="Take masks that were corrected in another program as new versions; names of structures decide.",
    example="segfw import-corrected masks corrected --user anna --minutes 40 --tool Slicer",
    arguments=(
        Argument(name="folder", help="folder of masks that predict wrote"),
        Argument(name="files", help="corrected masks, each named like its case, or folders of them", nargs="+"),
    ),
    gives_json=True,
)

"""``segfw join``: data sets of several sources described as one, each with the structures that it drew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import say_next
from segfw.joining.join_options import JoinOptions

if TYPE_CHECKING:
    from segfw.joining.join_report import JoinReport


@takes_options(options=JoinOptions)
def join(raws: Sequence[Path], output: Path, options: JoinOptions = JoinOptions()) -> JoinReport:
    """Describes several data sets as one, without copying an image.

    Labels are matched by name. Each case's ``annotated`` list has what its source drew, so that training takes what
    else its masks call background for background or any of the other labels.

    Parameters
    ----------
    raws
        Folders of images and masks, in any layout that training takes, whose labels have names.
    output
        New folder for dataset.json, which lists the files where they lie, patients.csv, for ``groups`` of
        ``plan_and_preprocess``, and join.json.
    options
        ``called`` are names of the data sets, which stand before their cases' ids; by default those of the folders.
        ``labels`` is a table with the columns source, label and joined, which says what labels are called in the joined
        data set: it is asked for where names are alike and do not tell whether two labels are one. With ``dry_run``
        everything is read and told, and nothing is written.

    Returns
    -------
    JoinReport
        Every label in every source, with its number of cases and its median volume, and what is odd about them.

    Raises
    ------
    UserError
        If labels have no names, or are in doubt; if channels differ, or an image is in two of the data sets.
    DataProblems
        If a data set could not be trained with by itself.
    """
    from segfw.base.output_paths import require_outside
    from segfw.joining.join_folder import require_join_folder, write_join
    from segfw.joining.join_report import JoinReport, join_findings, joined_labels
    from segfw.joining.joined_sources import find_sources, read_source, require_same_channels
    from segfw.joining.matched_labels import match_labels, read_given

    output = Path(output)
    folders = [Path(raw) for raw in raws]
    require_outside(output, folders)
    require_join_folder(output)
    given = read_given(options.labels)
    found = find_sources(folders, options.called)
    names = match_labels({source.name: source.labels for source in found}, given, options.labels or "--labels")
    sources = [read_source(source, options.workers) for source in found]
    require_same_channels(sources)
    labels = joined_labels(sources, names)
    report = JoinReport(
        path=output,
        sources={each.source.name: len(each.manifest.cases) for each in sources},
        labels=labels,
        findings=join_findings(sources, labels),
    )
    if not options.dry_run:
        write_join(output, sources, names, report)
    return report


def _say_result(typed: argparse.Namespace, report: JoinReport) -> None:
    from segfw.joining.join_folder import PATIENTS_FILE

    print(report)
    print(f"written: {typed.output / 'dataset.json'}, {typed.output / PATIENTS_FILE}")
    say_next("run", typed.output, "WORK", "--groups", typed.output / PATIENTS_FILE)


COMMAND = Command(
    function=join,
    what="Join data sets whose masks show different structures: labels matched by name, no image copied.",
    example="segfw join siteA siteB --output joined",
    arguments=(
        Argument(name="raws", help="two folders of images and masks, or more", nargs="+", shown="RAW"),
        Argument(name="output", help="new folder for the joined data set", shown="--output"),
    ),
    say_result=_say_result,
    gives_json=True,
    foretell=join,
)

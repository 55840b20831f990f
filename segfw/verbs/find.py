"""``segfw find``: the labels that a name of a structure means, in English or Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import NAMES_HELP, NAMINGS, Options, option, takes_options

if TYPE_CHECKING:
    from segfw.dataset.found import Found


@dataclass(frozen=True, kw_only=True)
class FindOptions(Options):
    """What is said of the labels besides, and written."""

    names: str | None = option(None, NAMES_HELP, choices=NAMINGS, metavar="NAMING")
    codes: Path | None = option(None, "codes.csv to write, for correction beside a data set", metavar="FILE")


@takes_options(options=FindOptions)
def find(model: Path, text: str | Sequence[str] = "", options: FindOptions = FindOptions()) -> Found:
    """Looks up which labels a name means: its own names, English, Chinese, sides, levels and groups.

    A look-up by a table and a grammar, in which every character of the name has to mean something; nothing is guessed.

    Parameters
    ----------
    model
        Work folder or model file; or a folder of masks with labels.json, or a data set.
    text
        A name, or several between commas; words in a list are one name. Without it all labels are told.
    options
        ``names`` tells beside each label what another program calls it, and its number there. ``codes`` is a file that
        is written, with the code of each label.

    Returns
    -------
    Found
        ``names``, ``values`` and ``note``, which says where a name stands for several labels.

    Raises
    ------
    UserError
        If the name means nothing here, or several things that differ; the sentence has the three nearest names.
    """
    from segfw.base.output_paths import is_table_of, require_outside, require_replaceable
    from segfw.dataset.found import Found
    from segfw.dataset.look_up import LookUp
    from segfw.dataset.own_names import COLUMNS, write_codes
    from segfw.dataset.totalsegmentator import class_of_structures, classes_of
    from segfw.model.labels_of_path import labels_at

    model = Path(model)
    asked = text if isinstance(text, str) else " ".join(text)
    labels = labels_at(model)
    look_up = LookUp(labels, model)
    if asked.strip():
        answer = look_up.all_of([asked])
        names = answer.names
        note = answer.note
    else:
        names = tuple(labels.structures)
        note = ""
    theirs = class_of_structures(labels, options.names) if options.names is not None else {}
    if options.codes is not None:
        require_outside(options.codes, (model,))
        require_replaceable(options.codes, (".csv",), is_table_of(*COLUMNS[:2]))
        write_codes(options.codes, {name: look_up.known[name] for name in names})
    structures = tuple(look_up.known[name] for name in names)
    return Found(
        path=model,
        asked=asked,
        names=names,
        values=tuple(each.painted for each in structures),
        note=note,
        structures=structures,
        other_names={name: theirs[name] for name in names if name in theirs},
        other_values={name: classes_of(str(options.names))[theirs[name]] for name in names if name in theirs},
    )


COMMAND = Command(
    function=find,
    what="Look up which labels a name means, in English or Chinese: their values, names and codes.",
    example="segfw find work left kidney",
    arguments=(
        Argument(name="model", help="work folder or model file; or a folder of masks, or a data set"),
        Argument(
            name="text", help="name, such as 左肾 or 'left kidney, liver'; default: all labels", parse=str, nargs="*"
        ),
    ),
    gives_json=True,
)

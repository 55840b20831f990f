"""What nnU-Net found to be worth removing from masks, as ours and back.

nnU-Net keeps a list of functions and of their arguments twice: in postprocessing.json by the functions' names, and as
postprocessing.pkl, a pickle, which its own command takes (determine_postprocessing of nnU-Net 2.8.1 writes both). The
JSON alone is read here; a pickle is a program, and none is run. There is one function, which keeps the largest
component of some labels.
"""

from __future__ import annotations

import json
import pickle
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.files import whole_file, write_text
from segfw.base.written_by_people import Unreadable, read_json
from segfw.dataset.labels import LabelSet
from segfw.model.postprocess import KeepLargest, Postprocessing, possible_steps

JSON_FILE = "postprocessing.json"
PICKLE_FILE = "postprocessing.pkl"
MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
LARGEST_FILE = 1 << 20  # bytes; nnU-Net's are some hundred, with a hundred labels some ten thousand


class UnknownError(Exception):
    """A file that says something else than nnU-Net writes; the message says what."""


@dataclass(frozen=True, kw_only=True)
class FoundPostprocessing:
    """What lies in a trained-model folder: the steps and their file, or why they are not taken; neither without any."""

    steps: Postprocessing | None = None
    file: str = ""  # relative to the trained-model folder
    problem: str = ""
    remedy: str = "apply it by nnUNetv2_apply_postprocessing"


def find_postprocessing(trained: Path, labels: LabelSet) -> FoundPostprocessing:
    """What nnU-Net found by cross-validation, of a trained-model folder with these ``labels``.

    Of several cross-validations the one over most folds counts, also where it cannot be read: one over fewer may have
    found otherwise.
    """
    folders = sorted(trained.glob("crossval_results_folds_*"), key=lambda path: (path.name.count("_"), path.name))
    for folder in (*reversed(folders), trained):
        path = folder / JSON_FILE
        if path.is_file():
            file = path.relative_to(trained).as_posix()
            try:
                return FoundPostprocessing(steps=read_postprocessing(path, labels), file=file)
            except UnknownError as error:
                return FoundPostprocessing(problem=f"{file}: {error}")
        path = folder / PICKLE_FILE
        if path.is_file():
            return FoundPostprocessing(
                problem=f"{path.relative_to(trained).as_posix()}: it is a pickle, which could run code",
                remedy=f"put the {JSON_FILE} that nnU-Net wrote beside it there, too, and import again",
            )
    return FoundPostprocessing()


def read_postprocessing(path: Path, labels: LabelSet) -> Postprocessing:
    """The steps of nnU-Net's postprocessing.json; UnknownError if it says anything else."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UnknownError("it is larger than any that nnU-Net writes")
        found = read_json(path)
        functions = found["postprocessing_fns"]
        arguments = found["postprocessing_kwargs"]
        steps = [_step(function, of_it, labels) for function, of_it in zip(functions, arguments, strict=True)]
    except Unreadable as error:
        raise UnknownError(f"it is not as nnU-Net writes it ({error.reason})") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        raise UnknownError(f"it is not as nnU-Net writes it ({type(error).__name__})") from None
    return Postprocessing(steps=tuple(steps))


def _step(function: object, arguments: Mapping[str, object], labels: LabelSet) -> KeepLargest:
    if function != FUNCTION:
        raise UnknownError(f"it asks for {reprlib.repr(function)}")
    different = {key: value for key, value in arguments.items() if key != "labels_or_regions"}
    if different not in ({}, {"background_label": 0}):
        raise UnknownError(f"it asks for {FUNCTION} with {reprlib.repr(different)}")
    values = _label_values(arguments["labels_or_regions"])
    for step in possible_steps(labels):
        if {labels.values[index] for index in step.classes} == values:
            return step
    raise UnknownError(f"it is of the labels {sorted(values)}, which are no structure of the model")


def _label_values(labels_or_regions: object) -> set[int]:
    """Label values of a label, a region or a list of both: nnU-Net takes their union."""
    if isinstance(labels_or_regions, list):
        return set().union(*(_label_values(part) for part in labels_or_regions))
    if isinstance(labels_or_regions, bool) or not isinstance(labels_or_regions, int):
        raise UnknownError(f"it holds the label {reprlib.repr(labels_or_regions)}")
    return {labels_or_regions}


def write_postprocessing(folder: Path, postprocessing: Postprocessing, values: Sequence[int]) -> None:
    """Both of nnU-Net's files into ``folder``; ``values`` are those of the classes in nnU-Net's masks."""
    arguments = [{"labels_or_regions": [values[index] for index in step.classes]} for step in postprocessing.steps]
    described = {"postprocessing_fns": [FUNCTION] * len(arguments), "postprocessing_kwargs": arguments}
    write_text(folder / JSON_FILE, json.dumps(described, indent=1) + "\n")
    with whole_file(folder / PICKLE_FILE) as partial:
        partial.write_bytes(_pickled(arguments))


def _pickled(arguments: Sequence[Mapping[str, Sequence[int]]]) -> bytes:
    """A pickle of ([the function, ...], arguments), made without the function, which only nnU-Net has.

    A pickle is a program: a protocol, a list marked, the function named as often as it is needed, the list closed, then
    the arguments without their own protocol and stop, a tuple of both, stop.
    """
    function = pickle.GLOBAL + f"{MODULE}\n{FUNCTION}\n".encode()
    functions = pickle.EMPTY_LIST + pickle.MARK + function * len(arguments) + pickle.APPENDS
    return pickle.PROTO + b"\x02" + functions + pickle.dumps(arguments, protocol=2)[2:-1] + pickle.TUPLE2 + pickle.STOP

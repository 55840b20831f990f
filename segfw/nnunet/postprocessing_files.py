"""What nnU-Net found to be worth removing from masks, as ours and back. Nothing in its files is run.

nnU-Net keeps a list of functions and one of their arguments, twice: in postprocessing.json by the functions' names, and
as a pickle, which its own command takes. It has one function, which keeps the largest component of some labels.
"""

from __future__ import annotations

import json
import pickle
import reprlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from segfw.base.records import whole_file, write_text
from segfw.dataset.cases import LabelSet
from segfw.model.postprocess import KeepLargest, Postprocessing, possible_steps

POSTPROCESSING = ("postprocessing.json", "postprocessing.pkl")
MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
LARGEST_FILE = 1 << 20  # bytes; nnU-Net's are some hundred, with a hundred labels some ten thousand


class UnknownError(Exception):
    """A file that says something else than nnU-Net writes; the message says what."""


class DType:
    """Stands in for numpy.dtype, of which only integers are known."""

    def __init__(self, name: object, *options: object) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Sequence[object]) -> None:
        self.order = state[1]


def _scalar(dtype: object, content: object) -> int:
    """Stands in for NumPy's function that makes a number of its bytes: nnU-Net's labels are NumPy integers."""
    is_known = isinstance(dtype, DType) and isinstance(dtype.name, str) and isinstance(content, bytes)
    if not is_known or dtype.name[:1] not in ("i", "u") or dtype.order not in ("<", "|"):
        raise UnknownError("it holds a number that is no integer")
    return int.from_bytes(content, "little", signed=dtype.name[0] == "i")


class Said(dict):
    """What a pickle has said and can take again by a number: here only text and numbers.

    nnU-Net's says no list twice, and one that did could say 2 to the power of its length in lists of lists.
    """

    def __getitem__(self, number: int) -> object:
        found = super().__getitem__(number)
        if isinstance(found, (tuple, list, dict, set, frozenset)):
            raise UnknownError("it says one list twice")
        return found


class Restricted(pickle._Unpickler):
    """Knows nnU-Net's one function, as text that cannot be called, and integers of NumPy; refuses all other names.

    It is Python's own unpickler in Python: the one in C makes room for as many objects as a pickle's largest number
    says, 68 GB for ten bytes.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.DUP[0]}
    KNOWN: Mapping[tuple[str, str], str | type | Callable] = {
        (MODULE, FUNCTION): FUNCTION,
        ("numpy", "dtype"): DType,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("numpy.core.multiarray", "scalar"): _scalar,
    }

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.memo = Said()

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.KNOWN:
            raise UnknownError(f"it names {module}.{name}")
        return self.KNOWN[module, name]


def find_postprocessing(trained: Path, labels: LabelSet) -> tuple[Postprocessing | None, str]:
    """What lies in a trained-model folder, and from which file or why it is not taken; None and '' without any.

    Of several cross-validations the one over most folds counts, also where it cannot be read: one over fewer may have
    found otherwise. The JSON goes before the pickle.
    """
    folders = sorted(trained.glob("crossval_results_folds_*"), key=lambda path: (path.name.count("_"), path.name))
    for folder in (*folders[::-1], trained):
        reasons = []
        for path in (folder / name for name in POSTPROCESSING):
            if not path.is_file():
                continue
            where = path.relative_to(trained).as_posix()
            try:
                return read_postprocessing(path, labels), where
            except UnknownError as error:
                reasons.append(f"{where}: {error}")
        if reasons:
            return None, "; ".join(reasons)
    return None, ""


def read_postprocessing(path: Path, labels: LabelSet) -> Postprocessing:
    """The steps of nnU-Net's .json or .pkl; UnknownError if it says anything else. Runs no code of the file."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UnknownError("it is larger than any that nnU-Net writes")
        content = path.read_bytes()
        if path.suffix == ".json":
            found = json.loads(content)
            functions, arguments = found["postprocessing_fns"], found["postprocessing_kwargs"]
        else:
            functions, arguments = Restricted(BytesIO(content)).load()
        steps = tuple(_step(*pair, labels) for pair in zip(functions, arguments, strict=True))
    except UnknownError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UnknownError(f"it is not as nnU-Net writes it ({type(error).__name__})") from None
    return Postprocessing(steps=steps)


def _step(function: object, arguments: Mapping[str, object], labels: LabelSet) -> KeepLargest:
    if function != FUNCTION:
        raise UnknownError(f"it asks for {reprlib.repr(function)}")
    different = {key: value for key, value in arguments.items() if key != "labels_or_regions"}
    if different not in ({}, {"background_label": 0}):
        raise UnknownError(f"it asks for {FUNCTION} with {reprlib.repr(different)}")
    values = _flat(arguments["labels_or_regions"])
    for step in possible_steps(labels):
        if {labels.values[index] for index in step.classes} == values:
            return step
    raise UnknownError(f"it is of the labels {sorted(values)}, which are no structure of the model")


def _flat(labels_or_regions: object) -> set[int]:
    """Label values of a label, a region or a list of both: nnU-Net takes their union."""
    if isinstance(labels_or_regions, (list, tuple)):
        return {value for part in labels_or_regions for value in _flat(part)}
    if isinstance(labels_or_regions, bool) or not isinstance(labels_or_regions, int):
        raise UnknownError(f"it holds the label {reprlib.repr(labels_or_regions)}")
    return {labels_or_regions}


def write_postprocessing(folder: Path, postprocessing: Postprocessing, values: Sequence[int]) -> None:
    """Both of nnU-Net's files into ``folder``; ``values`` are those of the classes in nnU-Net's masks."""
    arguments = [{"labels_or_regions": [values[index] for index in step.classes]} for step in postprocessing.steps]
    described = {"postprocessing_fns": [FUNCTION] * len(arguments), "postprocessing_kwargs": arguments}
    write_text(folder / POSTPROCESSING[0], json.dumps(described, indent=1) + "\n")
    with whole_file(folder / POSTPROCESSING[1]) as partial:
        partial.write_bytes(_pickled(arguments))


def _pickled(arguments: list[dict[str, object]]) -> bytes:
    """A pickle of ([the function, ...], arguments), made without the function, which only nnU-Net has.

    A pickle is a program: a protocol, a list marked, the function named as often as it is needed, the list closed, then
    the arguments without their own protocol and stop, a tuple of both, stop.
    """
    function = pickle.GLOBAL + f"{MODULE}\n{FUNCTION}\n".encode()
    named = pickle.EMPTY_LIST + pickle.MARK + function * len(arguments) + pickle.APPENDS
    return pickle.PROTO + b"\x02" + named + pickle.dumps(arguments, protocol=2)[2:-1] + pickle.TUPLE2 + pickle.STOP

"""Codes and headers as items of DICOM."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from segfw.base.records import UserError
from segfw.interop.written_structures import CodeTriple, dicom_text

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

AI = ("DCM", "123109", "Artificial Intelligence")
UNICODE = "ISO_IR 192"  # in which every name of a patient or a structure can be written
# What a file that refers to a series copies and must have, if empty (type 2).
MAY_BE_EMPTY = (
    *("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "PositionReferenceIndicator"),
)


def code_item(triple: CodeTriple) -> Dataset:
    """An item of a sequence of codes."""
    from pydicom.dataset import Dataset

    scheme, value, meaning = triple
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = dicom_text(meaning)
    return code


def concept(triple: CodeTriple) -> CodedConcept:
    """The same as highdicom takes it."""
    from highdicom.sr import CodedConcept

    scheme, value, meaning = triple
    return CodedConcept(value=value, scheme_designator=scheme, meaning=dicom_text(meaning))


def complete_header(header: Dataset) -> Dataset:
    """A header with all that is copied of it, in Unicode: names keep their letters, whatever they were written in."""
    complete = copy(header)
    for name in MAY_BE_EMPTY:
        if name not in complete:
            setattr(complete, name, None)
    for element in header:
        if element.VR == "PN" and element.value is not None:
            text = element.value if isinstance(element.value, str) else str(element.value)
            complete[element.tag] = type(element)(element.tag, "PN", text)
    complete.SpecificCharacterSet = UNICODE
    return complete


class _Lenient:
    """Rules that pydicom holds written values to are for all threads: the first one to come in puts them aside, the
    last one to leave puts them back."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._inside = 0
        self._put_back = ExitStack()

    def __enter__(self) -> None:
        from pydicom import config

        with self._changing:
            if self._inside == 0:
                self._put_back.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                # An element that is made anew is held to the rules of reading, one that is written to those of writing.
                for mode in ("reading_validation_mode", "writing_validation_mode"):
                    self._put_back.callback(setattr, config.settings, mode, getattr(config.settings, mode))
                    setattr(config.settings, mode, config.IGNORE)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._inside -= 1
            if self._inside == 0:
                self._put_back.close()


_LENIENT = _Lenient()


@contextmanager
def taken_as_they_are(path: Path) -> Iterator[None]:
    """Lets values of headers that break rules of the standard be copied as they are while the block runs.

    What goes wrong all the same is a UserError that names ``path`` and no value: those are a patient's.
    """
    try:
        with _LENIENT:
            yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: the headers of the series hold something that cannot be written again ({type(error).__name__}); "
            "write nifti or seg.nrrd"
        ) from error

"""Codes and headers as items of DICOM."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
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


@contextmanager
def taken_as_they_are(path: Path) -> Iterator[None]:
    """Lets values of headers that break rules of the standard be copied as they are while the block runs.

    What goes wrong all the same is a UserError that names ``path`` and no value: those are a patient's.
    """
    from pydicom import config

    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: the headers of the series hold something that cannot be written again ({type(error).__name__}); "
            "write nifti or seg.nrrd"
        ) from error
    finally:
        config.settings.writing_validation_mode = before

"""Codes and headers as items of DICOM."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

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

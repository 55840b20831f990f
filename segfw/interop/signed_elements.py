"""What DICOM files say of who reviewed and signed a mask, each in the place that its kind of file has for it.

Nothing is added to the files of a mask that was never under review.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from segfw.base.own_version import own_version
from segfw.dataset.finished_mask import FinishedMask
from segfw.interop.dicom_codes import code_item
from segfw.interop.reference_series import ReferenceSeries
from segfw.interop.written_structures import dicom_text

if TYPE_CHECKING:
    from pydicom import Dataset

MODIFYING = ("DCM", "109103", "Modifying Equipment")
OWN_SCHEME = "99SEGFW"  # of codes that segfw alone knows: names of accounts
CODE_LENGTH = 16
TEXT_LENGTH = 1024
NO_INSTITUTION = "not stated"


def state_approval(dataset: Dataset, mask: FinishedMask) -> None:
    """RTSTRUCT: whether the structures are approved, and by whom and when."""
    signature = mask.statement.signature
    if signature is None:
        dataset.ApprovalStatus = "UNAPPROVED"
        return
    signed = local_time(signature.utc)
    dataset.ApprovalStatus = "APPROVED"
    dataset.ReviewDate = signed.strftime("%Y%m%d")
    dataset.ReviewTime = signed.strftime("%H%M%S")
    dataset.ReviewerName = person_name(signature.name)


def state_creator(dataset: Dataset, mask: FinishedMask, series: ReferenceSeries) -> None:
    """DICOM SEG: who answers for the content. The account has a place only beside an institution."""
    from pydicom.dataset import Dataset

    signature = mask.statement.signature
    if signature is None:
        return
    dataset.ContentCreatorName = person_name(signature.name)
    person = Dataset()
    person.PersonIdentificationCodeSequence = [
        code_item((OWN_SCHEME, dicom_text(signature.user, CODE_LENGTH), signature.text))
    ]
    person.InstitutionName = institution_of(series)
    dataset.ContentCreatorIdentificationCodeSequence = [person]


def state_verification(dataset: Dataset, mask: FinishedMask, series: ReferenceSeries) -> None:
    """DICOM SR: who verified the report, and when."""
    from pydicom.dataset import Dataset

    signature = mask.statement.signature
    if signature is None:
        return
    observer = Dataset()
    observer.VerifyingObserverName = person_name(signature.name)
    observer.VerifyingObserverIdentificationCodeSequence = []
    observer.VerifyingOrganization = institution_of(series)
    observer.VerificationDateTime = local_time(signature.utc).strftime("%Y%m%d%H%M%S")
    dataset.VerificationFlag = "VERIFIED"
    dataset.VerifyingObserverSequence = [observer]


def add_evidence(dataset: Dataset, mask: FinishedMask) -> None:
    """All kinds: the version by its hash and the end of the review log, as equipment that contributed."""
    from pydicom.dataset import Dataset

    if not mask.statement.evidence:
        return
    signature = mask.statement.signature
    equipment = Dataset()
    equipment.Manufacturer = "segfw"
    equipment.ManufacturerModelName = "segfw review"
    equipment.SoftwareVersions = dicom_text(own_version())
    equipment.PurposeOfReferenceCodeSequence = [code_item(MODIFYING)]
    equipment.ContributionDescription = dicom_text(mask.statement.evidence, TEXT_LENGTH)
    if signature is not None:
        equipment.OperatorsName = person_name(signature.name)
        equipment.ContributionDateTime = local_time(signature.utc).strftime("%Y%m%d%H%M%S")
    dataset.ContributingEquipmentSequence = [*dataset.get("ContributingEquipmentSequence", ()), equipment]


def person_name(text: str) -> str:
    """A name as typed, as one component: which part is the family's is not guessed."""
    return dicom_text(" ".join(text.replace("^", " ").replace("=", " ").split()))


def institution_of(series: ReferenceSeries) -> str:
    """Where the series was made, as its header says."""
    return dicom_text(str(series.first.get("InstitutionName") or "")) or NO_INSTITUTION


def local_time(utc: str) -> datetime:
    """The time on this computer's clock, which DICOM takes where no other zone is given."""
    return datetime.fromisoformat(utc).astimezone()

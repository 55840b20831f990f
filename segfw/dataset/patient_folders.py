"""One folder a patient, with images and a mask in it, or with a folder for each visit that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count, with_folder
from segfw.dataset.cases import Finding, FoundDataset
from segfw.dataset.found_by_names import found_by_names
from segfw.dataset.image_files import image_files, inner_folders
from segfw.dataset.layout_words import MASKS_OF, is_image_name, is_mask_name, split_masks
from segfw.dataset.pairing import (
    SEPARATORS,
    ImageName,
    Pairing,
    common_channels,
    file_findings,
)
from segfw.dataset.patients import guess_groups
from segfw.images.dicom import holds_dicom
from segfw.images.formats import split_ending

SHOWN = 4  # candidates that a sentence names


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The files of one patient, or of one visit of a patient: images, masks and DICOM series."""

    patient: str
    visit: str  # '' where a patient has no folders for visits
    folder: Path
    files: tuple[Path, ...]

    @property
    def case(self) -> str:
        """The case that these files are."""
        return f"{self.patient}_{self.visit}" if self.visit else self.patient

    @property
    def masks(self) -> tuple[Path, ...]:
        """Files whose names hold a word for a mask, or that lie in a folder of such a name."""
        return tuple(path for path in self.files if self._is_mask(path))

    @property
    def images(self) -> tuple[Path, ...]:
        """All others."""
        return tuple(path for path in self.files if not self._is_mask(path))

    def channel_of(self, path: Path) -> str:
        """What a file's name says beside its patient and visit: 'T1' of P1/P1_T1.nii.gz; '' if nothing."""
        if path == self.folder:  # the slices of a DICOM series lie in the patient's folder itself
            return ""
        stem = split_ending(path)[0]
        for name in (self.case, self.patient, self.visit):
            if name and stem.lower().startswith(name.lower()):
                stem = stem[len(name) :].lstrip(SEPARATORS)
        return stem.strip(SEPARATORS)

    def _is_mask(self, path: Path) -> bool:
        if path == self.folder:
            return False
        folders = path.relative_to(self.folder).parts[:-1]
        return is_mask_name(self.channel_of(path)) or any(is_mask_name(name) for name in folders)


def find_patient_folders(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set of one folder a patient; None unless one of the folders holds an image and a mask.

    Raises UserError if most of the folders hold several files that could be the mask.
    """
    visits, findings = visits_in(raw)
    if not any(visit.masks and visit.images for visit in visits):
        return None
    _require_one_mask(raw, visits)
    require_distinct(raw, visits)
    pairing, several = _pairing(visits)
    expected = common_channels(pairing)
    if len(expected) == 1:  # then it does not matter how a file is called that is the only one
        pairing = _without_names_of_single_images(pairing, expected[0])
    told = {finding.case for finding in several}
    left_over = [f for f in file_findings(pairing, [], expected) if not (f.kind == "missing-mask" and f.case in told)]
    beside = [_beside(path) for path in _files_beside(raw, visits)]
    return found_by_names(
        raw,
        description,
        "patient folders",
        pairing,
        expected,
        findings=(*left_over, *findings, *several, *beside),
        written=_as_written(visits),
        patient_of=_patients(visits),
    )


def _patients(visits: Sequence[Visit]) -> dict[str, str]:
    """Patient of each case: the folder, and where the folders' names clearly tell it (P1_left and P1_right) several."""
    guessed = guess_groups([visit.patient for visit in visits])
    return {visit.case: guessed[visit.patient] for visit in visits}


def visits_in(raw: Path) -> tuple[list[Visit], list[Finding]]:
    """What each folder in ``raw`` holds, and a finding for those that hold nothing, or something beside visits."""
    visits: list[Visit] = []
    findings: list[Finding] = []
    for folder in inner_folders(raw):
        found, left_over = _visits_of(folder)
        visits += found
        findings += [_not_used(folder, path) for path in left_over]
        if not found:
            findings.append(
                Finding(
                    kind="empty-folder",
                    severity="warning",
                    case=folder.name,
                    what="the folder holds no image and is not used",
                    remedy="put the patient's image and mask there, or move it away",
                )
            )
    return visits, findings


def _visits_of(folder: Path) -> tuple[list[Visit], list[Path]]:
    """The visits of a patient, or the patient as one; and files that belong to none."""
    own = _files_of(folder)
    inner = {sub: _files_of(sub) for sub in inner_folders(folder) if sub not in own and not _is_part(sub)}
    inner = {sub: files for sub, files in inner.items() if files}
    patient = folder.name
    at_top = Visit(patient=patient, visit="", folder=folder, files=tuple(own))
    if not inner:
        return ([at_top] if own else []), []
    if at_top.masks and at_top.images:
        return [at_top], [path for files in inner.values() for path in files]
    if own and len(inner) == 1:  # a mask beside the folder of a study
        return [Visit(patient=patient, visit="", folder=folder, files=(*own, *next(iter(inner.values()))))], []
    return [Visit(patient=patient, visit=sub.name, folder=sub, files=tuple(files)) for sub, files in inner.items()], own


def _files_of(folder: Path) -> list[Path]:
    """Images and masks in a folder and in those inside it that are called image, mask or the like."""
    found = [folder] if holds_dicom(folder) else []
    found += image_files(folder)
    for part in inner_folders(folder):
        if part not in found and _is_part(part):
            found += image_files(part)
    return found


def _is_part(folder: Path) -> bool:
    """Whether a folder inside a patient's holds a part of the case, and is no visit."""
    return is_mask_name(folder.name) or is_image_name(folder.name)


def _pairing(visits: Sequence[Visit]) -> tuple[Pairing, list[Finding]]:
    """Images and masks by case; a finding, and no mask, for each case in which several could be meant."""
    images = []
    masks: dict[str, Path] = {}
    findings = []
    for visit in visits:
        images += [ImageName(visit.case, visit.channel_of(path).lower(), path) for path in visit.images]
        if len(visit.masks) == 1:
            masks[visit.case] = visit.masks[0]
        elif visit.masks:
            what = f"{_listing(visit)} could each be the mask"
            remedy = "keep one file there, with a value for each structure, and move the others away"
            findings.append(Finding(kind="several-masks", severity="error", case=visit.case, what=what, remedy=remedy))
    return Pairing(images, masks), findings


def _without_names_of_single_images(pairing: Pairing, channel: str) -> Pairing:
    alone = {case for case, number in Counter(image.case for image in pairing.images).items() if number == 1}
    images = [image._replace(channel=channel) if image.case in alone else image for image in pairing.images]
    return Pairing(images, pairing.masks)


def _as_written(visits: Sequence[Visit]) -> dict[str, str]:
    """Names of channels by their small letters, as most files have them."""
    names = Counter(visit.channel_of(path) for visit in visits for path in visit.images)
    return {name.lower(): name for name, _ in reversed(names.most_common())}


def _require_one_mask(raw: Path, visits: Sequence[Visit]) -> None:
    several = [visit for visit in visits if len(visit.masks) > 1]
    if 2 * len(several) > sum(bool(visit.masks) for visit in visits):
        where = several[0].folder.relative_to(raw).as_posix()
        others = f" (and so in {count(len(several) - 1, 'other folder')})" if len(several) > 1 else ""
        remedy = (
            "keep one file a case, with a value for each structure (one file a structure is not read: join them), "
            "and move the others away"
        )
        if len(several[0].masks) == len(several[0].images):  # a folder of many cases
            remedy += f"; or give the folder {raw / where} itself, if each image there has one of these masks"
        raise UserError(f"{raw}: in {where}/ {_listing(several[0])} could each be the mask{others}; {remedy}")


def _listing(visit: Visit) -> str:
    names = [path.relative_to(visit.folder).as_posix() for path in visit.masks]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def require_distinct(raw: Path, visits: Sequence[Visit]) -> None:
    """UserError if two folders would be one case."""
    first: dict[str, Visit] = {}
    for visit in visits:
        other = first.setdefault(visit.case, visit)
        if other is not visit:
            names = " and ".join(found.folder.relative_to(raw).as_posix() for found in (other, visit))
            raise UserError(f"{raw}: the folders {names} would both be the case {visit.case}; rename one of them")


def _files_beside(raw: Path, visits: Sequence[Visit]) -> list[Path]:
    """Images beside the patients' folders; UserError if they look like a data set of their own."""
    files = [path for path in image_files(raw) if path not in {visit.folder for visit in visits}]
    images, masks = split_masks(files)
    if images and masks:
        what = f"holds folders with images and masks, such as {visits[0].folder.relative_to(raw).as_posix()}, and"
        raise UserError(
            f"{raw}: {what} beside them {images[0].name} and {masks[0].name}; which of both is the data set is not "
            "guessed: move the others away"
        )
    return files


def _not_used(folder: Path, path: Path) -> Finding:
    return Finding(
        kind="not-used",
        severity="warning",
        case=folder.name,
        file=path.relative_to(folder.parent).as_posix(),
        what="belongs to no image with a mask beside it and is not used",
        remedy="move it to the image and mask that it belongs to, or away",
    )


def _beside(path: Path) -> Finding:
    return Finding(
        kind="not-used",
        severity="warning",
        file=with_folder(path),
        what="lies beside the patients' folders and is not used",
        remedy=f"move it away; images and masks ({MASKS_OF} in the name) lie in a folder of each patient",
    )

"""BIDS: sub-01[/ses-02]/anat/*_T1w.nii.gz, with masks under derivatives/ or beside the images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Channel, Finding, FoundDataset
from segfw.dataset.image_files import image_files, inner_folders
from segfw.dataset.layout_words import is_mask_name
from segfw.dataset.pairing import ImageName, Pairing, cases_of, common_channels, file_findings
from segfw.images.formats import split_ending

DERIVATIVES = "derivatives"
OF_WHICH_IMAGE = ("task", "acq", "ce", "rec", "dir", "run", "echo", "part", "mod", "sample", "trc", "inv")
# Of what kind a mask is, and no image: two masks that differ in these are two opinions or two tasks.
OF_WHICH_KIND = ("label", "desc", "space", "res", "den", "atlas", "seg", "hemi", "cohort")
# Entities as a name of BIDS has them, and what kind of image it is.
WHOLE_NAME = re.compile(r"(sub-[a-zA-Z0-9]+)((?:_[a-z]+-[a-zA-Z0-9]+)*?)(?:_[a-zA-Z0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class BidsName:
    """What the name of a file says: key-value pairs such as sub-01 and acq-high, and what is left, as T1w or dseg."""

    path: Path
    session: str  # sub-01 or sub-01_ses-02
    entities: dict[str, str]
    suffix: str  # with parts that are no pairs, as in T2w_seg
    pipeline: str  # its folder under derivatives, '' among the images

    @property
    def is_mask(self) -> bool:
        """Whether the suffix, or label- in the name, says that this is a mask."""
        return is_mask_name(self.suffix) or ("label" in self.entities and bool(self.pipeline))

    @property
    def kind(self) -> str:
        """What sets a mask apart from other masks of the same image, as a name."""
        pairs = [f"{key}-{self.entities[key]}" for key in self.entities if key in OF_WHICH_KIND]
        words = [part for part in self.suffix.split("_") if is_mask_name(part)]
        folder = f"{DERIVATIVES}/{self.pipeline}/" if self.pipeline else ""
        return f"{folder}*_{'_'.join([*pairs, *words])}"

    @property
    def contrast(self) -> str:
        """Of a mask, the image's suffix that its name holds (T2w of T2w_dseg); of an image, its suffix."""
        return "_".join(part for part in self.suffix.split("_") if not is_mask_name(part))

    @property
    def image_pairs(self) -> tuple[str, ...]:
        """Pairs that say of which of several images of a session this is."""
        return tuple(f"{key}-{self.entities[key]}" for key in OF_WHICH_IMAGE if key in self.entities)


def find_bids(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set in BIDS; None without folders sub-* or without a mask for any of their images.

    Raises UserError if a session has masks of several kinds, as from several derivatives.
    """
    subjects = [folder for folder in inner_folders(raw) if folder.name.startswith("sub-")]
    if not subjects:
        return None
    own = [name for folder in subjects for name in _names_in(folder, "")]
    masks = [name for name in own if name.is_mask]
    for folder, pipeline in _derivatives(raw):
        masks += [name for name in _names_in(folder, pipeline) if name.is_mask]
    images = [name for name in own if not name.is_mask]
    if not masks or not images:
        return None
    _require_one_kind(raw, masks)
    pairing, patient_of, findings = _pairing(images, masks)
    expected = common_channels(pairing)
    if len(expected) == 1:
        pairing = Pairing([image._replace(channel=expected[0]) for image in pairing.images], pairing.masks)
    several = [channel for channel in expected if channel]
    channels = tuple(Channel(name=name) for name in several) if len(expected) > 1 else None
    notes = [f"channels by file name: {', '.join(several)}"] if channels else []
    notes.append(f"masks: {masks[0].kind}; folds keep all sessions of a participant together")
    return FoundDataset(
        name=str((description or {}).get("name", raw.resolve().name)),
        root=raw,
        layout="bids",
        channels=channels,
        labels=None,
        cases=cases_of(pairing),
        findings=(*file_findings(pairing, [], expected), *findings),
        notes=tuple(notes),
        patient_of=patient_of,
    )


def images_by_session(raw: Path) -> dict[str, list[Path]]:
    """The images, without masks, of every session of every subject."""
    found: dict[str, list[Path]] = {}
    for subject in inner_folders(raw):
        for name in _names_in(subject, "") if subject.name.startswith("sub-") else []:
            if not name.is_mask:
                found.setdefault(name.session, []).append(name.path)
    return found


def masks_by_session(folder: Path) -> dict[str, Path]:
    """The masks of a tree of derivatives that holds no images, by session, and by what sets apart several of one.

    Nothing of a folder that is no such tree. Raises UserError if a session has masks of several kinds.
    """
    subjects = [subject for subject in inner_folders(folder) if subject.name.startswith("sub-")]
    masks = [name for subject in subjects for name in _names_in(subject, folder.name) if name.is_mask]
    _require_one_kind(folder, masks)
    number_of = Counter(mask.session for mask in masks)
    return {_case_of(mask, is_alone=number_of[mask.session] == 1): mask.path for mask in masks}


def as_entities(name: str) -> tuple[str, list[str]]:
    """('sub-01', ['ses-2', 'acq-low']) of 'sub-01_ses-2_acq-low_T1w', without what it is; of other names a subject
    alone, of their letters and digits.
    """
    match = WHOLE_NAME.fullmatch(name)
    if match:
        kept = [part for part in match[2].split("_") if part and not part.startswith("desc-")]
        return match[1], kept
    return "sub-" + re.sub("[^a-zA-Z0-9]", "", name), []


def called_alike(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Of ``names`` those that are called like one of ``others`` in BIDS, and which: {'p_1': 'sub-p1'}.

    One of the two is a name of BIDS already, and no third one is called so.
    """
    by_entities: dict[tuple[str, ...], list[list[str]]] = {}
    for side, each in enumerate((names, others)):
        for name in each:
            subject, entities = as_entities(name)
            by_entities.setdefault((subject, *entities), [[], []])[side].append(name)
    return {
        found[0]: other[0]
        for found, other in by_entities.values()
        if len(found) == len(other) == 1 and any(name.startswith("sub-") for name in (found[0], other[0]))
    }


def lookup_tables(raw: Path) -> list[Path]:
    """Tables *dseg.tsv that say what the values in masks mean: at the top of the data set or of its derivatives, else
    beside the masks, if all there say the same.
    """
    derivatives = raw / DERIVATIVES
    folders = [raw, derivatives, *(inner_folders(derivatives) if derivatives.is_dir() else [])]
    at_top = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*dseg.tsv"))]
    return at_top or _tables_beside_masks(raw)


def _tables_beside_masks(raw: Path) -> list[Path]:
    """One of them, if all say the same; else none, because each holds for its own mask alone."""
    subjects = [folder for folder in (inner_folders(raw) if raw.is_dir() else []) if folder.name.startswith("sub-")]
    found: dict[bytes, Path] = {}
    for folder, pipeline in [*((folder, raw.name) for folder in subjects), *_derivatives(raw)]:
        for name in _names_in(folder, pipeline):
            table = name.path.with_name(f"{split_ending(name.path)[0]}.tsv")
            if name.is_mask and table.is_file():
                found.setdefault(table.read_bytes(), table)
    return list(found.values()) if len(found) == 1 else []


def _derivatives(raw: Path) -> list[tuple[Path, str]]:
    """Folders of subjects under derivatives/, each with the name of its pipeline."""
    top = raw / DERIVATIVES
    found = []
    for pipeline in inner_folders(top) if top.is_dir() else []:
        if pipeline.name.startswith("sub-"):
            found.append((pipeline, "."))
        found += [(folder, pipeline.name) for folder in inner_folders(pipeline) if folder.name.startswith("sub-")]
    return found


def _names_in(subject: Path, pipeline: str) -> list[BidsName]:
    """All images and masks of a subject: sub-01/anat/..., sub-01/ses-02/anat/..., or right in these folders."""
    sessions = [folder for folder in inner_folders(subject) if folder.name.startswith("ses-")]
    found = []
    for session in (subject, *sessions):
        key = subject.name if session == subject else f"{subject.name}_{session.name}"
        kinds = [folder for folder in inner_folders(session) if folder not in sessions]
        for folder in (session, *kinds):
            found += [_name_of(path, key, pipeline) for path in image_files(folder)]
    return found


def _name_of(path: Path, session: str, pipeline: str) -> BidsName:
    entities: dict[str, str] = {}
    rest = []
    for part in split_ending(path)[0].split("_"):
        match = re.fullmatch(r"([a-z]+)-([A-Za-z0-9+]+)", part)
        if match is None or match[1] not in ("sub", "ses", *OF_WHICH_IMAGE, *OF_WHICH_KIND):
            rest.append(part)
        else:
            entities[match[1]] = match[2]
            if match[1] == "seg":  # T2w_seg-manual: what it is, and not of which image
                rest.append("seg")
    return BidsName(path=path, session=session, entities=entities, suffix="_".join(rest), pipeline=pipeline)


def _require_one_kind(raw: Path, masks: Sequence[BidsName]) -> None:
    kinds_of: dict[tuple[str, tuple[str, ...], str], set[str]] = {}
    for mask in masks:
        kinds_of.setdefault((mask.session, mask.image_pairs, mask.contrast), set()).add(mask.kind)
    if all(len(kinds) == 1 for kinds in kinds_of.values()):
        return
    number_of = Counter(mask.kind for mask in masks)
    listed = ", ".join(f"{kind} ({count(number, 'file')})" for kind, number in number_of.most_common())
    remedy = "which of them to learn is not guessed: move all but one kind out of the data set"
    raise UserError(f"{raw}: holds masks of {len(number_of)} kinds: {listed}; {remedy}")


def _pairing(images: Sequence[BidsName], masks: Sequence[BidsName]) -> tuple[Pairing, dict[str, str], list[Finding]]:
    """Every mask is a case, with the images of its session that its name does not rule out."""
    of_session: dict[str, list[BidsName]] = {}
    for mask in masks:
        of_session.setdefault(mask.session, []).append(mask)
    named: list[ImageName] = []
    mask_of: dict[str, Path] = {}
    patient_of: dict[str, str] = {}
    findings: list[Finding] = []
    for session in sorted({name.session for name in (*images, *masks)}):
        there = [image for image in images if image.session == session]
        for mask in of_session.get(session, []):
            case = _case_of(mask, is_alone=len(of_session[session]) == 1)
            patient_of[case] = session.split("_")[0]
            mask_of[case] = mask.path
            fitting = _fitting(mask, there)
            twice = [name for name, number in Counter(image.contrast for image in fitting).items() if number > 1]
            if twice:
                findings.append(_several_images(case, [image for image in fitting if image.contrast == twice[0]]))
                del mask_of[case]
            named += [ImageName(case, image.contrast, image.path) for image in fitting if image.contrast not in twice]
        if session not in of_session:
            patient_of[session] = session.split("_")[0]
            named += [ImageName(session, image.contrast, image.path) for image in there]
    told = {finding.case for finding in findings}
    return Pairing([image for image in named if image.case not in told], mask_of), patient_of, findings


def _case_of(mask: BidsName, *, is_alone: bool) -> str:
    """The session, and of one with several masks what sets this one apart."""
    if is_alone:
        return mask.session
    return "_".join(part for part in (mask.session, *mask.image_pairs, mask.contrast) if part)


def _fitting(mask: BidsName, images: Sequence[BidsName]) -> list[BidsName]:
    """Images that a mask can belong to: of its suffix and pairs where it names such, else of its own folder's name."""
    fitting = [
        image
        for image in images
        if mask.contrast in ("", image.contrast)
        and all(mask.entities.get(key, image.entities.get(key)) == image.entities.get(key) for key in OF_WHICH_IMAGE)
    ]
    if mask.contrast:
        return fitting
    kin = [image for image in fitting if image.path.parent.name == mask.path.parent.name]
    return kin or fitting


def _several_images(case: str, images: Sequence[BidsName]) -> Finding:
    names = " and ".join(image.path.name for image in images)
    return Finding(
        kind="several-images",
        severity="error",
        case=case,
        what=f"{names} could each be the image of the mask",
        remedy="name in the mask which one it is (such as run-1), or move the others away",
    )

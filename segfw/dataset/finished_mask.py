"""A mask that is ready to be written, what is said of it in the file, and what a format of masks can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from segfw.dataset.labels import LabelSet
from segfw.images.formats import PLAIN_MASK, write_labels
from segfw.images.geometry import Geometry

DRAFT = "DRAFT, not reviewed"
AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]  # the words of DICOM for who drew
Progress = Literal["notstarted", "inprogress", "completed"]  # the words of 3D Slicer for how far a review is
SHOWN_OF_A_HASH = 12
# Of a mask per byte of the image's file; a guess, on the safe side for compressed images and masks of few labels.
MASK_SHARE = 0.05
PLAIN_MASK_SHARE = 1.0  # of one that is not compressed


@dataclass(frozen=True, kw_only=True)
class MaskMaker:
    """What made a mask: ``name`` as 'segfw 3d_fullres', and the digest of its model, which tells versions apart."""

    name: str = "segfw"
    digest: str = ""

    @property
    def text(self) -> str:
        """'segfw 3d_fullres, model 0123abcd'."""
        return f"{self.name}, model {self.digest[:8]}" if self.digest else self.name


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who signed a mask, as that person typed it, and what the signature means.

    ``user`` is the account, ``identity`` how it is known (declared, os or pin), ``utc`` the time in ISO 8601.
    """

    name: str
    user: str
    identity: str
    meaning: str
    utc: str

    @property
    def text(self) -> str:
        """Such as 'signed by Ada King (user aking, declared) for review at 2026-03-01T10:00:00Z'."""
        return f"signed by {self.name} (user {self.user}, {self.identity}) for {self.meaning} at {self.utc}"


@dataclass(frozen=True, kw_only=True)
class ReviewedVersion:
    """Which version of a mask it is (0 is the model's draft), and where the review log ended when it was written."""

    number: int
    sha256: str
    log_events: int
    log_sha256: str

    @property
    def text(self) -> str:
        """Such as 'version 3, sha256 0123...; review log of 57 events, its last sha256 4567...'."""
        log = f"review log of {self.log_events} events, its last sha256 {self.log_sha256}"
        return f"version {self.number}, sha256 {self.sha256}; {log}"


@dataclass(frozen=True, kw_only=True)
class MaskStatement:
    """What a file says of who stands for its mask. By default a model made it, and nobody has looked at it.

    ``title`` is said first everywhere, ``word`` where there is room for 16 capital letters. ``drawn_by`` says of each
    structure how it came about; one that it does not name is the model's own.
    """

    title: str = DRAFT
    word: str = "DRAFT"
    progress: Progress = "notstarted"
    signature: Signature | None = None
    version: ReviewedVersion | None = None
    drawn_by: Mapping[str, AlgorithmType] = field(default_factory=dict)

    def algorithm_type(self, structure: str) -> AlgorithmType:
        """Whether a model, a person or both drew a structure."""
        return self.drawn_by.get(structure, "AUTOMATIC")

    @property
    def short(self) -> str:
        """The title, and the version by the beginning of its hash: for headers with little room."""
        if self.version is None:
            return self.title
        return f"{self.title}; v{self.version.number} {self.version.sha256[:SHOWN_OF_A_HASH]}"

    @property
    def evidence(self) -> str:
        """Signature, version and log in one text; '' of what was never under review."""
        signed = "" if self.signature is None else self.signature.text
        version = "" if self.version is None else self.version.text
        return "; ".join(filter(None, (signed, version)))


@dataclass(frozen=True, kw_only=True)
class FinishedMask:
    """Values (Z, Y, X) on the grid of the image, and all that a file of them may say.

    ``image`` is the first of the image's files, a folder of a DICOM series, or None if none is at hand. ``only`` are
    the structures that were looked for alone; empty if all were.
    """

    case_id: str
    values_zyx: np.ndarray
    geometry: Geometry
    labels: LabelSet
    maker: MaskMaker
    image: Path | None = None
    only: tuple[str, ...] = ()
    statement: MaskStatement = MaskStatement()

    @property
    def said(self) -> str:
        """What a header has room for: whose mask it is, and what made it."""
        return f"{self.statement.short}; {self.maker.text}"

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """The values that each structure has in the mask, by its name, in the order of the labels."""
        stored = self.labels.stored_values
        found = {name: tuple(stored[index] for index in classes) for name, classes in self.labels.structures.items()}
        return {name: values for name, values in found.items() if not self.only or name in self.only}


class MaskFormat(Protocol):
    """A format that masks are written in. It may be sent to another machine."""

    @property
    def bytes_per_image_byte(self) -> float:
        """About how large its files are, for each byte of the image's."""

    def files(self, case_id: str) -> tuple[str, ...]:
        """The files of a case, from the folder of the masks; the last of them is written last."""

    def require_kind(self, case_id: str, image: Path | None) -> None:
        """UserError if a mask of such an image cannot be written so, as far as its name and the machine tell."""

    def require(self, case_id: str, image: Path | None) -> None:
        """The same by all that is known before there is a mask, for which headers may be read."""

    def write(self, folder: Path, mask: FinishedMask) -> None:
        """Writes the files of a case; UserError, and none of them is left, if they do not hold what the mask does."""

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        """Writes what belongs to the folder and not to a case."""


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """A file in a format of images, ``CASE.nii.gz``."""

    ending: str = PLAIN_MASK

    @property
    def bytes_per_image_byte(self) -> float:
        return MASK_SHARE if self.ending.endswith(".gz") else PLAIN_MASK_SHARE

    def files(self, case_id: str) -> tuple[str, ...]:
        return (f"{case_id}{self.ending}",)

    def require_kind(self, case_id: str, image: Path | None) -> None:
        """Whether the grid fits into the format is known when the mask is written."""

    def require(self, case_id: str, image: Path | None) -> None:
        """The same."""

    def write(self, folder: Path, mask: FinishedMask) -> None:
        path = folder / f"{mask.case_id}{self.ending}"
        write_labels(path, mask.values_zyx, mask.geometry, mask.image, said=mask.said, is_checked=True)

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        """Nothing is beside the masks."""

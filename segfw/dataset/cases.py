"""What a data set consists of: its channels, labels and cases; and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from segfw.base.records import Record, StoredPath
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.images.formats import read_mask
from segfw.images.geometry import Shape
from segfw.images.named_mask import DrawnAs
from segfw.images.volume import Volume

Severity = Literal["error", "warning", "note"]

MANIFEST_FILE = "manifest.json"


class Channel(Record):
    """One input channel; the name (such as 'CT' or 'T1') decides its normalisation."""

    name: str


class Case(Record):
    """One patient or scan: its image files (one per channel, or one with all channels) and its mask, if any.

    ``annotated`` are the structures that somebody drew; None where that is all of them.
    """

    id: str
    images: tuple[StoredPath, ...]
    label: StoredPath | None = None
    label_map: LabelMap = ()  # what some values in this case's mask mean
    drawn_as: tuple[DrawnAs, ...] = ()  # what the structures become, where the mask has structures with names
    annotated: tuple[str, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests of masks without names, all of whose structures were drawn, are as before there were others."""
        content: dict[str, Any] = handler(self)
        if not content.get("drawn_as", True):
            del content["drawn_as"]
        if content.get("annotated", ()) is None:
            del content["annotated"]
        return content

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and mask."""
        return self.images if self.label is None else (*self.images, self.label)


class DatasetManifest(Record):
    """A verified data set. ``notes`` say in words what was inferred rather than read."""

    name: str
    root: StoredPath
    layout: str
    channels: tuple[Channel, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


class Finding(Record):
    """One thing that is wrong or odd: where, what, and what to do.

    ``kind`` is a short name that stays the same however the sentence is worded. With an 'error' training does not
    start, a 'warning' should be looked at, a 'note' is no alarm. ``case`` is '' for the data set, ``others`` are
    further cases involved, ``place`` is a voxel (z, y, x) in canonical orientation. What is ``fixable`` the check can
    repair in a copy of the data.
    """

    kind: str
    severity: Severity
    what: str
    remedy: str
    case: str = ""
    others: tuple[str, ...] = ()
    file: str = ""
    fixable: bool = False
    labels: tuple[int, ...] = ()
    place: Shape | None = None

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.case, self.file) if part)
        return f"{where + ': ' if where else ''}{self.what}; {self.remedy}"

    @property
    def full_sentence(self) -> str:
        """As text, which says so where the finding keeps nothing from starting."""
        return str(self) if self.severity == "error" else f"{self.severity}: {self}"


def has_errors(findings: Iterable[Finding]) -> bool:
    """True if any of the findings keeps training from starting."""
    return any(finding.severity == "error" for finding in findings)


@dataclass(frozen=True, kw_only=True)
class FoundDataset:
    """A data set as its folder and dataset.json describe it; no image has been opened yet.

    ``channels`` and ``labels`` are None where only the files themselves can tell. ``patient_of`` is the patient of each
    case where the folders say so, else empty; ``labels_source`` the file that names the labels, of which those that no
    mask holds are left out if they ``labels_may_be_absent``. ``structure_names`` are those in DICOM masks, with the
    number of cases that each is in.
    """

    name: str
    root: Path
    layout: str
    channels: tuple[Channel, ...] | None
    labels: LabelSet | None
    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    patient_of: Mapping[str, str] = field(default_factory=dict)
    labels_source: str = "dataset.json"
    labels_may_be_absent: bool = False
    structure_names: Mapping[str, int] = field(default_factory=dict)

    @property
    def paired(self) -> str:
        """How files were put together, by the first case: 'P1: P1/t1.nii.gz + P1/t2.nii.gz -> P1/seg.nii.gz'."""
        if not self.cases:
            return ""
        case = self.cases[0]
        images = " + ".join(self._shown(path) for path in case.images)
        return f"{case.id}: {images}" + ("" if case.label is None else f" -> {self._shown(case.label)}")

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def read_label(case: Case, image: Volume | None) -> Volume:
    """The mask of a case as stored; one whose structures have names on the grid of the ``image``."""
    if case.label is None:
        raise ValueError(f"{case.id} has no mask")
    return read_mask(case.label, image, case.drawn_as or None)


def with_absolute_paths(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The same cases for a worker of a cluster, which is in a folder of its own."""
    absolute = []
    for case in cases:
        images = tuple(path.absolute() for path in case.images)
        absolute.append(case.model_copy(update={"images": images, "label": case.label and case.label.absolute()}))
    return tuple(absolute)

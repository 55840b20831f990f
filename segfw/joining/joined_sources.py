"""The data sets that are joined, each read and verified once: what it is called, its labels, channels and cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.records import NAME, UserError
from segfw.base.words import listed
from segfw.checkup.signature import signature
from segfw.dataset.cases import Case, DatasetManifest, FoundDataset, has_errors
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.images.volume import Volume, to_canonical
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.fingerprint import DataProblems, complete, scan_cases


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set to be joined, of which nothing was read but its description."""

    name: str
    found: FoundDataset
    labels: LabelSet

    def id_of(self, case: Case) -> str:
        """What a case is called in the joined data set."""
        return f"{self.name}_{case.id}"


@dataclass(frozen=True, kw_only=True)
class ReadSource:
    """A source whose files were read: its figures, and by case the digest and the signature of its image."""

    source: Source
    manifest: DatasetManifest
    measures: Mapping[str, CaseMeasure]
    digests: Mapping[str, bytes]
    signatures: Mapping[str, np.ndarray]

    @property
    def patient_of(self) -> dict[str, str]:
        """The patient of each case, as its own folders or ids tell."""
        return read_groups(None, [case.id for case in self.manifest.cases], self.source.found.patient_of)

    def sizes_ml(self, label: str) -> list[float]:
        """Volumes of a label in the cases that have it; none of pictures, which have no millimetres."""
        labels = self.source.labels
        value = str(labels.values[labels.names.index(label)])
        found = []
        for measure in self.measures.values():
            voxels = measure.label_voxels.get(value, 0)
            if voxels and not measure.in_pixels:
                found.append(voxels * float(np.prod(measure.spacing_mm)) / 1000)
        return found


def find_sources(raws: Sequence[Path], called: Sequence[str]) -> list[Source]:
    """The data sets in the folders; UserError for what cannot be joined, before any image is read."""
    if len(raws) < 2:
        raise UserError(f"{', '.join(map(str, raws)) or 'nothing'}: give two data sets or more to join")
    if called and len(called) != len(raws):
        raise UserError(f"--called gives {len(called)} names for {len(raws)} data sets; give one for each")
    names = list(called) or [re.sub(r"[^A-Za-z0-9_.-]+", "-", raw.resolve().name) for raw in raws]
    _require_names(names)
    return [_find_source(raw, name) for raw, name in zip(raws, names)]


def _require_names(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if not re.fullmatch(NAME, name):
            raise UserError(f"--called {name!r}: becomes a part of cases' ids; give letters, digits, _, - and .")
        for other in (*names[:index], *names[index + 1 :]):
            if f"{other}_".startswith(f"{name}_"):
                raise UserError(
                    f"{name!r} and {other!r} cannot stand before cases' ids, for one begins like the other; name the "
                    "data sets otherwise with --called"
                )


def _find_source(raw: Path, name: str) -> Source:
    found = find_dataset(raw)
    if found.labels is None:
        raise UserError(
            f"{raw}: nothing names its labels, so that they cannot be matched; add labels.csv or dataset.json"
        )
    if found.labels.regions:
        regions = listed([region.name for region in found.labels.regions], "and")
        raise UserError(f"{raw}: has regions ({regions}), and labels alone can be joined; list its labels one by one")
    drawn = next((case for case in found.cases if case.drawn_as), None)
    if drawn is not None:
        raise UserError(
            f"{drawn.label}: is a mask whose structures have names (DICOM, Slicer); store such masks as NIfTI first"
        )
    return Source(name=name, found=found, labels=found.labels)


def read_source(source: Source, workers: int | None = None) -> ReadSource:
    """Reads every case once; raises DataProblems with all that is wrong with any of them."""
    signatures: dict[str, np.ndarray] = {}

    def also(case: Case, image: Volume, mask: Volume) -> None:
        signatures[case.id] = signature(to_canonical(image).array)

    scans, findings = scan_cases(source.found, workers=workers, also=also)
    if has_errors(findings):
        raise DataProblems(source.found, findings)
    manifest, fingerprint = complete(source.found, scans, findings)
    return ReadSource(
        source=source,
        manifest=manifest,
        measures={measure.id: measure for measure in fingerprint.cases},
        digests={case.id: scan.image_digest for case, scan in zip(source.found.cases, scans)},
        signatures=signatures,
    )


def require_same_channels(sources: Sequence[ReadSource]) -> None:
    """UserError if two sources have other channels: one network cannot see both."""
    first = sources[0]
    expected = [channel.name.casefold() for channel in first.manifest.channels]
    for other in sources[1:]:
        if [channel.name.casefold() for channel in other.manifest.channels] != expected:
            said = [
                f"{each.source.name} has {', '.join(channel.name for channel in each.manifest.channels)}"
                for each in (first, other)
            ]
            raise UserError(
                f"the data sets have different channels: {listed(said, 'and')}; join what was scanned alike, or name "
                "them alike in dataset.json"
            )

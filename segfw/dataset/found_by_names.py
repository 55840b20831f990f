"""A data set that was put together by its files' names, with what a dataset.json beside them may say of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segfw.dataset.cases import Channel, Finding, FoundDataset
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, labels_of
from segfw.dataset.pairing import Pairing, cases_of, channel_names


def found_by_names(
    raw: Path,
    description: dict | None,
    layout: str,
    pairing: Pairing,
    expected: Sequence[str],
    *,
    findings: Iterable[Finding],
    written: Mapping[str, str] | None = None,
    patient_of: Mapping[str, str] | None = None,
) -> FoundDataset:
    """The data set of a ``pairing``, whose cases should have the channels ``expected``.

    What ``description``, the content of a dataset.json, says of name, channels and labels counts; else several channels
    are called by the files' names, or as ``written`` has these.
    """
    described = description or {}
    path = raw / DESCRIPTION_FILE
    channels = channels_of(described, path) if {"channel_names", "modality"} & described.keys() else None
    notes = []
    if channels is None and len(expected) > 1:
        names = [(written or {}).get(name, name) for name in channel_names(expected)]
        channels = tuple(Channel(name=name) for name in names)
        notes.append(f"channels by file name: {', '.join(names)}")
    return FoundDataset(
        name=str(described.get("name", raw.resolve().name)),
        root=raw,
        layout=layout,
        channels=channels,
        labels=labels_of(described, path) if "labels" in described else None,
        cases=cases_of(pairing),
        findings=tuple(findings),
        notes=tuple(notes),
        patient_of=patient_of or {},
    )

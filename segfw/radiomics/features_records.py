"""What is kept of the features of a case."""

from __future__ import annotations

from segfw.base.case_files import TriedRecord
from segfw.base.records import Record
from segfw.measurements.structure_measures import Status

Row = tuple[float | None, ...]  # values in the order of the names of features


class StructureFeatures(Record):
    """One structure in one case. ``values`` are empty where it has none, and ``reason`` says why any are lacking.

    ``versions`` are the same features of changed images and masks, ``folds`` those of the masks of the model's folds.
    """

    structure: str
    status: Status
    reason: str = ""
    values: Row = ()
    versions: tuple[Row, ...] = ()
    folds: tuple[Row, ...] = ()


class CaseFeatures(TriedRecord):
    """All structures of a case, unless there is a problem. ``versions`` were asked for."""

    structures: tuple[StructureFeatures, ...] = ()
    versions: int = 0

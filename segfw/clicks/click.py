"""A click: a point of which a person says that it belongs to a structure, or that it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import StringConstraints

from segfw.base.errors import UserError
from segfw.base.records import Record

Point = tuple[float, float, float]


class Click(Record):
    """A point in RAS millimetres that lies ``inside`` the structure called ``label``, or outside of it."""

    label: Annotated[str, StringConstraints(min_length=1)]
    ras_mm: Point
    inside: bool = True


class AsksFirst(UserError):
    """A click would take its voxel from ``others``: whoever clicked has to say that this is meant."""

    def __init__(self, message: str, others: Sequence[str]) -> None:
        super().__init__(message)
        self.others = tuple(others)

"""A click: a point of which a person says that it belongs to a structure, or that it does not."""

from __future__ import annotations

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
    """A click for one structure lies in ``other``, which is protected: whoever clicked says first whether it may be
    overwritten."""

    def __init__(self, message: str, other: str = "") -> None:
        super().__init__(message)
        self.other = other

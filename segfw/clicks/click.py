"""A click: a point of which a person says that it belongs to a structure, or that it does not."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import StringConstraints

from segfw.base.errors import UserError
from segfw.base.records import Record

Point = tuple[float, float, float]
EXAMPLE = '{"label": "liver", "ras_mm": [10.0, -4.5, 30.0], "inside": true}'


class Click(Record):
    """A point in RAS millimetres that lies ``inside`` the structure called ``label``, or outside of it."""

    REMEDY: ClassVar[str] = f"write each click as {EXAMPLE}"

    label: Annotated[str, StringConstraints(min_length=1)]
    ras_mm: Point
    inside: bool = True


def click_of(label: Any, ras_mm: Any, inside: Any, called: str = "the click") -> Click:
    """A click of what somebody gave as one; UserError, which names it as it is ``called``, if it is none."""
    if not isinstance(label, str) or not label:
        raise UserError(f"{called} is on {label!r}, which is no name of a structure; name a label or region")
    if not isinstance(inside, bool | np.bool_):
        raise UserError(f"{called} has inside {inside!r}; it is True or False")
    return Click(label=label, ras_mm=point_of(ras_mm, called), inside=bool(inside))


def point_of(ras_mm: Any, called: str = "the point") -> Point:
    """Three finite numbers of what somebody gave as a point; UserError, naming it as ``called``, if it is none."""
    try:
        numbers = [_number(each) for each in ras_mm]
    except (TypeError, ValueError, OverflowError):  # no sequence, or not of numbers that are as small as a float
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{called} lies at {reprlib.repr(ras_mm)}; give three finite numbers, RAS millimetres")
    x, y, z = numbers
    return x, y, z


def _number(value: Any) -> float:
    if isinstance(value, str | bytes | bool | np.bool_):
        raise TypeError(f"{value!r} is no number")
    return float(value)


class AsksFirst(UserError):
    """A click would take its voxel from ``others``: whoever clicked has to say that this is meant."""

    def __init__(self, message: str, others: Sequence[str]) -> None:
        super().__init__(message)
        self.others = tuple(others)

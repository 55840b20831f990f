"""What becomes of a voxel's value when the voxel joins or leaves a structure, and which others it leaves by that.

A label is one value. A region is several, and regions overlap: a voxel that joins the core of a tumour stays in the
whole of it, and one that leaves the core gets the value that the whole is painted as.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segfw.dataset.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class ValueEffects:
    """Of a structure: the values that are it, and by value what a voxel becomes when it joins or leaves.

    ``left_to_join`` and ``left_to_leave`` are the other structures that it leaves on the way: those whose protection
    stands against it.
    """

    name: str
    members: frozenset[int]
    joined: Mapping[int, int]
    left: Mapping[int, int]
    left_to_join: Mapping[int, tuple[str, ...]]
    left_to_leave: Mapping[int, tuple[str, ...]]

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Where the values are of the structure."""
        return np.isin(values, sorted(self.members))

    def becomes(self, value: int, *, joins: bool) -> int:
        """The value of a voxel that joins or leaves."""
        return (self.joined if joins else self.left)[value]

    def others_left(self, value: int, *, joins: bool) -> tuple[str, ...]:
        """The other structures that a voxel of this value leaves when it joins or leaves this one."""
        return (self.left_to_join if joins else self.left_to_leave)[value]


def effects_of(labels: LabelSet, name: str) -> ValueEffects:
    """The effects of a label or region, for every value that a mask of these labels may hold."""
    holding = structures_by_value(labels)
    joined = {value: _nearest(labels, holding, name, value, joins=True) for value in holding}
    left = {value: _nearest(labels, holding, name, value, joins=False) for value in holding}
    own = {name}
    return ValueEffects(
        name=name,
        members=frozenset(value for value, names in holding.items() if name in names),
        joined=joined,
        left=left,
        left_to_join={value: tuple(sorted(names - holding[joined[value]])) for value, names in holding.items()},
        left_to_leave={value: tuple(sorted(names - own - holding[left[value]])) for value, names in holding.items()},
    )


def structures_by_value(labels: LabelSet) -> dict[int, frozenset[str]]:
    """The labels or regions that each value is of; none for the background and what is not annotated."""
    stored = labels.stored_values
    holding: dict[int, frozenset[str]] = {value: frozenset() for value in stored}
    for name, classes in labels.structures.items():
        for index in classes:
            holding[stored[index]] |= {name}
    return holding


def foreground_values(labels: LabelSet) -> tuple[int, ...]:
    """The values of all labels, without the background and what is not annotated."""
    return labels.values[1:]


def _nearest(labels: LabelSet, holding: Mapping[int, frozenset[str]], name: str, value: int, *, joins: bool) -> int:
    """The value that changes least besides: its structures differ least from those of now, with or without ``name``."""
    if (name in holding[value]) == joins:
        return value
    wanted = holding[value] | {name} if joins else holding[value] - {name}
    painted = [region.painted for region in labels.regions]
    own = next((region.painted for region in labels.regions if region.name == name), None)
    candidates = [each for each in labels.values if (name in holding[each]) == joins]

    def unlikeness(each: int) -> tuple[int, bool, bool]:
        return len(wanted ^ holding[each]), joins and each != own, bool(painted) and each not in painted

    return min(candidates, key=unlikeness)

"""Which index of a bitmap stands for which label: a byte a voxel, in groups where there are more labels than that.

With up to 255 labels there is one group, and index 1 is the first label. With more, each group has up to 254 labels of
its own, and 255 is what other groups have drawn: the page shows it and does not change it, unless a person paints over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segfw.base.errors import UserError
from segfw.dataset.labels import LabelSet
from segfw.images.values import look_up

MOST_LABELS = 255  # of one group alone
LABELS_OF_GROUP = 254  # where there are several
OTHER_GROUP = 255


class WrongBitmap(UserError):
    """A bitmap that cannot be a mask of this case."""


@dataclass(frozen=True)
class PaletteLabel:
    """A label that can be drawn: ``index`` in the bitmap of its ``group``, ``value`` in files."""

    name: str
    value: int
    group: int
    index: int


@dataclass(frozen=True)
class LabelPalette:
    """All labels but the background, in the order of the label set; the ignore label comes last."""

    background: int
    labels: tuple[PaletteLabel, ...]

    @staticmethod
    def of(labels: LabelSet) -> LabelPalette:
        """The palette of a label set."""
        names = list(labels.names[1:])
        values = list(labels.values[1:])
        if labels.ignore is not None:
            names.append("ignore")
            values.append(labels.ignore)
        size = MOST_LABELS if len(values) <= MOST_LABELS else LABELS_OF_GROUP
        found = []
        for number, (name, value) in enumerate(zip(names, values)):
            found.append(PaletteLabel(name=name, value=value, group=number // size, index=number % size + 1))
        return LabelPalette(labels.values[0], tuple(found))

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return self.labels[-1].group + 1

    def of_group(self, group: int) -> tuple[PaletteLabel, ...]:
        """The labels of one group; UserError if there is none."""
        found = tuple(label for label in self.labels if label.group == group)
        if not found:
            raise UserError(f"group {group}: there are {self.groups}, from 0 on; ask for one of these")
        return found

    def to_indexes(self, values_zyx: np.ndarray, group: int = 0) -> np.ndarray:
        """The bitmap of a mask; UserError if it holds a value that is no label."""
        own = {label.value: label.index for label in self.of_group(group)}
        others = {label.value: OTHER_GROUP for label in self.labels if label.group != group}
        try:
            return look_up(values_zyx, {self.background: 0, **others, **own}, np.uint8)
        except ValueError as error:
            raise UserError(f"the mask holds a value that is no label ({error}); make it again") from None

    def to_values(self, indexes_zyx: np.ndarray, before_zyx: np.ndarray, group: int = 0) -> np.ndarray:
        """The mask of a bitmap that was drawn on the mask ``before_zyx``, whose labels of other groups stay.

        WrongBitmap if an index is no label, or says that another group has drawn where none has.
        """
        known = {0, *(label.index for label in self.of_group(group))}
        table = np.full(256, self.background, np.int32)
        for label in self.of_group(group):
            table[label.index] = label.value
        if self.groups > 1:
            known.add(OTHER_GROUP)
        present = np.flatnonzero(np.bincount(indexes_zyx.ravel(), minlength=256)).tolist()
        unknown = sorted(set(present) - known)
        if unknown:
            raise WrongBitmap(f"the bitmap holds the index {unknown[0]}, which is no structure; load the case again")
        values = table[indexes_zyx]
        if self.groups > 1:
            is_other = indexes_zyx == OTHER_GROUP
            values[is_other] = before_zyx[is_other]
            if (self.to_indexes(values[is_other], group) != OTHER_GROUP).any():
                raise WrongBitmap("the bitmap marks voxels as another group's which are not; load the case again")
        return values

"""What a data set consists of: its channels, labels and cases; and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import model_validator

from segfw.base.records import Record

LARGEST_TABLE = 65536  # values further apart than this are searched for instead of looked up
CHUNK_VOXELS = 1 << 20  # NumPy widens what it looks up to 8 bytes a voxel, which a whole CT cannot afford
LABELS_FILE = "labels.json"  # beside predicted masks: the LabelSet they were written with


class Channel(Record):
    """One input channel; the name (such as 'CT' or 'T1') decides its normalisation."""

    name: str


class Region(Record):
    """A structure that is the union of labels and may overlap others: the network finds each one by itself.

    ``painted`` is the value that a predicted mask gets where the region is found.
    """

    name: str
    values: tuple[int, ...]
    painted: int


class LabelSet(Record):
    """Names and file values of the labels; class 0 is the background. Masks hold ``values``, the network classes.

    Voxels of the value ``ignore`` count nowhere: their class, the last one, is stored but never learned or predicted.
    Without ``regions`` a voxel has one label (softmax). With them every region is found apart (sigmoid), and a mask
    is painted region by region, later ones over earlier ones.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignore: int | None = None
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> LabelSet:
        if len(self.names) != len(self.values) or len(self.names) < 2:
            raise ValueError("needs one value per name, and at least the background and one label")
        region_names = tuple(region.name for region in self.regions)
        for kind, items in (("names", self.names), ("values", self.values), ("names", region_names)):
            if len(set(items)) != len(items):
                raise ValueError(f"{kind} {items} are not distinct")
        for region in self.regions:
            self._check_region(region)
        if self.ignore in self.values:
            raise ValueError(f"the ignore label has value {self.ignore}, which is a label too")
        return self

    def _check_region(self, region: Region) -> None:
        if not region.values:
            raise ValueError(f"region {region.name!r} holds no label")
        if self.ignore in region.values:
            raise ValueError(f"region {region.name!r} holds the ignore label ({self.ignore})")
        if self.values[0] in region.values:
            raise ValueError(f"region {region.name!r} holds the background ({self.values[0]})")
        unknown = sorted(set(region.values) - set(self.values))
        if unknown:
            raise ValueError(f"region {region.name!r} holds {unknown[0]}, which is no label")
        if region.painted not in region.values:
            raise ValueError(
                f"region {region.name!r} is painted as {region.painted}, which is none of its labels {region.values}"
            )

    @property
    def stored_values(self) -> tuple[int, ...]:
        """File value of each class of a preprocessed mask: the labels, then the ignore label if there is one."""
        return self.values if self.ignore is None else (*self.values, self.ignore)

    @property
    def classes(self) -> int:
        """Number of classes of a preprocessed mask, background and ignore label included."""
        return len(self.stored_values)

    @property
    def ignored_class(self) -> int | None:
        """Class index of voxels that count nowhere."""
        return None if self.ignore is None else len(self.values)

    @property
    def outputs(self) -> int:
        """Channels of the network's output: one per label and the background, or one per region."""
        return len(self.regions) or len(self.values)

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...]:
        """Class indices that each region is the union of; empty without regions."""
        return tuple(tuple(self.values.index(value) for value in region.values) for region in self.regions)

    @property
    def painted_classes(self) -> tuple[int, ...]:
        """Class index that each region is painted as; empty without regions."""
        return tuple(self.values.index(region.painted) for region in self.regions)

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """What is learned and scored, by name: each region, or else each label, as the classes that it consists of."""
        if self.regions:
            return {region.name: classes for region, classes in zip(self.regions, self.region_classes)}
        return {name: (index,) for name, index in self.foreground.items()}

    @property
    def foreground(self) -> dict[str, int]:
        """Class index of each label except the background, by name."""
        return {name: index for index, name in enumerate(self.names) if index > 0}

    @property
    def explanation(self) -> tuple[str, ...]:
        """What regions and the ignore label mean, a sentence each without its full stop; nothing for plain labels."""
        sentences = []
        if self.regions:
            parts = (
                f"{region.name} = {' + '.join(map(str, region.values))} (painted as {region.painted})"
                for region in self.regions
            )
            sentences.append(f"Regions, which may overlap, painted in this order: {', '.join(parts)}")
        if self.ignore is not None:
            sentences.append(
                f"Voxels of value {self.ignore} are not annotated: they count neither in training nor in scores"
            )
        return tuple(sentences)

    def to_classes(self, mask: np.ndarray, label_map: LabelMap = ()) -> np.ndarray:
        """Class index of every voxel, uint8 or uint16; raises ValueError on a value that is no label.

        Values that ``label_map`` names are first taken for others. Needs little memory beside the result.
        """
        class_of = {value: index for index, value in enumerate(self.stored_values)}
        class_of |= {value: class_of[meaning] for value, meaning in label_map}
        result = np.empty(mask.shape, dtype=np.uint8 if self.classes <= 256 else np.uint16)
        flat_mask, flat_result = mask.reshape(-1), result.reshape(-1)
        for start in range(0, mask.size, CHUNK_VOXELS):
            part = slice(start, start + CHUNK_VOXELS)
            flat_result[part] = _look_up(flat_mask[part], class_of)
        return result

    def to_values(self, classes: np.ndarray) -> np.ndarray:
        """File value of every voxel: the inverse of ``to_classes``."""
        return np.asarray(self.stored_values, dtype=np.int32)[classes]


def _look_up(mask: np.ndarray, class_of: dict[int, int]) -> np.ndarray:
    """Class of each voxel; raises ValueError on a value without one."""
    values = np.asarray(sorted(class_of))
    classes = np.asarray([class_of[value] for value in values.tolist()])
    if values[-1] - values[0] < LARGEST_TABLE and mask.dtype.kind in "iub":
        table = np.full(values[-1] - values[0] + 1, -1, dtype=np.int32)
        table[values - values[0]] = classes
        place = mask.astype(np.int64) - values[0]
        found = table.take(place, mode="clip")
        is_known = found.min(initial=0) >= 0 and place.min(initial=0) >= 0 and place.max(initial=0) < len(table)
    else:
        place = np.searchsorted(values, mask).clip(0, len(values) - 1)
        found = classes[place]
        is_known = np.array_equal(values[place], mask)
    if not is_known:
        raise ValueError(f"mask holds values outside {values.tolist()}")
    return found


# File value -> the label value that it means in one case's mask. Applied in one step, so that values can be swapped.
LabelMap = tuple[tuple[int, int], ...]


def apply_map(mask: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """The mask with the meaning of each value in its place; the mask itself where nothing is mapped."""
    if not label_map:
        return mask
    result = mask.astype(np.int32)
    for value, meaning in label_map:
        result[mask == value] = meaning
    return result


class Case(Record):
    """One patient or scan: its image files (one per channel, or one with all channels) and its mask, if any."""

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_map: LabelMap = ()  # what some values in this case's mask mean


class DatasetManifest(Record):
    """A verified data set. ``notes`` say in words what was inferred rather than read."""

    name: str
    root: Path
    layout: str
    channels: tuple[Channel, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with the data: where, what, and what to do. Warnings do not stop the work.

    ``kind`` is a short name that stays the same however the sentence is worded; ``others`` are further cases involved.
    """

    kind: str
    case: str
    file: str
    what: str
    remedy: str
    is_warning: bool = False
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.case}: {self.file}" if self.file else self.case
        return f"{'warning: ' if self.is_warning else ''}{place}: {self.what}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class FoundDataset:
    """A data set as its folder and dataset.json describe it; no image has been opened yet.

    ``channels`` and ``labels`` are None where only the files themselves can tell.
    """

    name: str
    root: Path
    layout: str
    channels: tuple[Channel, ...] | None
    labels: LabelSet | None
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())

"""What the values in a mask mean: labels, regions that are unions of labels, and the voxels that count nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from segfw.base.records import Record
from segfw.images.values import CHUNK_VOXELS, count_values, look_up

LABELS_FILE = "labels.json"  # beside predicted masks: the LabelSet they were written with

# File value -> the label value that it means in one case's mask. Applied in one step, so that values can be swapped.
LabelMap = tuple[tuple[int, int], ...]


class Region(Record):
    """A structure that is the union of labels and may overlap others: the network finds each one by itself.

    ``painted`` is the value that a predicted mask gets where the region is found.
    """

    name: str
    values: tuple[int, ...]
    painted: int


class Code(Record):
    """What a terminology calls a structure, as DICOM writes it: SCT is SNOMED CT. ``side`` is 'left', 'right' or ''."""

    scheme: str
    code: str
    meaning: str
    side: str = ""


class LabelSet(Record):
    """Names and file values of the labels; class 0 is the background. Masks hold ``values``, the network classes.

    Voxels of the value ``ignore`` count nowhere: their class, the last one, is stored but never learned or predicted.
    Without ``regions`` a voxel has one label (softmax). With them every region is found apart (sigmoid), and a mask
    is painted region by region, later ones over earlier ones.

    ``also_called`` and ``codes`` are what a data set says of its own labels and regions, by name.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignore: int | None = None
    regions: tuple[Region, ...] = ()
    also_called: Mapping[str, tuple[str, ...]] = {}
    codes: Mapping[str, Code] = {}

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Files of labels without names and codes of their own are as they were before there were such."""
        content: dict[str, Any] = handler(self)
        for name in ("also_called", "codes"):
            if not content.get(name, True):
                del content[name]
        return content

    @model_validator(mode="after")
    def _consistent(self) -> LabelSet:
        if len(self.names) != len(self.values) or len(self.names) < 2:
            raise ValueError("needs one value per name, and at least the background and one label")
        region_names = tuple(region.name for region in self.regions)
        _require_distinct("names", self.names)
        _require_distinct("values", self.values)
        _require_distinct("names", region_names)
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
    def output_names(self) -> tuple[str, ...]:
        """What each channel of the network's output is of: the background and the labels, or the regions."""
        return tuple(region.name for region in self.regions) or self.names

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...]:
        """Class indices that each region is the union of; empty without regions."""
        return tuple(tuple(self.values.index(value) for value in region.values) for region in self.regions)

    @property
    def painted_classes(self) -> tuple[int, ...]:
        """Class index that each region is painted as; empty without regions."""
        return tuple(self.values.index(region.painted) for region in self.regions)

    @property
    def drawn_classes(self) -> dict[str, int]:
        """By structure the class in whose colour it is drawn: of a region the one that it is painted as."""
        return dict(zip(self.structures, self.painted_classes or tuple(self.foreground.values())))

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """What is learned and scored, by name: each region, or else each label, as the classes that it consists of."""
        if self.regions:
            return {region.name: classes for region, classes in zip(self.regions, self.region_classes)}
        return {name: (index,) for name, index in self.foreground.items()}

    @property
    def painted_over(self) -> dict[str, tuple[str, ...]]:
        """{label: regions} of labels that a mask cannot hold, whichever regions are found, and what it gets wrong.

        Where all regions that hold a label are found, the last of them decides what is painted. If that is a value
        which other regions hold than the label, those are lost, or invented. Empty where masks can say everything.
        """
        wrong: dict[str, tuple[str, ...]] = {}
        name_of = dict(zip(self.values, self.names))
        for value in sorted(set[int]().union(*(region.values for region in self.regions))):
            holding = [region for region in self.regions if value in region.values]
            painted = holding[-1].painted
            different = [
                region.name for region in self.regions if (value in region.values) != (painted in region.values)
            ]
            if different:
                wrong[name_of[value]] = tuple(different)
        return wrong

    @property
    def painting_problem(self) -> str:
        """What regions masks get wrong by the order in which they are painted, in words; '' if none."""
        wrong = self.painted_over
        if not wrong:
            return ""
        regions = [region.name for region in self.regions if any(region.name in names for names in wrong.values())]
        return (
            f"the regions are painted in an order in which later ones hide {', '.join(regions)} "
            f"(where the mask is {', '.join(wrong)}), so that even perfect masks score badly"
        )

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
        if self.painted_over:
            sentences.append(f"Warning: {self.painting_problem}")
        if self.ignore is not None:
            sentences.append(
                f"Voxels of value {self.ignore} are not annotated: they count neither in training nor in scores"
            )
        return tuple(sentences)

    def to_classes(self, mask: np.ndarray, label_map: LabelMap = (), *, chunk_voxels: int = CHUNK_VOXELS) -> np.ndarray:
        """Class index of every voxel, uint8 or uint16; raises ValueError on a value that is no label.

        Values that ``label_map`` names are first taken for others. ``chunk_voxels`` are looked up at a time, so that
        little memory is needed beside the result.
        """
        class_of = {value: index for index, value in enumerate(self.stored_values)}
        class_of |= {value: class_of[meaning] for value, meaning in label_map}
        dtype = np.uint8 if self.classes <= 256 else np.uint16
        return look_up(mask, class_of, dtype, chunk_voxels=chunk_voxels)

    def to_values(self, classes: np.ndarray) -> np.ndarray:
        """File value of every voxel: the inverse of ``to_classes``."""
        return np.asarray(self.stored_values, dtype=np.int32)[classes]


def _require_distinct(kind: str, items: tuple[object, ...]) -> None:
    if len(set(items)) != len(items):
        raise ValueError(f"{kind} {items} are not distinct")


def apply_map(mask: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """The mask with the meaning of each value in its place; the mask itself where nothing is mapped."""
    if not label_map:
        return mask
    result = mask.astype(np.int32)
    drawn = set(count_values(mask)) if mask.size else set()
    for value, meaning in label_map:
        if value in drawn:  # tables of colours have hundreds
            result[mask == value] = meaning
    return result

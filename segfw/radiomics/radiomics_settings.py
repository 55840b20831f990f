"""How images are brought to grey levels: decided on one cohort, kept as a file, and given to every other cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from segfw.base.records import Record, UserError
from segfw.base.words import count, listed
from segfw.images.geometry import Spacing

Modality = Literal["CT", "other"]
Texture = Literal["3d", "2.5d"]
CT = "CT"
BIN_WIDTH_HU = 25.0
LOWEST_HU = -1000.0  # where the first bin of CT begins, if no range is given
LEVELS = 32  # of images whose values are not calibrated
MOST_LEVELS = 4096  # above it matrices of levels take more memory than they are worth
THICK = 3.0  # times the other edges of a voxel: then texture is told slice by slice
STEP_MM = 0.5  # to which the voxels of a cohort are rounded
LOG = "log"


class ChannelProcessing(Record):
    """How the values of a channel become grey levels: bins of one width, or so many levels from least to most.

    ``bin_width`` and ``range`` are in the image's values, which are Hounsfield units of CT. ``range`` is what counts as
    the structure; voxels out of it are left out of all but morphology. Bins begin at its lower end, or at
    ``LOWEST_HU``. ``whole_numbers``: values are rounded after resampling, as Hounsfield units are stored.
    """

    modality: Modality
    bin_width: float | None = None
    levels: int | None = None
    range: tuple[float, float] | None = None
    whole_numbers: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.bin_width is None) == (self.levels is None):
            raise ValueError("give either bin_width or levels, and null for the other")
        if self.bin_width is not None and self.bin_width <= 0:
            raise ValueError("bin_width is the width of a bin and more than 0")
        if self.levels is not None and not 2 <= self.levels <= MOST_LEVELS:
            raise ValueError(f"levels is a number from 2 to {MOST_LEVELS}")
        if self.bin_width is not None and self.modality != CT:
            raise ValueError(
                "bin_width is for CT alone: values of other images are not calibrated, so that a bin of one width "
                "means something else in each of them; give levels"
            )
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range is the lower and the upper end")
        return self

    @property
    def discretisation(self) -> str:
        """As columns call it: fbs25 is a fixed bin size of 25, fbn32 a fixed number of 32 bins."""
        return f"fbn{self.levels}" if self.bin_width is None else f"fbs{self.bin_width:g}"

    @staticmethod
    def of(modality: Modality) -> ChannelProcessing:
        """The default of a modality."""
        if modality == CT:
            return ChannelProcessing(modality=CT, bin_width=BIN_WIDTH_HU, whole_numbers=True)
        return ChannelProcessing(modality=modality, levels=LEVELS)


class RadiomicsSettings(Record):
    """All that features depend on besides image and mask; ``cases`` is how many the decision stands on.

    ``texture`` '3d': voxels become cubes of ``voxel_mm``, and neighbours lie in 13 directions. '2.5d': slices stay,
    their pixels become squares, and neighbours lie in the slice. ``log_mm`` are the widths of Laplacian-of-Gaussian
    filters, whose values are brought to ``filter_levels``.
    """

    kind: Literal["radiomics settings"] = "radiomics settings"
    format: Literal[1] = 1
    voxel_mm: float
    texture: Texture
    channels: dict[str, ChannelProcessing]
    log_mm: tuple[float, ...] = ()
    filter_levels: int = LEVELS
    cases: int

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.voxel_mm <= 0 or any(width <= 0 for width in self.log_mm):
            raise ValueError("voxel_mm and log_mm are lengths and more than 0")
        if not 2 <= self.filter_levels <= MOST_LEVELS:
            raise ValueError(f"filter_levels is a number from 2 to {MOST_LEVELS}")
        if not self.channels:
            raise ValueError("there is no channel")
        alike = images_alike(tuple(self.channels), self.log_mm)
        if alike is not None:
            raise ValueError(f"{alike[0]} and {alike[1]} would have the same columns, {alike[2]}_...; keep one of them")
        return self

    @property
    def is_by_slice(self) -> bool:
        """Whether neighbours lie in the slice alone."""
        return self.texture == "2.5d"

    def require_like(self, modalities: Mapping[str, Modality], file: Path) -> None:
        """UserError if these are settings of other channels or of another modality than the images have."""
        if set(self.channels) != set(modalities):
            raise UserError(
                f"{file}: is for images with the channels {listed(sorted(self.channels), 'and')}, and these have "
                f"{listed(sorted(modalities), 'and')}; give the settings of such images"
            )
        for name, modality in modalities.items():
            of_file = self.channels[name].modality
            if of_file != modality:
                raise UserError(
                    f"{file}: channel {name!r} was decided on {_called(of_file)}, and the images here are "
                    f"{_called(modality)}; give settings of the same kind of image, or name it in channel_names of "
                    "dataset.json beside the images"
                )

    def text(self) -> str:
        """What was decided, in a line."""
        voxels = f"{self.voxel_mm:g} mm " + ("pixels in each slice" if self.is_by_slice else "cubes")
        channels = ", ".join(f"{name} {each.discretisation}" for name, each in self.channels.items())
        filters = "".join(f", Laplacian of Gaussian {width:g} mm" for width in self.log_mm)
        return f"{voxels}, {self.texture} texture, {channels}{filters}; decided on {count(self.cases, 'case')}"


def image_word(channel: str, width_mm: float | None = None) -> str:
    """What an image is called in columns: a channel, or what a Laplacian of Gaussian makes of it."""
    word = "_".join(channel.split())
    return word if width_mm is None else f"{word}_{LOG}{width_mm:g}mm"


def images_alike(channels: Sequence[str], log_mm: Sequence[float]) -> tuple[str, str, str] | None:
    """Two images, in words, that columns would call alike ('T1 w' and 'T1_w'), and how; None if there are none."""
    called: dict[str, str] = {}
    for channel in channels:
        for width in (None, *log_mm):
            image = f"channel {channel!r}" + ("" if width is None else f" behind the filter of {width!r} mm")
            word = image_word(channel, width)
            if word in called:
                return called[word], image, word
            called[word] = image
    return None


def _called(modality: Modality) -> str:
    return "CT" if modality == CT else "no CT"


def decided(
    spacings_mm: Sequence[Spacing], has_one_slice: bool, modalities: Mapping[str, Modality], log_mm: tuple[float, ...]
) -> RadiomicsSettings:
    """Of the voxels of a cohort: the median edge, rounded to half a millimetre where it is as long as that.

    Where slices are more than 3 times as thick as pixels are long in most cases, or there is only one, pixels alone are
    brought to one size, and texture is told slice by slice. Raises UserError if columns of two images would be called
    alike.
    """
    alike = images_alike(tuple(modalities), log_mm)
    if alike is not None:
        raise UserError(
            f"{alike[0]} and {alike[1]} would have the same columns, {alike[2]}_...; call channels otherwise in "
            "channel_names of dataset.json, or leave out a filter"
        )
    edges = np.sort(np.array(spacings_mm), axis=1)
    is_thick = has_one_slice or bool(np.median(edges[:, 2] / edges[:, 1]) > THICK)
    middle = float(np.median(edges[:, :2] if is_thick else edges))
    return RadiomicsSettings(
        voxel_mm=_rounded(middle),
        texture="2.5d" if is_thick else "3d",
        channels={name: ChannelProcessing.of(modality) for name, modality in modalities.items()},
        log_mm=log_mm,
        cases=len(spacings_mm),
    )


def _rounded(edge_mm: float) -> float:
    """To half a millimetre; an edge below that, as of small animals, to one digit."""
    if edge_mm >= STEP_MM:
        return round(edge_mm / STEP_MM) * STEP_MM
    return round(edge_mm, -math.floor(math.log10(edge_mm)))


def read_filters(texts: Sequence[str]) -> tuple[float, ...]:
    """The widths in mm of 'log:2', '4': commas separate filters and their widths; UserError for another filter."""
    if not texts:
        return ()
    texts = ",".join(texts).split(",")
    name, separator, first = texts[0].partition(":")
    if name.strip().lower() != LOG or not separator:
        raise UserError(
            f"--filters: {','.join(texts)!r} is no filter; write the Laplacian of Gaussian and its widths in mm, such "
            "as log:2,4"
        )
    widths = []
    for text in (first, *texts[1:]):
        try:
            width = float(text.removeprefix(f"{LOG}:"))
        except ValueError:
            width = math.nan
        if not 0 < width < math.inf:
            raise UserError(f"--filters: {text!r} is no width in mm; write such as log:2,4")
        widths.append(width)
    return tuple(dict.fromkeys(sorted(widths)))

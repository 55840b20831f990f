"""Masks that are painted in colours: a colour is held as one number, which a table of labels gives a meaning."""

from __future__ import annotations

import numpy as np

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

BLACK: Colour = (0, 0, 0)
MARK = 1 << 24  # set in the number of a colour, so that none is taken for a value that a grey mask holds


def is_coloured(array_czyx: np.ndarray) -> bool:
    """Whether voxels are colours of 8 bits."""
    return len(array_czyx) == 3 and array_czyx.dtype == np.uint8


def as_numbers(array_czyx: np.ndarray) -> np.ndarray:
    """One number for the colour of each voxel, (1, Z, Y, X) int32."""
    red, green, blue = array_czyx.astype(np.int32)
    return (MARK | red << 16 | green << 8 | blue)[None]


def is_colour(value: int) -> bool:
    """Whether a value in a mask is the number of a colour."""
    return MARK <= value < 2 * MARK


def colour_of(value: int) -> Colour:
    """Red, green and blue of the number of a colour."""
    return (value >> 16) & 255, (value >> 8) & 255, value & 255


def values_of_colour(colour: Colour) -> tuple[int, ...]:
    """What masks hold where they are painted in a colour: its number; of a grey also its brightness.

    A picture in which all colours are grey is read as one channel.
    """
    red, green, blue = colour
    number = MARK | red << 16 | green << 8 | blue
    return (number, red) if red == green == blue else (number,)


def value_in_words(value: int) -> str:
    """'the colour 255,0,0', or the value itself."""
    return f"the colour {','.join(map(str, colour_of(value)))}" if is_colour(value) else str(value)

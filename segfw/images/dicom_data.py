"""DICOM data sets by pydicom, after all their lengths have been proven; what they hold, without its errors and words.

What the library says of a value that it cannot read may hold the value, which may be a patient's name: none of it is
passed on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from segfw.images.dicom_elements import Tag, check_elements, first_elements
from segfw.images.stored_bytes import SURPLUS_BYTES, check_room
from segfw.images.voxels import Refusal

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

# Of a structure set with a hundred structures in hundreds of slices, and a few times as many; the library takes some
# kB for each item.
MOST_ELEMENTS = 4_000_000
MOST_ITEMS = 600_000
FRAMES: Tag = (0x0028, 0x0008)
ROWS: Tag = (0x0028, 0x0010)
COLUMNS: Tag = (0x0028, 0x0011)
BITS: Tag = (0x0028, 0x0100)
DAMAGED = "its elements contradict what they should be"


class Contradiction(ValueError):
    """Elements of a file do not fit each other; the message is ours, and holds nothing of a patient."""


@cache
def _library() -> None:
    """Values are taken as they are: what is read here is checked here, and warnings would hold the values."""
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@contextmanager
def reading_elements() -> Iterator[None]:
    """Whatever goes wrong within is a ValueError without a word of the library's; what is raised here stays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (Refusal, Contradiction, MemoryError, OSError):
            raise
        except Exception as error:  # pydicom has errors of its own, and damaged values raise anything
            raise ValueError(f"{DAMAGED}: {type(error).__name__}") from None


def read_elements(path: Path, *, with_pixels: bool = False) -> FileDataset:
    """The data set of a file, without its pixels unless these are wanted too."""
    from pydicom import dcmread

    _library()
    pixel_bytes = check_elements(path, most_elements=MOST_ELEMENTS, most_items=MOST_ITEMS, must_end=True)
    if pixel_bytes is not None and pixel_bytes > path.stat().st_size:  # deflated, and all unpacked at once
        _check_unpacked(path, pixel_bytes)
    with reading_elements():
        return dcmread(path, force=True, stop_before_pixels=not with_pixels)


def _check_unpacked(path: Path, pixel_bytes: int) -> None:
    """Raises Refusal for pixels that unpack to more than the header says that there are, or than memory takes."""
    found = first_elements(path, (FRAMES, ROWS, COLUMNS, BITS))
    with reading_elements():
        rows, columns, bits = (int.from_bytes(found[tag][:2], "little") for tag in (ROWS, COLUMNS, BITS))
        frames = int(found.get(FRAMES, b"1").strip(b"\0 ") or 1)
    if pixel_bytes > -(-frames * rows * columns * max(bits, 1) // 8) + SURPLUS_BYTES:
        raise Refusal("unpacks to far more pixels than it announces; export it again")
    check_room(pixel_bytes)


def text_of(data: Dataset, keyword: str) -> str:
    """The text of an element; '' where there is none."""
    value = data.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def whole_of(data: Dataset, keyword: str, default: int = 0) -> int:
    """The whole number of an element."""
    value = data.get(keyword)
    return default if value is None or value == "" else int(value)


def numbers_of(data: Dataset, keyword: str, number: int) -> np.ndarray | None:
    """So many numbers of an element; None where there are not, or one of them is not finite."""
    value = data.get(keyword)
    if value is None or value == "":
        return None
    values = np.array([float(each) for each in (value if number > 1 else [value])])
    return values if len(values) == number and np.isfinite(values).all() else None


def items_of(data: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none where there is no such sequence."""
    value = data.get(keyword)
    return () if value is None else tuple(value)


def item_of(data: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence; None where there is none."""
    items = items_of(data, keyword)
    return items[0] if items else None


def decimals_of(data: Dataset, keyword: str) -> np.ndarray:
    """All numbers of an element of decimal strings, however many; read as text, which is a hundred times as fast."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None or tag not in data:
        return np.zeros(0)
    value = data.get_item(tag).value
    if isinstance(value, bytes):
        content = value.strip(b"\0 ")
        return np.array([float(part) for part in content.split(b"\\")] if content else [])
    return np.array([float(part) for part in value] if value is not None else [])


def stored_pixels(path: Path) -> tuple[int, int, Literal["native", "encapsulated"]]:
    """Where the pixels of a file begin, how many bytes they have, and whether they are stored as they are."""
    from pydicom import dcmread

    with path.open("rb") as file, reading_elements():
        data = dcmread(file, force=True, stop_before_pixels=True)
        return _pixel_element(file, is_implicit=data.original_encoding[0] is True)


def _pixel_element(file: BinaryIO, *, is_implicit: bool) -> tuple[int, int, Literal["native", "encapsulated"]]:
    start = file.read(8)
    if start[:4] != b"\xe0\x7f\x10\x00":
        raise Contradiction("it has no pixels")
    length = start[4:] if is_implicit else file.read(4)
    size = int.from_bytes(length, "little")
    return (file.tell(), size, "native") if size != 0xFFFFFFFF else (file.tell(), 0, "encapsulated")

"""What is said of each structure in a file: number, name, colour and code, from the one table of names.

A name that the table does not know gets the generic code 'Tissue' and a note. No code is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from segfw.base.figures import label_color
from segfw.base.words import count, listed
from segfw.dataset.anatomy import SCHEME, SIDE_CODES
from segfw.dataset.finished_mask import MaskStatement
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import known_as
from segfw.images.values import look_up

MOST_NAMED = 6  # structures that a note lists
TEXT_LENGTH = 64  # of DICOM's long strings
# What a structure is, beside which one it is (DICOM PS3.16, context group 7150).
ANATOMY = ("SCT", "123037004", "Anatomical Structure")
ALTERED = ("SCT", "49755003", "Morphologically Altered Structure")
GENERIC = ("SCT", "85756007", "Tissue")
ALTERED_CODES = ("108369006", "79654002")  # tumour, oedema: the table's codes that are no anatomy

NO_CODE = "no code is known for this name; the generic one is given"

CodeTriple = tuple[str, str, str]  # scheme, value, meaning


@dataclass(frozen=True, kw_only=True)
class WrittenStructure:
    """A structure of a mask. ``values`` are those of its voxels, ``painted`` that of a mask of it alone.

    ``modifier`` is the side, None if the code or the structure has none. ``is_known`` is False where the code is the
    generic one.
    """

    number: int  # 1 .. n, in the order of the labels
    name: str
    values: tuple[int, ...]
    painted: int
    colour: tuple[int, int, int]  # RGB, 0..255
    category: CodeTriple
    kind: CodeTriple
    modifier: CodeTriple | None
    is_known: bool

    def description(self, statement: MaskStatement) -> str:
        """What is said of it beside its name and code."""
        return statement.title if self.is_known else f"{statement.title}; {NO_CODE}"

    def tracking_uid(self, series_uid: str) -> str:
        """The same for this structure of this series whenever it is written."""
        digest = sha256(f"{series_uid}\n{self.name}".encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def written_structures(labels: LabelSet, wanted: Mapping[str, tuple[int, ...]]) -> tuple[WrittenStructure, ...]:
    """What is said of the ``wanted`` structures (name -> values in the mask), numbered from 1."""
    known = known_as(labels)
    order = list(labels.structures)
    found = []
    for number, (name, values) in enumerate(wanted.items(), start=1):
        each = known[name]
        red, green, blue = label_color(order.index(name) + 1)
        is_known = bool(each.code)
        kind = (each.scheme, each.code, each.code_meaning) if is_known else GENERIC
        category = GENERIC
        if is_known and each.scheme == SCHEME and each.code in ALTERED_CODES:
            category = ALTERED
        elif is_known and each.structure:
            category = ANATOMY
        side = SIDE_CODES.get(each.side)
        found.append(
            WrittenStructure(
                number=number,
                name=name,
                values=values,
                painted=each.painted,
                colour=(round(255 * red), round(255 * green), round(255 * blue)),
                category=category,
                kind=kind,
                modifier=(SCHEME, *side) if side and is_known and not _says_side(each.code_meaning) else None,
                is_known=is_known,
            )
        )
    return tuple(found)


def _says_side(meaning: str) -> bool:
    """Whether a code is of one side by itself."""
    return bool({"left", "right"} & set(meaning.lower().split()))


def unknown_note(labels: LabelSet, wanted: Sequence[str]) -> str:
    """A sentence on the structures whose codes nobody knows; '' if there are none."""
    structures = written_structures(labels, dict.fromkeys(wanted, ()))
    names = [each.name for each in structures if not each.is_known]
    if not names:
        return ""
    shown = listed(names[:MOST_NAMED], "and") if len(names) <= MOST_NAMED else f"{', '.join(names[:MOST_NAMED])}, ..."
    return (
        f"{count(len(names), 'structure')} without a known code ({shown}) get the generic code {GENERIC[2]} "
        f"({GENERIC[0]} {GENERIC[1]}); a codes.csv beside the training data says others"
    )


def in_layers(structures: Sequence[WrittenStructure]) -> list[list[WrittenStructure]]:
    """Structures that share no value, layer by layer: as few layers as one after the other needs."""
    layers: list[list[WrittenStructure]] = []
    for structure in structures:
        fitting = (layer for layer in layers if not any(set(structure.values) & set(each.values) for each in layer))
        layer = next(fitting, None)
        if layer is None:
            layers.append([structure])
        else:
            layer.append(structure)
    return layers


def numbered(values_zyx: np.ndarray, layer: Sequence[WrittenStructure], labels: LabelSet) -> np.ndarray:
    """The number of the structure of a layer that each voxel is of, uint8 or uint16; 0 is none."""
    number_of = dict.fromkeys((*labels.stored_values, 0), 0)
    for structure in layer:
        number_of |= dict.fromkeys(structure.values, structure.number)
    dtype = np.uint8 if max(number_of.values(), default=0) < 256 else np.uint16
    return look_up(values_zyx, number_of, dtype)


def dicom_text(text: str, length: int = TEXT_LENGTH) -> str:
    """A text as DICOM's strings hold it: no backslash, which parts values, no control characters, not too long."""
    return "".join(" " if ord(letter) < 32 else letter for letter in text.replace("\\", "/"))[:length].strip()

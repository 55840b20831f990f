"""Names and colours of a mask's values, for ITK-SNAP and 3D Slicer, beside masks that hold numbers alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segfw.base.figures import label_color
from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask, ImageFormat, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.interop.statement_json import stated

ITK_SNAP_FILE = "labels_itksnap.txt"
SLICER_FILE = "labels_slicer.ctbl"
# What ITK-SNAP itself writes above its tables: it reads every line that begins otherwise.
ITK_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
"""


@dataclass(frozen=True, kw_only=True)
class ViewedImageFormat(ImageFormat):
    """An image file, and once for the folder what its values are called and coloured in viewers."""

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        write_text(folder / ITK_SNAP_FILE, itk_snap_labels(labels))
        write_text(folder / SLICER_FILE, slicer_colours(labels))


@dataclass(frozen=True, kw_only=True)
class StatedImageFormat(ViewedImageFormat):
    """An image file, and beside it in ``CASE.json`` what its header has no room for: signature, version, labels."""

    def files(self, case_id: str) -> tuple[str, ...]:
        return (f"{case_id}.json", *super().files(case_id))

    def write(self, folder: Path, mask: FinishedMask) -> None:
        """What is said of the mask, and the mask; none of them if the mask is not as given."""
        values = {name: list(values) for name, values in mask.structures.items()}
        text = json.dumps(stated(mask) | {"Structures": values}, indent=1, ensure_ascii=False)
        beside = folder / self.files(mask.case_id)[0]
        write_text(beside, text + "\n")
        try:
            super().write(folder, mask)
        except UserError:
            beside.unlink(missing_ok=True)
            raise


def colours_of(labels: LabelSet) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """{value: (name, RGB 0..255)} of every label but the background."""
    found = {}
    for name, index in labels.foreground.items():
        red, green, blue = label_color(index)
        found[labels.values[index]] = (name, (round(255 * red), round(255 * green), round(255 * blue)))
    return found


def itk_snap_labels(labels: LabelSet) -> str:
    """A label description file of ITK-SNAP: value, colour, opacity, whether it is seen and has a mesh, name."""
    lines = [f'{labels.values[0]:5}     0    0    0        0  0  0    "{_quoted(labels.names[0])}"']
    for value, (name, (red, green, blue)) in colours_of(labels).items():
        lines.append(f'{value:5}   {red:3}  {green:3}  {blue:3}        1  1  1    "{_quoted(name)}"')
    return ITK_SNAP_HEADER + "\n".join(lines) + "\n"


def slicer_colours(labels: LabelSet) -> str:
    """A colour table of 3D Slicer and MITK: value, name without blanks, red, green, blue, opacity."""
    lines = [f"# Color table file; {len(labels.values)} values", f"{labels.values[0]} {_word(labels.names[0])} 0 0 0 0"]
    for value, (name, (red, green, blue)) in colours_of(labels).items():
        lines.append(f"{value} {_word(name)} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return " ".join(name.replace('"', "'").split())


def _word(name: str) -> str:
    return "_".join(name.split())

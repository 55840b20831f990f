"""What the tags of a TIFF say about slices, channels and spacing, by the programs that write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from segfw.images.geometry import Spacing

if TYPE_CHECKING:
    from PIL.Image import Image

# Cameras and paint programs put these resolutions into every file; they say nothing about the object.
PRINT_DPI = (72, 75, 90, 96, 100, 120, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200, 2400)
UNIT_MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "mm": 1.0, "cm": 10.0, "inch": 25.4}
UNIT_MM |= {"\\u00b5m": 1e-3, "microns": 1e-3, "m": 1000.0}
TIFF_UNIT_MM = {2: 25.4, 3: 10.0}
DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 270, 282, 283, 296  # tags of TIFF
BITS_PER_SAMPLE, IMAGE_DEPTH = 258, 32997


def imagej_fields(picture: Image) -> dict[str, str]:
    """The lines 'key=value' that ImageJ keeps in a TIFF's description; empty for all other pictures."""
    text = str(picture.tag_v2.get(DESCRIPTION, "")) if picture.format == "TIFF" else ""
    if not text.startswith("ImageJ="):
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def ome_fields(picture: Image) -> dict[str, str]:
    """The attributes of the first image that an OME-TIFF describes; empty for all other pictures."""
    text = str(picture.tag_v2.get(DESCRIPTION, "")) if picture.format == "TIFF" else ""
    found = re.search(r"<Pixels\s([^>]*)>", text) if "<OME" in text else None
    return dict(re.findall(r'(\w+)="([^"]*)"', found[1])) if found else {}


def tiff_spacing(picture: Image) -> Spacing | None:
    """Spacing (z, y, x) in mm, None where the file says none that can be trusted.

    OME: its own fields. ImageJ: pixels per unit, and 'spacing' between slices. Other files: pixels per inch or
    centimetre, unless that is one of the resolutions that printers have.
    """
    tags, imagej, ome = picture.tag_v2, imagej_fields(picture), ome_fields(picture)
    if ome:
        return _ome_spacing(ome)
    per_unit = [float(tags.get(tag, 0) or 0) for tag in (Y_RESOLUTION, X_RESOLUTION)]
    if imagej:
        unit = UNIT_MM.get(imagej.get("unit", "").strip().lower())
    else:
        unit = TIFF_UNIT_MM.get(tags.get(RESOLUTION_UNIT, 2))
        dpi = [25.4 * value / unit if unit else 0.0 for value in per_unit]
        if any(abs(dpi[0] - usual) < 0.1 for usual in PRINT_DPI):
            unit = None
    if unit is None or not all(np.isfinite(value) and value > 0 for value in per_unit):
        return None
    slices = abs(float(imagej.get("spacing", 0))) * unit or 1.0
    return (slices, unit / per_unit[0], unit / per_unit[1])


def _ome_spacing(ome: dict[str, str]) -> Spacing | None:
    """Spacing (z, y, x) of an OME-TIFF in mm, in micrometres unless it says otherwise; 1 mm for slices without any."""
    sizes = []
    for axis in "ZYX":
        unit = UNIT_MM.get(ome.get(f"PhysicalSize{axis}Unit", "um").lower())
        size = float(ome.get(f"PhysicalSize{axis}", 0))
        sizes.append(size * unit if unit else 0.0)
    slices, rows, columns = sizes
    return (slices or 1.0, rows, columns) if rows > 0 and columns > 0 else None

"""What every picture and page of segfw has in common: how a patient is shown, the labels' colours, the HTML frame.

Arrays are (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the patient's right). matplotlib and
jinja2 are imported where they are used, because importing segfw must stay light.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAME = Path(__file__).with_name("page.html.jinja")
# (name, axis looked along, letters at the left, right, top and bottom). Both picture axes run against the array's:
# radiologists face the patient, so his right is on the left; the head and, in axial slices, the front are on top.
VIEWS = (("axial", 0, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 2, "APSI"))
# Light enough to be seen on a dark image and dark enough for white paper; further labels get evenly spread hues.
PALETTE = ("#e8503a", "#2f8fe0", "#2aa866", "#e0a010", "#a05ce0", "#10a8b8", "#e05c9a", "#98703c", "#7ea010", "#5b6ee1")

GOLDEN_RATIO = 0.618034


def label_color(index: int) -> tuple[float, float, float]:
    """RGB in 0..1 of class ``index`` (1 is the first label); the same in every picture and plot."""
    from matplotlib.colors import to_rgb

    if index <= len(PALETTE):
        return to_rgb(PALETTE[index - 1])
    hue = index * GOLDEN_RATIO % 1  # neighbours differ most
    return colorsys.hsv_to_rgb(hue, 0.75, 0.85)


def shown_plane(array_zyx: np.ndarray, axis: int, index: int, box: tuple[slice, slice, slice]) -> np.ndarray:
    """The slice ``index`` across ``axis`` as it is shown (see VIEWS), cut to ``box``; a view of two axes."""
    place: list[int | slice] = list(box)
    place[axis] = index
    return array_zyx[tuple(place)][::-1, ::-1]


def plain_axes(ax: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    ax.grid(color="#e4e4e4", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=0, labelsize=9)


def shortened(name: str, most: int = 28) -> str:
    """The name, cut with an ellipsis where it has more than ``most`` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def png_of(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def write_page(
    path: Path, template: Path, *, filters: Mapping[str, Callable[..., str]] | None = None, **values: object
) -> None:
    """Fills ``template``, which extends the common frame, and writes it atomically as one file.

    ``values`` are what the template names. Every text is escaped; the filter ``picture`` puts PNG bytes into the page.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, FRAME.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["picture"] = _inline_png
    environment.filters.update(filters or {})
    write_text(path, environment.get_template(template.name).render(**values))


def _inline_png(png: bytes) -> str:
    """The address under which a page holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

"""What every picture and page of segfw has in common: how a patient is shown, the labels' colours, the HTML frame.

The frame is page.html.jinja with page.css and page.js, its parts are page_parts.html.jinja.

Arrays are (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the patient's right). matplotlib and
jinja2 are imported where they are used, because importing segfw must stay light.
"""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segfw.base.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

Dashes = (
    str | tuple[float, tuple[float, ...]]
)  # matplotlib's: a name, or where they begin and lengths of dashes and gaps

FRAME = Path(__file__).with_name("page.html.jinja")
# (name, axis looked along, letters at the left, right, top and bottom). Both picture axes run against the array's:
# radiologists face the patient, so his right is on the left; the head and, in axial slices, the front are on top.
VIEWS = (("axial", 0, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 2, "APSI"))
# Colours that stay apart for every kind of colour blindness, on dark images as on white paper: those of Okabe and Ito
# (2008), the pale ones last, then three of Paul Tol's. A colour never stands alone: see label_dashes, label_marker and
# the numbers in pictures.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#aa4499", "#44aa99", "#999933")
DASHES: tuple[Dashes, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# On a page a plot is dark ink on nothing, which the page turns round where the screen is dark.
INK = "#1a2430"
SOFT_INK = "#566270"

OWN_FAMILY = "DejaVu Sans"  # comes with matplotlib, and has no Chinese letters
# Families that have them, on Linux, Windows and the Mac; the first that is installed is taken.
CHINESE_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "SimSun"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti TC", "STHeiti", "Arial Unicode MS", "Noto Serif CJK SC"),
    "Noto Serif CJK JP",
)

GOLDEN_RATIO = 0.618034


def label_color(index: int) -> tuple[float, float, float]:
    """RGB in 0..1 of class ``index`` (1 is the first label); the same in every picture and plot."""
    from matplotlib.colors import to_rgb

    if index <= len(PALETTE):
        return to_rgb(PALETTE[index - 1])
    hue = index * GOLDEN_RATIO % 1  # neighbours differ most
    saturation, brightness = ((0.8, 0.9), (0.5, 0.95), (0.9, 0.65))[index % 3]
    return colorsys.hsv_to_rgb(hue, saturation, brightness)


def label_hex(index: int) -> str:
    """``label_color`` as HTML writes it."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in label_color(index))


def label_dashes(index: int) -> Dashes:
    """The line style of class ``index`` in plots: labels of like colour differ in it."""
    return DASHES[(index - 1) % len(DASHES)]


def label_marker(index: int) -> str:
    """The marker of class ``index`` in plots."""
    return MARKERS[(index - 1) % len(MARKERS)]


def label_chip(index: int) -> str:
    """Style of an HTML element on the colour of class ``index``: black or white letters, whichever is read better."""
    return f"background: {label_hex(index)}; color: {letters_on(label_color(index))}"


def letters_on(color: tuple[float, float, float]) -> str:
    """'#000000' or '#ffffff', whichever has more contrast to the colour."""
    return "#000000" if luminance(color) > 0.179 else "#ffffff"


def luminance(color: tuple[float, float, float]) -> float:
    """Relative luminance of an RGB in 0..1 (WCAG 2.2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def shown_plane(array_zyx: np.ndarray, axis: int, index: int, box: tuple[slice, slice, slice]) -> np.ndarray:
    """The slice ``index`` across ``axis`` as it is shown (see VIEWS), cut to ``box``; a view of two axes."""
    place: list[int | slice] = list(box)
    place[axis] = index
    return array_zyx[tuple(place)][::-1, ::-1]


def views_of(shape_zyx: Sequence[int]) -> list[tuple[str, int, str]]:
    """The VIEWS in which a volume of ``shape_zyx`` has more than a line; one slice is seen in one."""
    return [view for view in VIEWS if min(np.delete(shape_zyx, view[1])) > 1] or [VIEWS[0]]


def scale_bar(width: float, most_share: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that takes at most ``most_share`` of the width."""
    most = most_share * width
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= most)


def plain_axes(ax: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    ax.grid(color="#808890", alpha=0.3, lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=0, labelsize=9)


def shortened(name: str, most: int = 28) -> str:
    """The name, cut with an ellipsis where it has more than ``most`` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


@contextmanager
def letters_of_names(ink: str = "") -> Iterator[None]:
    """Draws names of people's own: no formulas ("$x_1$"), and Chinese letters; all texts in ``ink``, if it is given."""
    from matplotlib import rc_context

    settings: Any = {"text.parse_math": False, "font.family": list(_families())}
    if ink:
        settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color"), ink)
    with rc_context(settings):
        yield


def can_be_drawn(text: str) -> bool:
    """Whether an installed font that pictures use has every letter of a text; else boxes would stand there."""
    missing = set(text)
    for family in _families():
        missing -= _letters_in(family)
        if not missing:
            return True
    return False


@cache
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    chinese = next((family for family in CHINESE_FAMILIES if family in installed), None)
    return (OWN_FAMILY,) if chinese is None else (OWN_FAMILY, chinese)


@cache
def _letters_in(family: str) -> frozenset[str]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(map(chr, get_font(findfont(family)).get_charmap()))


def png_of(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return file.getvalue()


def palette_png(picture: Image) -> bytes:
    """PNG of an RGB picture in 256 colours, which takes a third of the space and looks the same."""
    file = io.BytesIO()
    picture.quantize(256).save(file, format="png", optimize=True)
    return file.getvalue()


def plot_png(figure: Figure) -> bytes:
    """PNG of a plot for a page: its ink on nothing, since a page may be dark (the class 'plot' of page.css)."""
    figure.patch.set_alpha(0)
    for ax in figure.axes:
        ax.patch.set_alpha(0)
    return png_of(figure)


def write_page(
    path: Path, template: Path, *, filters: Mapping[str, Callable[..., str]] | None = None, **values: object
) -> None:
    """Fills ``template``, which extends the common frame, and writes it atomically as one file.

    ``values`` are what the template names. Every text is escaped; the filter ``picture`` puts PNG bytes into the page,
    ``chip`` is the style of an element in the colour of a class. The macros of page_parts.html.jinja make tables (see
    base/tables.py) and pictures that can be enlarged.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, FRAME.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["picture"] = _inline_png
    environment.filters["chip"] = label_chip
    environment.filters.update(filters or {})
    write_text(path, environment.get_template(template.name).render(**values))


def _inline_png(png: bytes) -> str:
    """The address under which a page holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

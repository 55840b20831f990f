"""A table of a page: its columns, and how its rows travel in the page.

Few rows stand in the page as they are. Many (cases times labels) are data, of which the page's script shows what is
looked at: texts as numbered names, numbers as whole multiples of the last digit that is shown. So they take a sixth of
the space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LONG_ROWS = 200  # from here on rows are data
WIDEST_TEXT = 22  # letters
WIDEST_SENTENCE = 40  # of texts of more than two such lines, which would make high rows
WIDE_COLUMNS = 10  # from here on paper needs smaller letters
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of texts, or of numbers where ``digits`` (behind the point) or ``significant`` (in all) are given.

    None is a number that does not exist: it is shown as a dash and sorted last. ``unit`` stands under the title,
    ``hint`` explains it, ``notes`` are a second, small line of each row. ``links`` are addresses by text; ``choose``
    ('All labels') makes a long table choosable by this column. ``total`` and ``total_note`` stand in the last line.
    """

    title: str
    values: Sequence[str] | Sequence[float | None]
    digits: int | None = None
    significant: int | None = None
    unit: str = ""
    hint: str = ""
    notes: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    choose: str = ""
    total: str = ""
    total_note: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it holds no numbers."""
        return self.digits is None and self.significant is None

    @property
    def width_ch(self) -> int:
        """Letters that the column of texts has room for before it breaks them."""
        longest = max((len(str(value)) for value in self.values), default=0)
        return 2 + min(WIDEST_SENTENCE if longest > 2 * WIDEST_SENTENCE else WIDEST_TEXT, longest)

    def shown(self, row: int) -> str:
        """The cell as the reader sees it."""
        value = self.values[row]
        return value if isinstance(value, str) else shown_number(value, self.digits, self.significant)

    def key(self, row: int) -> str | None:
        """What the cell is sorted by, '' if there is nothing; None if that is what is shown."""
        value = self.values[row]
        if isinstance(value, str):
            return value if self.notes else None
        if value is None:
            return ""
        return repr(value) if self.notes else None

    def as_data(self) -> dict[str, object]:
        """What the page's script reads."""
        if self.is_text:
            texts = [str(value) for value in self.values]
            names = list(dict.fromkeys(texts))
            place = {name: index for index, name in enumerate(names)}
            data: dict[str, object] = {"names": names, "at": [place[text] for text in texts]}
            if self.links:
                data["links"] = dict(self.links)
            if self.choose:
                data["choose"] = self.choose
            return data
        numbers = [float(value) if value is not None and math.isfinite(float(value)) else None for value in self.values]
        if self.digits is None:
            return {"values": [None if value is None else _rounded(value, self.significant) for value in numbers]}
        scale = 10**self.digits
        return {"digits": self.digits, "values": [None if value is None else round(value * scale) for value in numbers]}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of one length, and what belongs to the table as a whole.

    ``name`` is read to those who cannot see it, ``search`` stands in the empty search box, ``elsewhere`` says where the
    rows are for who reads the page without its script. The first ``sticky`` columns (1 or 2) stay when it is scrolled.
    """

    name: str
    columns: Sequence[Column]
    search: str = ""
    elsewhere: str = ""
    sticky: int = 1

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.columns[0].values)

    @property
    def is_long(self) -> bool:
        """Whether the rows are data."""
        return self.rows >= LONG_ROWS

    @property
    def is_wide(self) -> bool:
        """Whether paper needs smaller letters."""
        return len(self.columns) >= WIDE_COLUMNS

    @property
    def has_total(self) -> bool:
        """Whether there is a last line."""
        return any(column.total for column in self.columns)

    @property
    def json(self) -> str:
        """The rows as data, safe inside a script element whatever the names are."""
        data = {"rows": self.rows, "columns": [column.as_data() for column in self.columns]}
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shown_number(value: float | None, digits: int | None = 3, significant: int | None = None) -> str:
    """The number with ``digits`` behind the point or at least ``significant`` in all; a dash for None."""
    if value is None:
        return MISSING
    if digits is None and significant is not None and abs(value) >= 10**significant - 0.5:
        digits = 0  # all of them, and no power of ten
    return f"{value:.{digits}f}" if digits is not None else f"{value:.{significant}g}"


def _rounded(value: float, significant: int | None) -> float:
    """As ``shown_number`` shows it; a whole number without a point."""
    rounded = float(shown_number(value, None, significant))
    return int(rounded) if rounded.is_integer() else rounded

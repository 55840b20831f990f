"""What must not leave the author's machine with a model: ids of cases, and folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.written_by_people import read_json

SHORTEST_NAME = 4  # characters from which a case's id is looked for in what is packed


@dataclass(frozen=True, kw_only=True)
class PrivateNames:
    """Ids of the cases that a model was trained on, as far as they can be told from words, and its author's folders."""

    cases: frozenset[str]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, model: Path, manifest_file: Path) -> PrivateNames:
        """Those of a model and of the manifest of its data set, which may be missing."""
        manifest = read_json(manifest_file) if manifest_file.is_file() else {}
        try:
            cases = {str(case["id"]) for case in manifest.get("cases", ())}
            root = manifest.get("root")
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{manifest_file}: lists no cases, whose names must not be packed; restore it") from None
        return cls(
            cases=frozenset(case for case in cases if len(case) >= SHORTEST_NAME and not case.isdecimal()),
            folders=(str(model.resolve()), *([root] if root else [])),
        )

    def refuse_in(self, values: Iterable[object], model: Path) -> None:
        """UserError if a case or folder is named anywhere in ``values``, which are as JSON is read."""
        for text in _texts(list(values)):
            named = [case for case in self.cases if case in text and _is_named(case, text)]
            named += [folder for folder in self.folders if folder in text]
            if named:
                raise UserError(
                    f"{model}: what would be packed names {named[0]!r}, which is private; nothing was written"
                )


def _is_named(case: str, text: str) -> bool:
    """As a word of the text; one of letters alone, which may be any word, such as 'image', only as the whole text."""
    return case == text or (not case.isalpha() and bool(re.search(rf"(?<!\w){re.escape(case)}(?!\w)", text)))


def _texts(value: object) -> Iterator[str]:
    """All texts in a value as JSON is read, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)

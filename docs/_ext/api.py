"""The directive ``api``: documents public names of segfw, and sees to it that every one of them is documented.

Its content is a list of names, one a line; after the name of a class may stand which of its members are documented, as
in ``Predictor: of, __call__``, else all that are public are. A name that segfw does not have, and one of
``segfw.__all__`` that no page lists, is a warning, which ends ``make docs``.
"""

from __future__ import annotations

import dataclasses
import inspect
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from segfw.base.options import Options, help_of, words_of

logger = logging.getLogger(__name__)
LISTED: set[str] = set()


class Api(SphinxDirective):
    """Documents the names that it holds, one a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        import segfw

        lines: list[str] = []
        for line in filter(None, (line.strip() for line in self.content)):
            name, _, members = (part.strip() for part in line.partition(":"))
            if name not in segfw.__all__:
                logger.warning("segfw has no public name %r", name, location=self.get_location())
                continue
            LISTED.add(name)
            lines += [*documented(name, getattr(segfw, name), members), ""]
        found = nodes.section()
        found.document = self.state.document
        self.state.nested_parse(StringList(as_rst(lines), source="segfw"), 0, found)
        return found.children


def as_rst(lines: list[str]) -> list[str]:
    """The lines as MyST takes reStructuredText."""
    return ["```{eval-rst}", *lines, "```"]


def documented(name: str, value: object, members: str) -> list[str]:
    """autodoc's directive for a public name; ``members`` are those of a class, all if empty."""
    if not inspect.isclass(value):
        return [f".. {'autofunction' if callable(value) else 'autodata'}:: segfw.{name}"]
    if issubclass(value, BaseException):
        return [f".. autoexception:: segfw.{name}"]
    if issubclass(value, Options):
        return [f".. autoclass:: segfw.{name}()", "", *(f"   {line}" for line in fields_of(value))]
    # A data class of the API is made by one of its functions, not by naming all its fields.
    signature = "()" if dataclasses.is_dataclass(value) else ""
    return [f".. autoclass:: segfw.{name}{signature}", f"   :members: {members}".rstrip()]


def fields_of(record: type[Options]) -> list[str]:
    """A definition for each field of an options record: type, default, and the help of its option."""
    lines = []
    for each in dataclasses.fields(record):
        default = "" if each.default is None else f" = {each.default!r}"
        meaning = re.sub(r"([\\*`|_])", r"\\\1", help_of(each).replace("%%", "%"))
        if each.default is True:  # whose option is a negation
            meaning = f"``False``: {meaning}"
        words = words_of(record, each)
        if not meaning or words is not None:
            choices = ", ".join(f"``{value!r}``: {word}" for word, value in (words or {}).items())
            meaning = "; ".join(filter(None, [meaning, choices])) or "As the type says."
        lines += [f"``{each.name}: {each.type}{default}``", f"   {meaning}"]
    return lines


def complain(app: Sphinx, environment: object) -> None:
    """Warns of public names that no page lists."""
    import segfw

    for name in sorted(set(segfw.__all__) - LISTED):
        logger.warning("reference/python.md: does not list segfw.%s", name)


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    app.connect("env-updated", complain)
    return {"parallel_read_safe": False}

"""A part of a list of cases, for arrays of jobs that share a cohort without talking to each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from segfw.base.errors import UserError
from segfw.base.parallel import FAILURES_FILE
from segfw.base.words import count

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class CasePart:
    """Every ``count``-th case from the ``number``-th on, such as 3/8."""

    number: int = 1
    count: int = 1

    @staticmethod
    def of(text: str | None) -> CasePart:
        """Of '3/8'; None is all. UserError if it is no such part."""
        match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
        number, parts = (int(group) for group in match.groups()) if match else (0, 0)
        if not 1 <= number <= parts:
            raise UserError(f"--part is {text!r}; give which part of how many, such as 3/8")
        return CasePart(number=number, count=parts)

    def cases(self, found: Sequence[Item]) -> list[Item]:
        return list(found[self.number - 1 :: self.count])

    def text(self, found: Sequence[Item]) -> str:
        """'5 cases (part 3/8 of 40)'."""
        chosen = count(len(self.cases(found)), "case")
        return chosen if self.count == 1 else f"{chosen} (part {self.number}/{self.count} of {len(found)})"

    @property
    def failures_file(self) -> str:
        return FAILURES_FILE if self.count == 1 else f"failures_part_{self.number}_of_{self.count}.json"

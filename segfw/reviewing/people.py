"""Who reviews or signs. A declared name is what somebody typed: it says who claims to have done it, no more."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Literal

from segfw.base.errors import UserError
from segfw.base.printing import printable

Identity = Literal["declared", "os", "pin"]
LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Person:
    """A name, and how it is known: typed, the account of the system, or with a PIN. UserError for what is no name."""

    user: str
    identity: Identity = "declared"

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", checked_name(self.user, "the name of a user"))

    @staticmethod
    def named(user: str | None) -> Person:
        """Who was typed; else whose account it is."""
        return Person(user=getpass.getuser(), identity="os") if user is None else Person(user=user)


def checked_name(text: str, called: str) -> str:
    """The text without spaces at its ends; UserError unless a line of printable characters is left."""
    name = text.strip()
    if not name or len(name) > LONGEST_NAME or printable(name) != name or "\n" in name or "\t" in name:
        raise UserError(
            f"{called} is {name[:LONGEST_NAME]!a}; give one line of 1 to {LONGEST_NAME} printable characters"
        )
    return name

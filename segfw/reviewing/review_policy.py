"""``review/policy.json``: who may review and sign, and when somebody is asked whether he looked."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.records import Record
from segfw.base.words import listed
from segfw.reviewing.people import Person
from segfw.reviewing.states import Role

POLICY_FILE = "policy.json"


class ReviewPolicy(Record):
    """Rules of one folder of masks; what the file does not say is as here.

    ``reviewers`` and ``signers`` are the names that may; None: everybody. With ``four_eyes`` whoever reviewed a case
    may not sign it. Whoever accepts a structure of which less than ``floor_share_of_slices`` of the slices were
    displayed, or in less than ``floor_s_per_slice`` for each of them, is asked once; so is whoever accepts more than
    ``warn_after_accepts`` in a row. ``audit_target`` is the share of wrong masks that an audit is to rule out.
    ``images`` is the folder of the images, seen from the folder of the masks, where that does not tell it.
    """

    REMEDY: ClassVar[str] = "correct it there"

    reviewers: tuple[str, ...] | None = None
    signers: tuple[str, ...] | None = None
    four_eyes: bool = False
    floor_share_of_slices: float = Field(default=0.5, ge=0, le=1)
    floor_s_per_slice: float = Field(default=0.15, ge=0)
    warn_after_accepts: int = Field(default=20, ge=1)
    audit_target: float = Field(default=0.05, gt=0, lt=1)
    images: str | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> ReviewPolicy:
        """The policy of a folder of masks; UserError if its file is damaged."""
        path = Path(folder) / REVIEW_FOLDER / POLICY_FILE
        return cls.load(path) if path.is_file() else cls()

    def allows(self, person: Person, role: Role) -> bool:
        """Whether somebody has a role."""
        names = self.reviewers if role == "reviewer" else self.signers
        return names is None or person.user in names

    def require(self, person: Person, role: Role) -> None:
        """UserError unless somebody has a role."""
        if not self.allows(person, role):
            names = (self.reviewers if role == "reviewer" else self.signers) or ()
            doing = "review" if role == "reviewer" else "sign"
            who = listed(names) if names else "nobody"
            raise UserError(f"{person.user!r} may not {doing} here; {POLICY_FILE} allows {who}")

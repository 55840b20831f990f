"""All cases of a folder as the page sees them: those of the store, and planted ones, which look like the others."""

from __future__ import annotations

from pathlib import Path

from segfw.images.volume import Volume
from segfw.review_page.planted_review import PlantedReview
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.mask_version import MaskVersion
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore


class CaseSource:
    """Which of the two a case is of; ``steps`` takes the steps that people take."""

    def __init__(self, store: ReviewStore) -> None:
        self.store = store
        self.folder = store.folder
        self._planted = PlantedReview(store)
        self._planted_ids = frozenset(self._planted.case_ids)

    @property
    def case_ids(self) -> tuple[str, ...]:
        """All of them, in the order of their names."""
        return tuple(sorted((*self.store.case_ids, *self._planted.case_ids)))

    def steps(self, case: str) -> ReviewStore | PlantedReview:
        """Whatever has the case."""
        return self._planted if case in self._planted_ids else self.store

    def told_of(self, case: str) -> str:
        """The case whose quality, doubt and other masks are told."""
        return self._planted.source(case) if case in self._planted_ids else case

    def planted_decided_by(self, person: Person) -> set[str]:
        """Planted cases on which a person has decided something."""
        return self._planted.decided_by(person)

    def standings(self) -> dict[str, CaseStanding]:
        """Where every case stands."""
        return {**self.store.standings(), **self._planted.standings()}

    def standing(self, case: str) -> CaseStanding:
        """Where a case stands."""
        return self.steps(case).standing(case)

    def versions(self, case: str) -> list[MaskVersion]:
        """All versions of a case."""
        return self.steps(case).versions(case)

    def image_files(self, case: str) -> tuple[Path, ...]:
        """The files of the case's image."""
        return self.steps(case).image_files(case)

    def draft_file(self, case: str) -> Path:
        """The file of its draft."""
        return self.steps(case).draft_file(case)

    def read(self, case: str, number: int) -> Volume:
        """A version of its mask."""
        return self.steps(case).read(case, number)

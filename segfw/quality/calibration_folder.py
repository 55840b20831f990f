"""Which cases a model is calibrated on, by which networks, and what of it is kept from call to call.

``WORK/calibration/CONFIGURATION/CASE.json`` is what one case gave. What is there and made from the same networks, image
and mask is kept, so that a call that was ended goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from segfw.base.parallel import Outcome
from segfw.base.progress import progress_bar
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.images.formats import size_and_change
from segfw.inference.output_folder import sources_of
from segfw.inference.predictor import Predictor
from segfw.quality.calibration_pass import CalibratedCase, calibrate_case, look_at_case, shifts_of

RULES_VERSION = 2  # raised when the same case gives other numbers than before


@dataclass(frozen=True, kw_only=True)
class CaseToCalibrate:
    """A labelled case, and the networks that never saw it; without ``folds`` it only shows what training was like."""

    case: Case
    folds: tuple[str, ...]
    shifts: tuple[str, ...]
    made_from: str

    @staticmethod
    def of(
        case: Case, folds: Sequence[str], networks: Mapping[str, str], options: str, *, spoils: bool
    ) -> CaseToCalibrate:
        """By digests of the ``networks`` of all folds, of how they predict, and of the case's files as they are now."""
        shifts = shifts_of(case.id) if spoils and folds else ()
        files = (sources_of(case), None if case.label is None else size_and_change(case.label), case.label_map)
        used = tuple((fold, networks[fold]) for fold in folds)
        drawn_as = (case.drawn_as,) if case.drawn_as else ()
        annotated = () if case.annotated is None else (("annotated, places unknown", case.annotated),)
        text = repr((RULES_VERSION, used, options, files, shifts, *drawn_as, *annotated))
        return CaseToCalibrate(
            case=case, folds=tuple(folds), shifts=shifts, made_from=hashlib.sha256(text.encode()).hexdigest()
        )

    def kept(self, folder: Path) -> CalibratedCase | None:
        """What an earlier call found, if nothing that it was made from has changed."""
        try:
            found = CalibratedCase.load(self.path(folder))
        except UserError:  # not there, or of another version
            return None
        return found if found.made_from == self.made_from else None

    def path(self, folder: Path) -> Path:
        return folder / f"{self.case.id}.json"


def calibrate_cases(
    items: Sequence[CaseToCalibrate], folder: Path, predictor_of: Callable[[tuple[str, ...]], Predictor]
) -> tuple[list[CalibratedCase], list[Outcome[str, None]]]:
    """What all cases give, kept or new, and the failures, which do not stop the others.

    Parameters
    ----------
    items
        The cases.
    folder
        Where each case's file is kept.
    predictor_of
        Makes the predictor of some folds; it is asked once for cases of the same folds. Without folds any will do, for
        its preprocessing alone.
    """
    found: dict[str, CalibratedCase] = {}
    waiting = []
    for item in items:
        kept = item.kept(folder)
        if kept is None:
            waiting.append(item)
        else:
            found[item.case.id] = kept
    failures: list[Outcome[str, None]] = []
    with progress_bar("calibrating", total=len(waiting)) as bar:
        for item, result in _results(waiting, predictor_of):
            if isinstance(result, CalibratedCase):
                result.save(item.path(folder))
                found[item.case.id] = result
            else:
                failures.append(Outcome(item=item.case.id, error=result))
            bar.update()
    return [found[item.case.id] for item in items if item.case.id in found], failures


def _results(
    waiting: Sequence[CaseToCalibrate], predictor_of: Callable[[tuple[str, ...]], Predictor]
) -> Iterator[tuple[CaseToCalibrate, CalibratedCase | Exception]]:
    """Cases of the same networks follow each other, so that these are loaded once."""
    for folds, of_folds in groupby(sorted(waiting, key=lambda item: item.folds), key=lambda item: item.folds):
        predictor = predictor_of(folds)
        for item in of_folds:
            try:
                if folds:
                    yield item, calibrate_case(predictor, item.case, folds, item.shifts, item.made_from)
                else:
                    yield item, look_at_case(predictor, item.case, item.made_from)
            except Exception as error:  # one bad case must not cost the user the others
                yield item, error

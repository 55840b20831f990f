"""Masks for many cases: the next image is read and the last mask written while the network works."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segfw.data.formats import read_volume, write_labels
from segfw.data.manifest import Case
from segfw.data.parallel import Outcome, progress
from segfw.data.preprocess import PreprocessRecord, stack_channels
from segfw.data.verify import check_case
from segfw.inference.predictor import Predictor, Prepared
from segfw.records import Record, UserError

SETTINGS_FILE = "prediction.json"


class PredictionSettings(Record):
    """What the masks in a folder were made with; masks of another model are never mixed in."""

    configuration: str
    folds: tuple[str, ...]
    weights_digest: str
    step: float
    mirroring: bool


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], output: Path, *, ending: str = ".nii.gz"
) -> list[Outcome]:
    """Writes ``output/CASE.nii.gz`` for every case and returns the failures; masks already there are kept.

    The next image is read and the last mask written while the network works. A failing case does not stop the others.
    """
    output.mkdir(parents=True, exist_ok=True)
    waiting = [case for case in cases if not (output / f"{case.id}{ending}").is_file()]
    failures: list[Outcome] = []
    said: set[str] = set()  # a doubt that many images share is told once
    writing: tuple[Case, Future] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = [reader.submit(_read, predictor, waiting[0])] if waiting else []
        for index, case in enumerate(progress("predicting", waiting)):
            if index + 1 < len(waiting):
                coming.append(reader.submit(_read, predictor, waiting[index + 1]))
            try:
                prepared, notes = coming.pop(0).result()
                for note in notes - said:
                    print(f"warning: {case.id}: {note}")
                said |= notes
                classes = predictor.classes(prepared)
            except Exception as error:  # one bad image must not cost the user the others
                failures.append(Outcome(item=case, error=error))
                continue
            if writing:
                failures += _wait(*writing)
            writing = case, writer.submit(_write, predictor, classes, prepared.record, output / f"{case.id}{ending}")
            del prepared, classes
        if writing:
            failures += _wait(*writing)
    return failures


def _read(predictor: Predictor, case: Case) -> tuple[Prepared, set[str]]:
    volumes = [read_volume(path) for path in case.images]
    problems = check_case(case, volumes, None, channel_count=len(predictor.plan.channels), labels=None)
    if problems:
        raise UserError("; ".join(str(problem) for problem in problems))
    notes = {note for volume in volumes for note in volume.notes}
    return predictor.prepare(stack_channels(volumes)), notes


def _write(predictor: Predictor, classes: np.ndarray, record: PreprocessRecord, path: Path) -> None:
    write_labels(path, predictor.finish(classes), record.original)


def _wait(case: Case, future: Future) -> list[Outcome]:
    error = future.exception()
    return [] if error is None else [Outcome(item=case, error=error)]

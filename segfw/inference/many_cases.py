"""Masks for many cases, by one device, several, or the workers of a cluster.

A case is done from its file to its mask by one thread, which holds a lock per stage and takes the next before it lets
go of the last. So one image is read, one is in the network and one is written at any time, on each device, and there
are never two in the same stage, however many threads there are. For a GPU two are read at a time where memory has room:
reading and resampling a large CT take a processor longer than the network takes a large card.

Several devices are threads of one process and not processes: the work is in kernels that release the interpreter's
lock, and there is one list of cases, one progress, one Ctrl-C. Who wants processes starts several on the same folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic

import numpy as np

from segfw.base.errors import raise_if_full
from segfw.base.parallel import thread_pool
from segfw.base.records import UserError
from segfw.base.resources import free_memory_bytes
from segfw.base.shared_work import CaseResult, CohortResult, Note, WorkWords, share_out
from segfw.base.stopwatch import Stopwatch
from segfw.dataset.cases import Case
from segfw.dataset.finished_mask import FinishedMask
from segfw.dataset.verify import check_case
from segfw.grid.preprocess import orientation_note, stack_channels
from segfw.grid.slabs import Slab
from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry
from segfw.inference.output_folder import OutputFolder, sources_of
from segfw.inference.predict_protocol import FileSink, Predict, PreparedT

STAGES_AT_ONCE = 3  # read, network, write
READERS_OF_A_GPU = 2
ROOM_OF_A_READER = 4  # times what its image takes as it was read: the same again while it is turned and resampled
PREDICTING = WorkWords(doing="predicting", done="predicted", of="image")


class CasePipeline(Generic[PreparedT]):
    """A predictor on its device, and one case in each stage of prediction. Any number of threads may call it.

    ``readers`` cases may be read at a time, where memory has room; None: as many as are worth it on the device.
    """

    def __init__(self, predictor: Predict[PreparedT], folder: OutputFolder, *, readers: int | None = None) -> None:
        self.predictor = predictor
        self.folder = folder
        self.aborted = threading.Event()  # set from another thread, ends cases under way at the next slab
        self.readers = readers or (READERS_OF_A_GPU if predictor.device.type == "cuda" else 1)
        self._reading = Readers(self.readers)
        self._network = threading.Lock()
        self._writing = threading.Lock()

    def __call__(self, case: Case) -> CaseResult:
        """Writes a case's files, the mask last, unless they are there or another process is at it."""
        try:
            return self._work(case, Stopwatch())
        except Exception as error:
            raise_if_full(error, self.folder.path / case.id)
            raise

    def _work(self, case: Case, watch: Stopwatch) -> CaseResult:
        with ExitStack() as held:
            with self._reading:
                if not held.enter_context(self.folder.claim(case)):
                    return CaseResult(state="elsewhere")
                if self.folder.is_done(case):
                    return CaseResult(state="there")
                if self.folder.is_outdated(case):
                    self.folder.forget(case.id)
                sources = sources_of(case)
                prepared, notes = self._read(case, watch)
                # Here, so that what they find out of the image is found while another case is in the network.
                sinks = self._sinks(case, prepared, held, watch)
                self._network.acquire()
            try:
                self._go_on()
                classes = self._classes(prepared, sinks, watch)
                self._look_again(prepared, sinks, watch)
                original = prepared.record.original
                del prepared  # its image is not needed any more
                self._writing.acquire()
            finally:
                self._network.release()
            try:
                # Before the mask, which must never be there without it, and after it with all the seconds.
                self.folder.remember(case, sources, watch.times(case.id), str(self.predictor.device))
                self._write(case, classes, original, sinks, watch)
                self.folder.remember(case, sources, watch.times(case.id), str(self.predictor.device))
            finally:
                self._writing.release()
        return CaseResult(state="done", notes=notes)

    def _go_on(self) -> None:
        if self.aborted.is_set():
            raise CancelledError

    def _read(self, case: Case, watch: Stopwatch) -> tuple[PreparedT, tuple[Note, ...]]:
        self._go_on()
        with watch.timing("read_s"):
            for each in self.folder.formats:
                each.require(case.id, case.images[0])
            volumes = [read_volume(path) for path in case.images]
        self._reading.saw(sum(volume.array.nbytes for volume in volumes))
        channels = len(self.predictor.plan.channels)
        problems = check_case(case, volumes, None, channel_count=channels, labels=None)
        if problems:
            raise UserError("; ".join(str(problem) for problem in problems))
        notes: set[Note] = set()
        for volume in volumes:
            severity = "warning" if volume.is_placed else "note"  # that pictures have no spacing is usual
            notes.update((severity, note) for note in volume.notes)
        doubt = orientation_note(volumes[0], self.predictor.plan.orientation)
        if doubt:
            notes.add(("warning", doubt))
        with watch.timing("preprocess_s"):
            return self.predictor.prepare(stack_channels(volumes)), tuple(sorted(notes))

    def _sinks(self, case: Case, prepared: PreparedT, held: ExitStack, watch: Stopwatch) -> list[FileSink]:
        files = zip(self.folder.extras, self.folder.beside(case.id))
        with watch.timing("preprocess_s"):
            return [held.enter_context(extra.open(path, prepared, case)) for extra, path in files]

    def _classes(self, prepared: PreparedT, sinks: Sequence[FileSink], watch: Stopwatch) -> np.ndarray:
        by_member = any(extra.by_member for extra in self.folder.extras)
        every_sink = (_SlabCallback(self._go_on), *sinks)
        return self.predictor.classes(prepared, every_sink, by_member=by_member, watch=watch)

    def _look_again(self, prepared: PreparedT, sinks: Sequence[FileSink], watch: Stopwatch) -> None:
        for extra, sink in zip(self.folder.extras, sinks):
            if extra.look_again is not None:
                with watch.timing("network_s"):
                    extra.look_again(sink, self.predictor, prepared, self._go_on)

    def _write(
        self, case: Case, classes: np.ndarray, original: Geometry, sinks: Sequence[FileSink], watch: Stopwatch
    ) -> None:
        self._go_on()
        with watch.timing("write_s"):
            for sink in sinks:
                sink.finish(classes)
            finished = FinishedMask(
                case_id=case.id,
                values_zyx=self.predictor.finish(classes),
                geometry=original,
                labels=self.folder.labels or self.predictor.plan.labels,
                maker=self.folder.maker,
                image=case.images[0],
                only=self.folder.only,
            )
            for each in self.folder.formats:
                self._go_on()
                each.write(self.folder.path, finished)


class Readers:
    """Lets at most so many threads read at a time; all but the first only where memory has room for another image.

    How much that takes is told by the largest that was read so far, and until one was read there is one reader.
    """

    def __init__(self, most: int, free_bytes: Callable[[], int] = free_memory_bytes) -> None:
        self.most = most
        self._free_bytes = free_bytes
        self._largest_bytes: int | None = None
        self._reading = 0
        self._may_change = threading.Condition()

    def saw(self, image_bytes: int) -> None:
        """An image of that size was read."""
        with self._may_change:
            self._largest_bytes = max(self._largest_bytes or 0, image_bytes)
            self._may_change.notify_all()

    def __enter__(self) -> None:
        with self._may_change:
            self._may_change.wait_for(self._has_room)
            self._reading += 1

    def __exit__(self, *_: object) -> None:
        with self._may_change:
            self._reading -= 1
            self._may_change.notify_all()

    def _has_room(self) -> bool:
        if self._reading == 0:
            return True
        if self._reading >= self.most or self._largest_bytes is None:
            return False
        return ROOM_OF_A_READER * self._largest_bytes < self._free_bytes()


@dataclass(frozen=True)
class _SlabCallback:
    """Calls a function at every slab, which may end the case by an error."""

    call: Callable[[], None]

    def add(self, _: Slab) -> None:
        self.call()


def predict_cases(
    predictors: Sequence[Predict[PreparedT]], cases: Sequence[Case], folder: OutputFolder, *, readers: int | None = None
) -> CohortResult[Case]:
    """Writes a mask for every case, with a predictor per device; what is there already is kept.

    For each of them ``readers`` cases are read at a time, or as many as are worth it on its device.
    A failing case does not stop the others, unless the disk is full.
    """
    pipelines = [CasePipeline(predictor, folder, readers=readers) for predictor in predictors]
    of_thread = threading.local()  # the pipeline that a thread works for
    threads_each = STAGES_AT_ONCE - 1 + max(pipeline.readers for pipeline in pipelines)
    next_pipeline = iter(pipelines * threads_each)
    assigning = threading.Lock()

    def work(case: Case) -> CaseResult:
        if not hasattr(of_thread, "pipeline"):
            with assigning:
                of_thread.pipeline = next(next_pipeline)
        pipeline: CasePipeline[PreparedT] = of_thread.pipeline
        return pipeline(case)

    with thread_pool(threads_each * len(pipelines)) as pool:
        try:
            return share_out(work, cases, folder, pool, PREDICTING)
        except BaseException:  # Ctrl-C most of all: the threads would end their cases first, which may take long
            for pipeline in pipelines:
                pipeline.aborted.set()
            raise

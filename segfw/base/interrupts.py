"""Ctrl-C that is never lost.

Python drops the exception where it comes while an object is finalised or C calls back, and libraries that meet it while
they load or read make errors of their own of it.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_AFTER_S = 0.01


@contextmanager
def kept_interrupts() -> Iterator[threading.Event]:
    """Gives an event that is set when Ctrl-C came; while the block lasts, a dropped KeyboardInterrupt is raised again.

    Does nothing outside the main thread, and where the program around has its own way with Ctrl-C, or ignores it.
    """
    came = threading.Event()
    is_over = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came
        return
    told_before = sys.unraisablehook

    def interrupted(number: int, frame: FrameType | None) -> None:
        came.set()
        raise KeyboardInterrupt

    def again() -> None:
        if is_over.wait(AGAIN_AFTER_S):
            return
        if hasattr(signal, "pthread_kill"):  # which ends the waiting for a lock or a file, too
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()

    def not_raised(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(again, ())  # here it would be dropped once more
        else:
            told_before(dropped)

    signal.signal(signal.SIGINT, interrupted)
    sys.unraisablehook = not_raised
    try:
        yield came
    finally:
        is_over.set()
        sys.unraisablehook = told_before
        signal.signal(signal.SIGINT, signal.default_int_handler)

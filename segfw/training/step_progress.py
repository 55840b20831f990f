"""Where a run is between two epochs: for the console, and for the page that renews itself.

What is shown was counted on the host anyway: nothing here waits for a device, and only the first rank shows anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

from segfw.base.progress import SpokenLines, is_watched, say_line
from segfw.training.checkpoint import Counters
from segfw.training.metrics_log import clock
from segfw.training.position import Phase, Position
from segfw.training.progress_page import ProgressPage
from segfw.training.schedule import Clock


class StepProgress:
    """Follows the steps of a run from the first on, and shows where it is: a bar on a terminal, else lines.

    The first line comes after the first step, the others at growing pauses; an epoch's own line counts as one.
    """

    def __init__(self, run_clock: Clock, counters: Counters, page: ProgressPage, *, is_first: bool) -> None:
        self.loss: float | None = None
        self._clock = run_clock
        self._counters = counters
        self._page = page
        self._is_first = is_first
        self._phase: Phase = "training"
        self._first_epoch = counters.epoch
        # Since when the pace is measured: a first step compiles, chooses kernels and fills caches, and does not count.
        self._paced_from: int | None = None
        self._paced_from_s = 0.0
        self._has_spoken = False
        self._bar: tqdm | None = None

    @contextmanager
    def lines(self) -> Iterator[None]:
        """The page is there from here on; lines are said in the block, where progress is not watched on a terminal."""
        self._page.show(self.position())
        with ExitStack() as stack:
            if self._is_first and not is_watched():
                stack.enter_context(SpokenLines(self._line_of_pause))
            yield

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """The steps of an epoch are done in the block; on a terminal a bar shows them."""
        self._phase = "training"
        if self._paced_from is not None:
            self._measure_pace()
        try:
            if self._is_first and is_watched():
                name = f"epoch {self._counters.epoch + 1}"
                total = self._clock.steps_per_epoch
                self._bar = tqdm(total=total, desc=name, unit="step", leave=False, initial=self._counters.epoch_steps)
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None
            self._phase = "validating"

    def step(self) -> None:
        """A step was done."""
        is_the_first = self._paced_from is None
        if is_the_first:
            self._measure_pace()
            if self._is_first and not is_watched():
                say_line(self.position().line())
        if is_the_first or self._page.is_due():
            self._page.show(self.position())
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix(), refresh=False)
            self._bar.update()

    def epoch_was_told(self) -> None:
        """An epoch was written down, and its line was said: one less is due here."""
        self._has_spoken = True
        if self._page.is_due():
            self._page.show(self.position())

    def position(self) -> Position:
        """Where the run is now."""
        counters = self._counters
        settings = self._clock.settings
        is_timed = bool(settings.time_budget_s)
        return Position(
            phase=self._phase,
            epoch=counters.epoch + 1,
            epochs=None if is_timed else settings.epochs,
            epoch_step=counters.epoch_steps,
            epoch_steps=None if is_timed else self._clock.steps_per_epoch,
            share=self._clock.progress(),
            elapsed_s=self._clock.elapsed_s(),
            left_s=self._left_s(),
            step_s=self._step_s(),
            loss=self.loss,
        )

    def _measure_pace(self) -> None:
        self._paced_from = self._counters.step
        self._paced_from_s = self._clock.elapsed_s()

    def _step_s(self) -> float | None:
        """Seconds of a step of this epoch, without the first one of the run."""
        if self._paced_from is None or self._counters.step <= self._paced_from:
            return None
        return (self._clock.elapsed_s() - self._paced_from_s) / (self._counters.step - self._paced_from)

    def _left_s(self) -> float | None:
        """Seconds to the end; before an epoch is over by the pace of its steps alone, which knows no validation yet."""
        settings = self._clock.settings
        if settings.time_budget_s or self._counters.epoch > self._first_epoch:
            return self._clock.left_s()
        step_s = self._step_s()
        if step_s is None:
            return None
        return step_s * (settings.epochs * self._clock.steps_per_epoch - self._counters.step)

    def _postfix(self) -> str:
        now = self.position()
        parts = [] if now.loss is None else [f"loss {now.loss:+.3f}"]
        if now.left_s is not None:
            parts.append(f"{clock(now.left_s)} left in all")
        return ", ".join(parts)

    def _line_of_pause(self) -> str:
        if self._has_spoken:
            self._has_spoken = False
            return ""
        return self.position().line()

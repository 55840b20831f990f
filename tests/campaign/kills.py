"""Verbs that are struck down at drawn places, and called once more: the same bytes, and nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from random import Random
from typing import NamedTuple

from campaign.processes import Strike, run
from campaign.stage import ACTS, Stage

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130
# Those that left something for ever, or could never be called again, are struck most.
PLANNED = {name: 15 if name in ("check --fix", "import-nnunet", "export --nnunet") else 6 for name in ACTS}


class Outcome(NamedTuple):
    """What became of one trial; ``fault`` says what is wrong, empty if nothing is."""

    kind: str
    verb: str
    how: str
    result: str
    fault: str = ""


def drawn_strike(stage: Stage, name: str, draw: Random, number: int) -> Strike:
    """The signals in turn; at a file event or at a moment, spread over the verb's duration."""
    whole = stage.whole(name)
    kind = SIGNALS[number % len(SIGNALS)]
    if number // len(SIGNALS) % 2:
        return Strike(kind, seconds=draw.uniform(0.01, whole.seconds))
    return Strike(kind, event=draw.randint(1, max(1, whole.events)))


def struck(stage: Stage, name: str, strike: Strike) -> Outcome:
    """One trial."""
    stage.whole(name)
    stage.begin(name)
    first = run(stage.command(name), stage.said, strike)
    if first.code == 0:
        result = "ended before"
    elif first.code == -strike.number:
        result = "killed"
    elif first.code == INTERRUPTED and first.is_sentence:
        result = "interrupted, said so"
    else:
        return Outcome("kills", name, str(strike), f"code {first.code}", first.errors[-1500:] or "no word")
    fault = ""
    if not first.code:
        if strike.number == signal.SIGINT and strike.event is not None:
            fault = "Ctrl-C was passed over"
    else:
        again = run(stage.command(name, again=True), stage.said)
        if again.code == 0:
            result += "; the same command ends in order"
        elif again.code == 2 and again.is_sentence and "Errno" not in again.errors:
            result += "; what it makes was there already, and the same command says so"
        else:
            fault = f"the same command ends with {again.code}: {again.errors[-1500:]}"
    return Outcome("kills", name, str(strike), result, fault or "; ".join(stage.differences(name)))


def kills(stage: Stage, seed: int, planned: Mapping[str, int] = PLANNED) -> Iterator[Outcome]:
    """As many trials of each verb as planned."""
    for name, count in planned.items():
        for number in range(count):
            draw = Random(f"{seed} kills {name} {number}")
            yield struck(stage, name, drawn_strike(stage, name, draw, number))

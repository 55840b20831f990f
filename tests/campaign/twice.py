"""Each verb started twice at the same moment on the same folders: both end in order, and the result is as of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from campaign.kills import Outcome
from campaign.processes import Running
from campaign.stage import ACTS, Stage


def started_twice(stage: Stage, name: str) -> Outcome:
    """One trial: each process ends with 0, or with 2 and one sentence, and at least one with 0."""
    stage.whole(name)
    stage.begin(name)
    both = [Running(stage.command(name), stage.said) for _ in range(2)]
    ended = [each.ended() for each in both]
    codes = sorted(each.code for each in ended)
    said = [each.errors.strip().rpartition("\n")[2] for each in ended if each.code]
    fault = ""
    if codes not in ([0, 0], [0, 2]) or not all(each.is_sentence for each in ended if each.code):
        fault = f"codes {codes}: " + " | ".join(each.errors[-1000:] for each in ended)
    elif any("Errno" in line for line in said):
        fault = f"a bare error of the system: {said}"
    result = "both ended with 0" if codes == [0, 0] else f"one with 0, the other said: {' '.join(said)}"
    return Outcome("twice", name, "two at once", result, fault or "; ".join(stage.differences(name)))


def twice(stage: Stage, rounds: int = 3, names: Sequence[str] = tuple(ACTS)) -> Iterator[Outcome]:
    """Every verb, so many times."""
    for name in names:
        for _ in range(rounds):
            yield started_twice(stage, name)

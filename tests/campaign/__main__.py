"""Tries and counts: ``python -m campaign [PART ...] --seed 1``; ends with 1 if there is a fault."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from campaign.damages import BITS_OF_EACH, MOST_CPU_S, bits, claims
from campaign.disks import PLANNED as DISKS
from campaign.disks import disks
from campaign.kills import PLANNED as KILLS
from campaign.kills import Outcome, kills
from campaign.lies import LIES
from campaign.processes import load_all
from campaign.stage import ACTS, Stage
from campaign.twice import twice
from fuzz.campaign import READ, in_worker

PARTS = ("kills", "twice", "disks", "bits", "claims")


def tried(typed: argparse.Namespace, place: Path) -> Iterator[Outcome]:
    """All trials that were asked for."""
    stage = Stage(place)
    if set(typed.parts) & {"kills", "twice", "disks"}:
        load_all(typed.verbs)
        made = in_worker(stage.make)
        if made.outcome != READ:
            raise RuntimeError(made.text)
    of_each = typed.count
    for part in typed.parts:
        if part == "kills":
            yield from kills(stage, typed.seed, _planned(KILLS, typed))
        elif part == "twice":
            yield from twice(stage, of_each or 3, typed.verbs)
        elif part == "disks":
            yield from disks(stage, typed.seed, _planned(DISKS, typed))
        elif part == "bits":
            yield from bits(typed.seed, of_each or BITS_OF_EACH)
        else:
            yield from claims(typed.lies, typed.most_cpu_s)


def _planned(usual: Mapping[str, int], typed: argparse.Namespace) -> dict[str, int]:
    """How many trials of each verb."""
    return {verb: typed.count or usual[verb] for verb in typed.verbs}


def table(outcomes: list[Outcome]) -> str:
    """Counts by part, verb or format, and result, as Markdown."""
    counts = Counter(
        (each.kind, each.verb, each.result.partition(":")[0] if not each.fault else "FAULT") for each in outcomes
    )
    lines = ["| part | of | result | times |", "|---|---|---|---|"]
    lines += [f"| {kind} | {verb} | {result} | {number} |" for (kind, verb, result), number in sorted(counts.items())]
    faults = sum(bool(each.fault) for each in outcomes)
    for kind in dict.fromkeys(each.kind for each in outcomes):
        lines.append(f"| {kind} | all | | {sum(each.kind == kind for each in outcomes)} |")
    return "\n".join([*lines, "", f"{len(outcomes)} tried, {faults} faults"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=(*PARTS, []), default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--seed", type=int, default=1, help="other seeds strike elsewhere (default: 1)")
    parser.add_argument("--verbs", nargs="+", choices=tuple(ACTS), default=tuple(ACTS), metavar="VERB")
    parser.add_argument("--lies", nargs="+", choices=tuple(LIES), default=tuple(LIES), metavar="LIE")
    parser.add_argument(
        "--most-cpu-s", type=float, default=MOST_CPU_S, help="seconds that a claim may take (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, help="trials of each verb, in place of what is planned")
    typed = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as place:
        for each in tried(typed, Path(place) / "stage"):
            outcomes.append(each)
            print(f"{each.kind}: {each.verb}: {each.how}: {each.result}{' FAULT ' + each.fault if each.fault else ''}")
            sys.stdout.flush()
    print(table(outcomes))
    return int(any(each.fault for each in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())

"""Counts what becomes of damaged files: ``python -m fuzz --seconds 600 --seed 1``; ends with 1 if there is a fault."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fuzz.campaign import FAULTS, Tried, campaign, kept, report
from fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--inputs", type=int, help="how many damaged files, in place of a time")
    parser.add_argument("--seed", type=int, default=1, help="other seeds make other damages (default: 1)")
    parser.add_argument("--only", nargs="+", choices=tuple(TARGETS), default=tuple(TARGETS), metavar="KIND")
    parser.add_argument("--keep", type=Path, help="folder for the damaged files that found a fault")
    typed = parser.parse_args()
    until_s = time.monotonic() + typed.seconds
    tried: list[Tried] = []

    def heard(one: Tried) -> None:
        tried.append(one)
        if one.result.outcome in FAULTS:
            print(f"{one.target}, {one.mutation}, number {one.number}: {one.result.outcome}: {one.result.text[-2000:]}")
            if typed.keep:
                kept(one, typed.keep)

    def is_over(number: int) -> bool:
        return number >= typed.inputs if typed.inputs is not None else time.monotonic() > until_s

    campaign(typed.seed, is_over, heard, tuple(typed.only))
    print(report(tried))
    return int(any(one.result.outcome in FAULTS for one in tried))


if __name__ == "__main__":
    raise SystemExit(main())

"""A line for each training: scores of kept-out patients, and volumes in images that were trained on."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import Record

Key = tuple[str, str, int, float]


class Figures(Record):
    """One label in one case; ``dice`` is None where neither mask has it."""

    dice: float | None
    reference_ml: float
    predicted_ml: float


class PartialResult(Record):
    """What one arm reached with one seed. ``drawn_in`` is the half of each training case."""

    data_set: str
    arm: str
    seed: int
    minutes: float
    processor: str
    steps: int | None
    seconds: float | None
    drawn_in: dict[str, str]
    kept: dict[str, dict[str, Figures]]
    trained: dict[str, dict[str, Figures]]

    @property
    def key(self) -> Key:
        """What tells trainings apart."""
        return self.data_set, self.arm, self.seed, self.minutes


def read_lines(path: Path) -> list[PartialResult]:
    """All lines of a file, the newest of each training; none without a file."""
    if not path.is_file():
        return []
    found: dict[Key, PartialResult] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            result = PartialResult.parse(line, f"{path}, line {number}")
            found[result.key] = result
    return list(found.values())


def append_line(path: Path, result: PartialResult) -> None:
    """Adds a line in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        file.write((result.model_dump_json() + "\n").encode())

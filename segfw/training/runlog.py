"""What a training run writes down: one line per epoch in metrics.jsonl and on the console."""

from __future__ import annotations

import json
from pathlib import Path

from segfw.records import write_text

METRICS_FILE = "metrics.jsonl"


def append_metrics(folder: Path, row: dict[str, float | list[float]]) -> None:
    """Adds one epoch's figures as a line of JSON."""
    with open(folder / METRICS_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_metrics(folder: Path) -> list[dict]:
    """All whole lines of metrics.jsonl; a last line that was cut off by a kill is left out."""
    path = folder / METRICS_FILE
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def keep_metrics_before(folder: Path, epoch: int) -> None:
    """Drops the lines from ``epoch`` on, which a resumed run is about to write again."""
    rows = [row for row in read_metrics(folder) if row["epoch"] < epoch]
    write_text(folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))


def epoch_line(row: dict, names: list[str], total: str, left_s: float) -> str:
    """The console line of one epoch."""
    dice = "  ".join(f"{name} {value:.3f}" for name, value in zip(names[:4], row["val_dice_per_label"]))
    more = " ..." if len(names) > 4 else ""
    speed = row["steps"] / row["epoch_s"]
    pace = f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s/step"
    return (
        f"epoch {row['epoch'] + 1}{total}  loss {row['train_loss']:+.3f}  val {row['val_loss']:+.3f}  "
        f"dice {row['val_dice']:.3f} ({dice}{more})  {pace}  waited {row['stalled_share']:.0%}  "
        f"left {clock(left_s)}"
    )


def clock(seconds: float) -> str:
    """'1:02:03' or '2:03'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

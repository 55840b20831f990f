"""What a training run writes down: one line per epoch in metrics.jsonl and on the console."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from segfw.base.files import write_text
from segfw.model.training_record import METRICS_FILE, EpochRow, read_metrics

LONGEST_LINE = 140  # characters
LONGEST_NAME = 14


def append_metrics(folder: Path, row: EpochRow) -> None:
    """Adds one epoch's figures as a line of JSON."""
    with open(folder / METRICS_FILE, "a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(row) + "\n")


def keep_metrics_before(folder: Path, epoch: int) -> None:
    """Drops the lines from ``epoch`` on, which a resumed run is about to write again."""
    rows = [row for row in read_metrics(folder) if row["epoch"] < epoch]
    write_text(folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))


def epoch_line(row: EpochRow, names: Sequence[str], total: str, left_s: float) -> str:
    """The console line of one epoch, at most LONGEST_LINE characters: of many labels only the first are shown.

    ``total`` follows the epoch's number, such as '/1000'. What a row may lack (whole cases, the share of augmentation,
    the GPU's memory) is left out.
    """
    parts = [
        f"epoch {row['epoch'] + 1}{total}",
        f"loss {row['train_loss']:+.3f}",
        f"val {row['val_loss']:+.3f}",
        f"dice {row['val_dice']:.3f}" if "val_dice" in row else f"explained {row['val_explained']:+.3f}",
        pace(row["steps"], row["epoch_s"]),
        f"waited {row['stalled_share']:.0%}",
    ]
    at_dice = 4
    if row.get("whole_case_dice") is not None:
        parts.insert(at_dice, f"whole {row['whole_case_dice']:.3f}")
    if row.get("augment_share") is not None:
        parts.append(f"augment {row['augment_share']:.0%}")
    if row.get("gpu_memory_gb") is not None:
        parts.append(f"{row['gpu_memory_gb']:.1f} GB")
    parts.append(f"left {clock(left_s)}")
    room = LONGEST_LINE - len("  ".join(parts)) - len(" ()")
    parts[at_dice - 1] += _by_label(row.get("val_dice_per_label", []), names, room)
    return "  ".join(parts)


def _by_label(dices: Sequence[float], names: Sequence[str], room: int) -> str:
    """' (kidney 0.912  liver 0.950 ...)', as many as fit into ``room`` characters; nothing if none does.

    Names are cut only where not all of them fit as they are.
    """
    known = [(name, dice) for name, dice in zip(names, dices) if dice is not None]
    whole = "  ".join(f"{name} {dice:.3f}" for name, dice in known)
    if known and len(whole) <= room:
        return f" ({whole})"
    scores = [f"{name[:LONGEST_NAME]} {dice:.3f}" for name, dice in known]
    for shown in range(len(scores), 0, -1):
        text = "  ".join(scores[:shown]) + (" ..." if shown < len(scores) else "")
        if len(text) <= room:
            return f" ({text})"
    return ""


def pace(steps: int, seconds: float) -> str:
    """'2.5 steps/s', or '4.0 s/step' where a step takes more than a second."""
    seconds = max(seconds, 1e-9)
    return f"{steps / seconds:.1f} steps/s" if seconds <= steps else f"{seconds / steps:.1f} s/step"


def clock(seconds: float) -> str:
    """'1:02:03' or '2:03'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

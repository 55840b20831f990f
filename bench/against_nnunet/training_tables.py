"""What ``python -m bench training`` found, as a table for the console and as Markdown for docs/benchmarks.md."""

from __future__ import annotations

import statistics

from bench.figures import columns, spread_text

NNUNET = "nnU-Net"


def tables(result: dict) -> str:
    """All figures as plain text."""
    parts = [f"{title}\n{'-' * len(title)}\n{columns(rows)}" for title, rows in _parts(result)]
    return "\n\n".join([*parts, notes(result)])


def markdown(result: dict) -> str:
    """All figures as Markdown, with what was done in words."""
    parts = [f"## Training against nnU-Net (`python -m bench training`)\n\n{notes(result)}"]
    for title, (head, *rows) in _parts(result):
        lines = [head, ["---"] * len(head), *rows]
        parts.append(f"{title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def notes(result: dict) -> str:
    """What was compared and what a reader must know to judge it, as sentences."""
    plan = result["prepare"]["plans"][result["configuration"]]
    machine = result["machine"]
    shape = "x".join(str(size) for size in plan["nnunet"]["patch"])
    nnunet_precision = "fp32, as it comes on a CPU" if result["device"] == "cpu" else "fp16 autocast and torch.compile"
    lines = [
        f"{result['data']}, {result['cases']} cases, {result['configuration']}, patch {shape}, batch "
        f"{plan['nnunet']['batch']}: equal plans. {result['device']}, {result['threads']} threads, {machine['cpus']} "
        f"cores, {machine['memory_gb']:g} GB, {machine['system']}.",
        f"nnU-Net: its stock trainer, {nnunet_precision}; segfw: {result['auto_precision']} where it says auto.",
        "Memory is the peak of the whole process tree (PSS).",
    ]
    if result["steps"]:
        lines.append(
            "Steps per minute: whole steps, loading and augmentation included, validation not, in the second of two "
            "epochs; the programs take turns, medians of the rounds."
        )
    if result["training"]:
        lines.append(
            f"Equal time: {result['budget_s']:g} s of training each on {result['prepare']['train']} cases, then "
            f"{result['prepare']['validation']} held-out cases by each program's own predictor with its own default of "
            "mirroring, all masks scored by segfw evaluate. segfw picks batch and schedule for its --time-budget."
        )
    for name, run in result["training"].items():
        if name.startswith("nnunet"):
            planned = run["planned_epochs"] * run["planned_steps_per_epoch"]
            lines.append(
                f"{_named(name)} has no time budget: it was told {run['planned_epochs']} epochs of "
                f"{run['planned_steps_per_epoch']} steps and one validation step, which fit the time at "
                f"{run['calibrated_step_s']:.2f} s per step, {run['calibrated_between_s']:.2f} s per epoch's end and "
                f"{run['calibrated_warm_up_s']:.1f} s of warm-up, measured just before and "
                f"not counted; it did {run['steps']} of {planned} steps in "
                f"{run['elapsed_s']:.0f} s, at a last learning rate of {run['last_learning_rate']:.5f}."
            )
    return "\n".join(lines)


def _parts(result: dict) -> list[tuple[str, list[list[str]]]]:
    parts = []
    if result["steps"]:
        parts.append(("Training steps", step_rows(result["steps"])))
    if result["training"]:
        parts.append(("Equal time of training", training_rows(result["training"], result["prediction"])))
    if result["prediction"]:
        parts.append(("Dice on the held-out cases", score_rows(result["prediction"])))
    return parts


def step_rows(steps: dict[str, list[dict]]) -> list[list[str]]:
    """Steps per minute of each program, and how many times faster than nnU-Net it is; the first row is the head."""
    rows = [["", "steps per minute", "s per step", "of a 250-step epoch, s", "peak memory, GB", "times nnU-Net"]]
    medians = {name: statistics.median(run["steps_per_minute"] for run in runs) for name, runs in steps.items()}
    for name in sorted(steps):
        pace = medians[name]
        peak_gb = statistics.median(run["peak_pss_gb"] for run in steps[name])
        figures = [f"{pace:.2f}", f"{60 / pace:.3f}", f"{250 * 60 / pace:.1f}", f"{peak_gb:.2f}"]
        ratio = f"{pace / medians['nnunet']:.2f}" if "nnunet" in medians else "-"
        rows.append([_named(name), *figures, ratio])
    return rows


def training_rows(training: dict[str, dict], prediction: dict[str, dict]) -> list[list[str]]:
    """One row per run: steps, time, memory and mean Dice; the first row is the head."""
    rows = [["run", "steps", "training, s", "peak memory, GB", "prediction, s", "its memory, GB", "mean Dice"]]
    for name, run in training.items():
        elapsed_s = run.get("elapsed_s") or run["epochs"][-1]["elapsed_s"]
        row = [_named(name), str(run["steps"]), f"{elapsed_s:.0f}", f"{run['peak_pss_gb']:.2f}"]
        if name in prediction:
            found = prediction[name]
            row += [f"{found['wall_s']:.1f}", f"{found['peak_pss_gb']:.2f}", _dice(found["scores"]["foreground_mean"])]
        rows.append(row + ["-"] * (len(rows[0]) - len(row)))
    return rows


def score_rows(prediction: dict[str, dict]) -> list[list[str]]:
    """Dice of each program over its seeds: mean, range and deviation, per label and in the mean."""
    labels = list(next(iter(prediction.values()))["scores"]["labels"])
    rows = [["", "seeds", *labels, "mean"]]
    for program in ("nnunet", "segfw"):
        scores = [run["scores"] for name, run in prediction.items() if name.startswith(program)]
        if scores:
            per_label = [[score["labels"][label]["dice"] for score in scores] for label in labels]
            means = [score["foreground_mean"]["dice"] for score in scores]
            rows.append([_named(program), str(len(scores)), *(_spread(values) for values in [*per_label, means])])
    return rows


def _spread(values: list[float | None]) -> str:
    return "-" if None in values else spread_text(values)


def _dice(score: dict) -> str:
    return "-" if score["dice"] is None else f"{score['dice']:.4f}"


def _named(name: str) -> str:
    """'nnunet_seed_0' as 'nnU-Net seed 0'."""
    return name.replace("nnunet", NNUNET).replace("_", " ")

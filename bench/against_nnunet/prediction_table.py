"""The figures of ``python -m bench prediction`` as a Markdown table."""

from __future__ import annotations

PARTS = ("read", "preprocess", "network", "restore", "write")


def table(kept: dict) -> str:
    """Rows of time and memory by program, ratios to segfw, and a line about each model."""
    head = ["case", "program", "wall s", "peak GB", *(f"{part} s" for part in PARTS)]
    lines = [
        f"{kept['machine']['cpus']} cores, {kept['threads']} threads, {kept['device']}; segfw in {kept['precision']}.",
        "",
        row(head),
    ]
    lines.append(row(["---"] * 2 + ["---:"] * (len(head) - 2)))
    remarks = []
    for name, result in kept["results"].items():
        lines += [
            row([name, program, *cells(result[key])]) for program, key in (("nnU-Net", "nnunet"), ("segfw", "segfw"))
        ]
        if "nnunet_part" in result:
            part = result["nnunet_part"]
            guess = [f"~{part['extrapolated_gb']:.1f}", "", "", "", f"~{part['extrapolated_restore_s']:.1f}", ""]
            lines.append(row([name, "nnU-Net, extrapolated", "", *guess]))
        lines.append(row([name, "times segfw", *ratios(result)]))
        remarks.append(remark(name, result))
    return "\n".join([*lines, "", *remarks, ""])


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cells(run: dict) -> list[str]:
    parts = [f"{run['seconds'][part]:.1f}" if part in run["seconds"] else "-" for part in PARTS]
    if run["stopped"]:
        return [f"stopped: {run['stopped']}", f"over {run['peak_pss_gb']:.1f}", *parts]
    return [f"{run['wall_s']:.1f}", f"{run['peak_pss_gb']:.2f}", *parts]


def ratios(result: dict) -> list[str]:
    """How many times more nnU-Net took; of a stopped run only of the parts it finished, or extrapolated."""
    theirs = result["nnunet"]
    ours = result["segfw"]
    seconds = dict(theirs["seconds"])
    guess = result.get("nnunet_part")
    wall = "-" if theirs["stopped"] else ratio(theirs["wall_s"], ours["wall_s"])
    memory = ratio(theirs["peak_pss_gb"], ours["peak_pss_gb"])
    if guess:
        memory = f"~{ratio(guess['extrapolated_gb'], ours['peak_pss_gb'])}"
        seconds["restore"] = guess["extrapolated_restore_s"]
    return [wall, memory, *(ratio(seconds.get(part), ours["seconds"].get(part)) for part in PARTS)]


def ratio(theirs: float | None, ours: float | None) -> str:
    return f"{theirs / ours:.1f}" if theirs and ours else "-"


def remark(name: str, result: dict) -> str:
    settings = result["settings"]
    text = (
        f"- {name}: {result['images']} images, {result['parameters'] / 1e6:.1f} M parameters, logits of "
        f"{result['logits']} weights, step {settings['step']:g}, mirroring {'on' if settings['mirroring'] else 'off'}"
    )
    if "agreement" in result:
        found = result["agreement"]
        text += f"; masks agree in {100 * found['equal_voxels']:.3f} % of voxels, mean Dice {found['dice']:.4f}"
    if "nnunet_part" in result:
        part = result["nnunet_part"]
        text += f"; nnU-Net's restoring was measured on {part['slices']} of {part['of']} slices and extrapolated"
    return text + "."

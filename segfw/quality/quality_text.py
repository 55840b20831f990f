"""What a quality model says, as a few lines for the console."""

from __future__ import annotations

from segfw.base.words import count
from segfw.quality.quality_model import QualityModel


def quality_text(model: QualityModel) -> str:
    """What it stands on, how far its bounds lie below, and from when on masks are used."""
    counts = model.counts
    spoilt = counts.items - counts.clean_items
    lines = [
        f"{model.identity.configuration}: {count(counts.cases, 'case')} of {count(counts.patients, 'patient')}, "
        f"{count(counts.clean_items, 'clean mask')} and {count(spoilt, 'spoilt one')} of single structures"
    ]
    bound = model.bounds[-1]
    if bound.factor is None:
        lines.append(f"no bound: {count(bound.patients, 'patient')} are too few for {100 * (1 - model.alpha):g} %")
    else:
        for predicted in (0.9, 0.7):
            margin = model.margin("", predicted)
            assert margin is not None  # as there is a factor
            lines.append(
                f"of masks with a predicted Dice of {predicted:g}, {100 * (1 - model.alpha):g} % have at least "
                f"{max(0.0, predicted - margin):.2f}, for images like the training images"
            )
    rule = model.use_rule
    if rule.threshold is None:
        lines.append(f"no mask is released unseen: {rule.why}")
    else:
        lines.append(f"'use' from a predicted Dice of {rule.threshold:.3f} on: {rule.why}")
    lines += [f"note: {note}" for note in model.notes]
    return "\n".join(lines) + "\n"

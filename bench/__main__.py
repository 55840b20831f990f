"""The one entry of all measurements: ``python -m bench VERB ...``, called in the root of a clone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# verb: (module with a function ``main`` that takes the arguments after the verb, what it measures)
VERBS = {
    "gpu": ("bench.gpu.command", "ten minutes on a CUDA device: what is right, how fast, how much memory"),
    "asked": ("bench.asked", "what a step and a prediction ask of a GPU, counted without one"),
    "memory": ("bench.memory", "on CUDA: memory counted for a training step beside what it takes"),
    "speed": ("bench.speed", "parts of segfw against plain baselines"),
    "machine": ("bench.machine", "how far a training step is from the machine's matrix products"),
    "epoch": ("bench.epoch", "what an epoch spends beside its steps"),
    "evaluation": ("bench.evaluation", "seconds a case of an evaluation of large masks with many labels"),
    "measuring": ("bench.measuring", "seconds and memory of the measures of a whole CT with 104 structures"),
    "mask-formats": (
        "bench.mask_formats",
        "seconds, memory and bytes of a whole CT in each format of masks",
    ),
    "heart": ("bench.heart", "ejection fraction and ratios by an expert's masks and by predicted ones"),
    "outcome": ("bench.outcome_models", "what segfw outcome says of noise, the wrong way beside it, and of a signal"),
    "gate": ("bench.gate", "false alarms of the input gate, and which simulated shifts it sees"),
    "plausible": ("bench.plausible", "whether intervals of volumes and plausible masks keep their promises"),
    "many-classes": ("bench.many_classes", "117 classes from raw data to measures: seconds and memory of each verb"),
    "quality": ("bench.quality_cost", "what judging masks adds to a prediction: processor time and memory"),
    "augmentation": ("bench.augmentation", "Dice after training with one kind of augmentation or another"),
    "accuracy": ("bench.accuracy.command", "Dice after equal core-minutes, of one way to train or another"),
    "trust": ("bench.trust.command", "whether what is said of masks holds, on patients that were kept out"),
    "starts": ("bench.starts", "whether pretraining on images alone pays with few labelled patients"),
    "partial": ("bench.partial.command", "Dice of cases annotated in part, beside every label and two models"),
    "queue": ("bench.queue.command", "what the review queue is worth with a simulated expert, and what it costs"),
    "retrain": ("bench.retrain.command", "whether signed labels of a simulated expert pay, against a control"),
    "refine": ("bench.refine.command", "what simulated clicks are worth to a mask, against the refiner without them"),
    "review-page": (
        "bench.review_page",
        "seconds and memory of the review page with 2000 cases, and with a large volume",
    ),
    "review-strokes": (
        "bench.review_strokes",
        "milliseconds of drawing on a large volume in the review page",
    ),
    "monailabel-client": ("bench.monailabel_client", "MONAI Label's own client class against serve-monailabel"),
    "real-data": ("bench.real_data", "train on real data for 12 minutes, score what was held out"),
    "versions": ("bench.versions", "two checkouts on the same data: ratios of their times"),
    "preprocessing": ("bench.against_nnunet.preprocessing", "against nnU-Net: time, memory, arrays"),
    "training": ("bench.against_nnunet.training", "against nnU-Net: steps per minute, Dice after equal time"),
    "prediction": ("bench.against_nnunet.prediction", "against nnU-Net: time, memory, masks of the same weights"),
    "plans": ("bench.against_nnunet.plans", "against nnU-Net: plans, field by field"),
    "models": ("bench.against_nnunet.models", "against nnU-Net: imported and exported models, masks, time, memory"),
    "readers": ("bench.against_nnunet.readers", "against nnU-Net: images with every header and format"),
    "cascade": ("bench.against_nnunet.cascade", "against nnU-Net: a small cascade, step by step"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"python -m bench: unknown verb {verb!r}; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    # Only now: each verb needs libraries of its own, which another machine may lack.
    module = importlib.import_module(VERBS[verb][0])
    module.main(rest)
    return 0


def overview() -> str:
    """All verbs with a line each."""
    width = max(len(verb) for verb in VERBS)
    lines = [f"  {verb:{width}}  {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(["usage: python -m bench VERB ...   (VERB --help tells its options)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())

"""What segfw computes for a few tiny fixed inputs, in numbers that are stored in data/ and must not change unseen.

``test_baseline.py`` compares; a change that was meant is accepted by one of

    python tests/baselines.py help       # writes data/help/*.txt anew; look at git diff before you commit
    python tests/baselines.py figures    # writes data/baseline.json anew, and says so in the commit
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from cpu_kind import cpu_kind

from builders.data import blocks_case, write_nifti
from builders.models import cascade_model, plan_of, small_model, write_fold
from builders.networks import spec
from builders.planning import GOLDEN, fingerprint, manifest, rough_cost
from builders.training import ZSCORE, configuration, prepare, run
from segfw.base.records import UserError
from segfw.cli import VERBS, build_parser
from segfw.dataset.toy import make_toy_dataset
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.training_record import read_metrics
from segfw.model.weights import load_tensors
from segfw.networks.spec import RESIDUAL_ENCODER
from segfw.planning.fitting import CostOf
from segfw.planning.memory import step_cost
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.planner import make_plan
from segfw.planning.presets import PRESETS
from segfw.planning.request import PlanRequest
from segfw.verbs.evaluate import evaluate
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.train import train

DATA = Path(__file__).parent / "data"
FIGURES_FILE = DATA / "baseline.json"
HELP_FOLDER = DATA / "help"
HELP_COLUMNS = "100"
SHAPES = ((20, 18, 10), (13, 25, 9))  # (x, y, z) of the images that masks are made of
COUNTED = "Hippocampus"  # the golden data set whose plan is made with all that a training step is counted to take


def help_texts() -> dict[str, str]:
    """File name -> what ``segfw --help`` and each verb's print in a terminal 100 columns wide."""
    texts = {}
    with patch.dict(os.environ, {"COLUMNS": HELP_COLUMNS, "NO_COLOR": "1"}):
        for verb in ("", *VERBS):
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
                build_parser().parse_args([verb, "--help"] if verb else ["--help"])
            texts[f"{verb or 'segfw'}.txt"] = shown.getvalue()
    return texts


def training(folder: Path, precision: str) -> dict[str, object]:
    """Losses of 20 training steps, each an epoch of one step, and a digest of the weights at their end."""
    done = run(prepare(folder), folder / "run", epochs=20, steps_per_epoch=1, precision=precision)
    rows = read_metrics(done)
    weights, _ = load_tensors(done / "weights.safetensors")
    return {
        "train_loss": [row["train_loss"] for row in rows],
        "val_loss": [row["val_loss"] for row in rows],
        "learning_rate": [row["learning_rate"] for row in rows],
        "weights": digest(*(weights[name].numpy() for name in sorted(weights))),
    }


def masks(folder: Path) -> dict[str, dict[str, object]]:
    """Digest and voxels per value of the masks that small networks, drawn from a seed, make of made-up images."""
    full = configuration(ZSCORE, spec())
    flat = spec(strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3)))
    residual = spec(architecture=RESIDUAL_ENCODER, encoder_blocks=(1, 2))
    others = {
        "2d": full.model_copy(update={"name": "2d", "network": flat, "patch_size": (1, 16, 16)}),
        "residual": full.model_copy(update={"name": "residual", "network": residual}),
    }
    models = {"one fold": load_model(small_model(folder / "one"), "3d_fullres", ("0",))}
    models["two folds"] = load_model(small_model(folder / "two", folds=("0", "1")), "3d_fullres", ("0", "1"))
    models["cascade"] = load_model(cascade_model(folder / "cascade"), "3d_cascade_fullres", ("0",))
    for name, chosen in others.items():
        (folder / name).mkdir(parents=True)
        plan_of(chosen).save(folder / name / PLAN_FILE)
        write_fold(folder / name, chosen, "0", (1, 2))
        models[name] = load_model(folder / name, name, ("0",))
    found = {}
    for name, model in models.items():
        predictor = Predictor.of(model, device="cpu", precision="fp32")
        for number, shape in enumerate(SHAPES):
            write_nifti(folder / "image.nii.gz", blocks_case(50 + number, shape)[0])
            mask = predictor(read_volume(folder / "image.nii.gz")).array
            values, counts = np.unique(mask, return_counts=True)
            voxels = {str(value): int(count) for value, count in zip(values, counts)}
            found[f"{name}, image {number}"] = {"digest": digest(mask), "voxels": voxels}
    return found


def plans() -> dict[str, dict[str, str]]:
    """Digest of each configuration of segfw's own plans for the golden data sets, and of all else in the plan.

    One data set is planned with the bytes of a training step as they are counted, in every preset. For the others they
    are five for every output of a convolution, which takes no time.
    """
    found = {f"{COUNTED}, {preset}, counted": _plan_digests(COUNTED, preset, step_cost) for preset in PRESETS}
    for name in GOLDEN:
        for preset in ("plain", "resenc-m", "resenc-l"):
            found[f"{name}, {preset}"] = _plan_digests(name, preset, rough_cost)
    return found


def _plan_digests(name: str, preset: str, cost_of: CostOf) -> dict[str, str]:
    golden = GOLDEN[name]
    cases = [tuple(case) for case, count in golden["groups"] for _ in range(count)]
    channels = tuple(f"MR{index}" for index in range(golden["channels"]))
    data = manifest(channels, golden["labels"])
    measured = fingerprint(cases, channels=len(channels))
    try:
        request = PlanRequest(preset=preset, gpu_memory_gb=golden["memory_gb"])
        plan = make_plan(data, measured, request, cost_of=cost_of)
    except UserError as error:
        return {"refused": str(error)}
    content = plan.without_estimates().model_dump(mode="json")
    parts = dict(content.pop("configurations"))
    return {key: text_digest(part) for key, part in {**parts, "plan": content}.items()}


def demo_scores(folder: Path) -> dict[str, dict[str, float | None]]:
    """Scores of two torsos after a small network has seen six for a few dozen steps."""
    raw = folder / "raw"
    work = folder / "work"
    make_toy_dataset(raw, cases=6, test_cases=2)
    only = ("3d_fullres",)
    plan = plan_and_preprocess(raw, work, configurations=only, gpu_memory_gb=2, device="cpu", workers=1)
    planned = plan.configuration("3d_fullres")
    network = spec(classes=planned.network.classes, in_channels=1, features=(8, 16))
    small = planned.model_copy(update={"network": network, "patch_size": (8, 24, 24), "batch_size": 2})
    plan.model_copy(update={"configurations": {"3d_fullres": small}}).save(work / PLAN_FILE)
    assert Plan.load(work / PLAN_FILE).configuration("3d_fullres").network == network
    settings = {"epochs": 3, "steps_per_epoch": 50, "learning_rate": 0.05, "seed": 3, "precision": "fp32"}
    train(work, "3d_fullres", "0", device="cpu", **settings)
    predict(work, raw / "imagesTs", folder / "masks", device="cpu", precision="fp32")
    scores = evaluate(folder / "masks", raw / "labelsTs", workers=1)
    names = ("dice", "hd95_mm", "nsd")
    found = {label: {name: getattr(score, name) for name in names} for label, score in scores.labels.items()}
    mean = scores.foreground_mean
    return found | {"foreground mean": {name: getattr(mean, name) for name in names}}


def digest(*arrays: np.ndarray) -> str:
    """Of type, shape and bytes, in this order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def text_digest(content: object) -> str:
    """Of JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def figures() -> dict[str, object]:
    """All that data/baseline.json holds."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "cpu_kind": cpu_kind(),
            "training": {kind: training(folder / kind, kind) for kind in ("fp32", "bf16")},
            "masks": masks(folder / "masks"),
            "plans": plans(),
            "demo": demo_scores(folder / "demo"),
        }


def main() -> int:
    if sys.argv[1:] == ["help"]:
        HELP_FOLDER.mkdir(exist_ok=True)
        for path in HELP_FOLDER.glob("*.txt"):
            path.unlink()
        for name, text in help_texts().items():
            (HELP_FOLDER / name).write_text(text)
        return 0
    if sys.argv[1:] == ["figures"]:
        FIGURES_FILE.write_text(json.dumps(figures(), indent=1) + "\n")
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())

"""Where a cascade that nnU-Net made and segfw imported begins to differ: step by step, on the same images.

    python -m bench cascade RAW OUT --cases 4 --nnunet-python nnunet-venv/bin/python
    python -m bench cascade RAW OUT --cases 4

RAW is an nnU-Net raw folder of .nii.gz images of one channel. With --nnunet-python ``bench/in_nnunet/cascade.py``
trains two small networks on it and keeps what nnU-Net computes in OUT; without, what lies there is compared. Each step
is given nnU-Net's own result of the one before it, then all steps run by themselves. Differences are counted against
what nnU-Net's functions give in float64 too, which tells its own float16 sums from what segfw does otherwise.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.figures import columns, dices
from bench.runs import IN_NNUNET, nnunet_environment, subset
from segfw.grid.preprocess import place_back, preprocess_classes
from segfw.grid.restore import restore
from segfw.grid.slabs import dense
from segfw.images.formats import read_volume
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.verbs.import_nnunet import import_nnunet

STAGES = "3d_lowres", "3d_cascade_fullres"
RUN = IN_NNUNET / "cascade.py"


def compared(predictor: Predictor, image: Path, kept: Path, first_mask: Path | None) -> list[str]:
    """One row: what differs in each step of one stage for one image, each step given nnU-Net's result before it."""
    volume = read_volume(image)
    prepared = predictor.prepare(volume)
    with np.load(kept) as stored:
        theirs = {name: stored[name] for name in stored.files}
    found = "-"
    previous = None
    if first_mask is not None:
        labels = np.maximum(theirs["previous"][0], 0)
        classes = Volume(array=read_volume(first_mask).array, geometry=volume.geometry)
        ours = preprocess_classes(classes, prepared.record, prepared.outside).numpy()
        found = str(int((ours != labels).sum()))
        previous = torch.from_numpy(labels.astype(np.uint8))
    logits = dense(predictor.network_slabs(torch.from_numpy(theirs["image"]), previous)).numpy()
    painted = predictor.plan.labels.painted_classes
    mask = restore(torch.from_numpy(logits), prepared.record, painted)
    whole = predictor.classes(prepared)
    margin, rounding = (place_back(theirs[name], prepared.record) for name in ("exact_margin", "rounding"))
    differs = mask != theirs["mask"]
    return [
        f"{np.abs(prepared.image.numpy() - theirs['image']).max():.0e}",
        found,
        f"{np.abs(logits - theirs['exact_logits']).max():.0e}",
        f"{np.abs(theirs['logits'].astype(np.float64) - theirs['exact_logits']).max():.0e}",
        str(int(differs.sum())),
        str(int((mask != theirs["exact_mask"]).sum())),
        str(int((differs & (margin > 2 * rounding)).sum())),
        str(int((whole != theirs["mask"]).sum())),
        str(int((whole != theirs["exact_whole"]).sum())),
        f"{min(dices(whole, theirs['mask']).values(), default=1.0):.4f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench cascade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, help="how many of RAW are taken (default: all)")
    parser.add_argument("--nnunet-python", type=Path)
    args = parser.parse_args(arguments)
    raw = subset(args.raw, args.out / "raw", args.cases)
    if args.nnunet_python is not None:
        command = [str(args.nnunet_python), str(RUN), str(raw), str(args.out)]
        subprocess.run(command, check=True, env=nnunet_environment(args.out))
    model = args.out / "model"
    if not model.exists():
        import_nnunet(args.out / f"nnUNetTrainer__nnUNetPlans__{STAGES[1]}", model)
    second = Predictor.of(load_model(model, STAGES[1]), device="cpu", precision="fp32", mirroring=False)
    rows = [
        [
            "stage",
            "case",
            "image",
            "labels",
            "logits",
            "float16",
            "voxels",
            "(64)",
            "unexplained",
            "whole",
            "(64)",
            "Dice",
        ]
    ]
    for predictor, name in zip((second.previous, second), STAGES):
        for image in sorted((raw / "imagesTr").iterdir()):
            case = image.name.removesuffix("_0000.nii.gz")
            first = args.out / STAGES[0] / f"{case}.nii.gz" if name == STAGES[1] else None
            rows.append([name, case, *compared(predictor, image, args.out / name / f"{case}.npz", first)])
    print(columns(rows))
    print(
        "image, logits: largest difference on the network's grid (logits from nnU-Net's in float64), float16: of "
        "nnU-Net's logits from its own in float64; labels of the first stage: voxels that differ on that grid; voxels: "
        "of the mask that differ from nnU-Net's, (64): from its float64 one, unexplained: whose margin in float64 is "
        "over twice the rounding of a logit; whole: all steps by segfw, Dice: of its worst label"
    )

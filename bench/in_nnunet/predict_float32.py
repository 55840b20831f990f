"""nnU-Net v2's own prediction with its sums of tiles in float32, which are 16 bit otherwise. Runs in its environment.

PYTHON bench/in_nnunet/predict_float32.py TRAINER__PLANS__CONFIGURATION IMAGES OUT [--no-mirroring]
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

FINAL = "checkpoint_final.pth"
BEST = "checkpoint_best.pth"


def checkpoints(model: Path) -> tuple[str, list[str]]:
    """File name of the weights and the folds that have it: the final ones, or the best where no fold has final ones."""
    found = {name: sorted(path.parent.name for path in model.glob(f"fold_*/{name}")) for name in (FINAL, BEST)}
    name = FINAL if found[FINAL] else BEST
    return name, [folder.removeprefix("fold_") for folder in found[name]]


def predict(
    model: Path, folds: Sequence[int | str], images: Path, output: Path, *, file: str = FINAL, mirroring: bool = True
) -> None:
    """By nnU-Net's predictor on the CPU, case by case."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=mirroring, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), tuple(folds), file)
    output.mkdir(parents=True)
    predictor.predict_from_files_sequential(str(images), str(output))


@contextmanager
def in_float32() -> Iterator[None]:
    """nnU-Net sums the outputs of tiles in 16 bit and keeps them so: here it does the same in float32."""
    from nnunetv2.inference import predict_from_raw_data

    gaussian = predict_from_raw_data.compute_gaussian
    half = torch.half
    exact = functools.partial(gaussian, dtype=torch.float32)
    exact.cache_clear = gaussian.cache_clear
    predict_from_raw_data.compute_gaussian = exact
    torch.half = torch.float32
    try:
        yield
    finally:
        predict_from_raw_data.compute_gaussian = gaussian
        torch.half = half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--no-mirroring", action="store_true")
    args = parser.parse_args()
    file, names = checkpoints(args.model)
    names = [name for name in names if name != "all"] or names
    folds = [int(name) if name.isdigit() else name for name in names]
    with in_float32():
        predict(args.model, folds, args.images, args.output, file=file, mirroring=not args.no_mirroring)


if __name__ == "__main__":
    main()

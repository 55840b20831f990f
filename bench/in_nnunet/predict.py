"""Predicts with nnU-Net v2 as nnUNetv2_predict does and notes the time of each part. Runs in nnU-Net's environment.

    PYTHON bench/in_nnunet/predict.py predict --model F --images I --masks M --threads 2
    PYTHON bench/in_nnunet/predict.py export --model F --old 50 448 448 --new 60 512 512 --threads 2

What is computed is untouched: functions are wrapped to read the clock, in its worker processes too, which import this
file anew. One worker each reads and writes, because every one of them holds all logits. ``export`` only times the way
from logits to the mask, of random logits. ``python -m bench prediction`` calls it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

NOTES = "SEGFW_COMPARISON_NOTES"  # the file to note in, for the worker processes of one run


def noted(part: str, call: Callable) -> Callable:
    """The same function, which appends one line with the seconds it took."""

    @functools.wraps(call)
    def timed(*args: object, **options: object) -> object:
        start = time.perf_counter()
        try:
            return call(*args, **options)
        finally:
            line = json.dumps({"part": part, "seconds": time.perf_counter() - start}) + "\n"
            with open(os.environ[NOTES], "a", encoding="utf-8") as file:
                file.write(line)

    return timed


def watch() -> None:
    """Wraps nnU-Net's functions in this process."""
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
    from nnunetv2.inference import export_prediction
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    for files in LIST_OF_IO_CLASSES:
        for part, name in (("read", "read_images"), ("write", "write_seg")):
            if name in vars(files):  # not those of its parent, which are wrapped already
                setattr(files, name, noted(part, getattr(files, name)))
    DefaultPreprocessor.run_case = noted("read_and_preprocess", DefaultPreprocessor.run_case)
    name = "predict_logits_from_preprocessed_data"
    setattr(nnUNetPredictor, name, noted("network", getattr(nnUNetPredictor, name)))
    name = "convert_predicted_logits_to_segmentation_with_correct_shape"
    setattr(export_prediction, name, noted("restore", getattr(export_prediction, name)))


if NOTES in os.environ:
    watch()


def predict(args: argparse.Namespace) -> None:
    """All images of a folder, as the command line does it."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(args.threads)
    if args.device == "cuda":  # as its command line does
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
    predictor = nnUNetPredictor(
        tile_step_size=args.step, use_mirroring=not args.no_mirroring, device=torch.device(args.device)
    )
    predictor.initialize_from_trained_model_folder(str(args.model), (0,))
    predictor.predict_from_files(
        str(args.images),
        str(args.masks),
        num_processes_preprocessing=1,
        num_processes_segmentation_export=1,
    )


def export(args: argparse.Namespace) -> None:
    """From random logits (K, *old) to classes on the grid ``new``, as nnU-Net's worker does it."""
    import numpy as np
    from nnunetv2.inference import export_prediction
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((args.model / "plans.json").read_text(encoding="utf-8")))
    configuration = plans.get_configuration("3d_fullres")
    labels = plans.get_label_manager(json.loads((args.model / "dataset.json").read_text(encoding="utf-8")))
    logits = np.random.default_rng(0).standard_normal((labels.num_segmentation_heads, *args.old), dtype=np.float32)
    properties = {
        "spacing": [mm * old / new for mm, old, new in zip(configuration.spacing, args.old, args.new)],
        "shape_after_cropping_and_before_resampling": tuple(args.new),
        "shape_before_cropping": tuple(args.new),
        "bbox_used_for_cropping": [[0, size] for size in args.new],
    }
    export_prediction.convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.astype(np.float16), plans, configuration, labels, properties, num_threads_torch=args.threads
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    for call in (predict, export):
        part = parts.add_parser(call.__name__, help=call.__doc__)
        part.add_argument("--model", type=Path, required=True)
        part.add_argument("--threads", type=int, required=True)
        part.set_defaults(call=call)
        if call is export:
            part.add_argument("--old", type=int, nargs=3, required=True)
            part.add_argument("--new", type=int, nargs=3, required=True)
        else:
            part.add_argument("--images", type=Path, required=True)
            part.add_argument("--masks", type=Path, required=True)
            part.add_argument("--step", type=float, default=0.5)
            part.add_argument("--no-mirroring", action="store_true")
            part.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()

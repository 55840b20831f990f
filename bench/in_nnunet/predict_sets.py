"""Predicts several sets of images with nnU-Net v2, each with a model of its own. Runs in nnU-Net's environment.

    nnunet-venv/bin/python bench/in_nnunet/predict_sets.py JOBS.json

JOBS.json is a list of {model, folds, checkpoint, mirroring, images, output}. A set that fails does not keep the others
from being predicted. ``python -m bench readers`` calls it.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import torch


def main() -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            predictor = nnUNetPredictor(use_mirroring=job["mirroring"], device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(job["model"], job["folds"], job["checkpoint"])
            predictor.predict_from_files_sequential(job["images"], job["output"], False, True, None)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()

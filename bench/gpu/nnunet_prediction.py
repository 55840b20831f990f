"""nnU-Net's own sliding window on the same image, with a network of the same size: seconds to the logits."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import torch

from bench.gpu.steps import nnunet_network
from bench.gpu.timing import peak_gib, reset_peak, synchronize
from bench.gpu.visit import Problem, Visit

STEP = 0.5  # of the window, in patches


def nnunet_predicted(
    visit: Visit, problem: Problem, image_czyx: torch.Tensor, *, mirror_axes: tuple[int, ...]
) -> dict[str, float]:
    """Seconds of the second of two predictions with perform_everything_on_device, and peak memory.

    From the image on the network's grid to logits there: what follows in nnU-Net, resampling all logits to the file's
    grid and the largest of them, is not in it, and in segfw is told as restore_s.
    """
    if str(visit.nnunet_folder) not in sys.path:
        sys.path.insert(0, str(visit.nnunet_folder))
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=STEP,
        use_gaussian=True,
        use_mirroring=bool(mirror_axes),
        perform_everything_on_device=visit.on_cuda,
        device=visit.device,
        allow_tqdm=False,
    )
    predictor.network = nnunet_network(visit, problem, deep_supervision=False).eval()
    predictor.allowed_mirroring_axes = mirror_axes or None
    predictor.configuration_manager = SimpleNamespace(patch_size=list(problem.patch_size))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=problem.network.classes)
    seconds = 0.0
    for _ in range(visit.pick(2, 1)):  # the first warms up
        reset_peak(visit.device)
        began = time.perf_counter()
        predictor.predict_sliding_window_return_logits(image_czyx)
        synchronize(visit.device)
        seconds = time.perf_counter() - began
    return {"network_s": round(seconds, 2)} | peak_gib(visit.device)

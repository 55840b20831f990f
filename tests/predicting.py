"""``segfw predict`` of a small model in a process of its own, slow enough to be killed in the midst of it.

python predicting.py MODEL IMAGES MASKS [slow=SECONDS] [file_limit=BYTES] [arguments of predict as name=value ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from conftest import blocks_case, write_nifti
from small_training import LABELS, configuration, spec

from segfw.dataset.cases import Channel
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.images.formats import read_mask
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.weights import save_weights
from segfw.networks import build_network
from segfw.planning.plan import PLAN_FILE, Plan

SHAPES = ((20, 18, 10), (22, 17, 9), (18, 19, 11))  # (x, y, z)


def make_model(folder: Path) -> Path:
    """A model directory with a drawn network: masks have all labels, and depend on every voxel."""
    torch.manual_seed(3)
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="zscore"),))
    chosen = configuration(how, spec(features=(4, 8)))
    plan = Plan(
        dataset="blocks",
        preset="plain",
        gpu_memory_gb=8,
        as_published=False,
        channels=(Channel(name="MR"),),
        labels=LABELS,
        training_cases=4,
        configurations={"3d_fullres": chosen},
        reasons=(),
    )
    plan.save(folder / PLAN_FILE)
    weights = build_network(chosen.network).state_dict()
    save_weights(fold_folder(folder, "3d_fullres", "0") / WEIGHTS_FILE, weights, epoch=1, mirror_axes=(2,))
    return folder


def make_images(folder: Path, count: int) -> Path:
    """Images of three shapes: a.nii.gz, b.nii.gz ..."""
    for number in range(count):
        image, _ = blocks_case(number, SHAPES[number % len(SHAPES)])
        write_nifti(folder / f"{chr(ord('a') + number)}.nii.gz", image)
    return folder


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_mask(path).array for path in folder.glob("[!.]*.nii.gz")}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def slowly(seconds: float):
    """Builds networks that take at least so long for each batch of tiles."""

    def build(wanted):
        network = build_network(wanted)
        network.register_forward_pre_hook(lambda *_: time.sleep(seconds))
        return network

    return build


def main() -> int:
    from segfw.base.parallel import CasesFailed
    from segfw.verbs.predict import predict

    paths, options = [Path(text) for text in sys.argv[1:4]], {}
    for text in sys.argv[4:]:
        name, value = text.split("=", 1)
        if name == "slow":
            options["build"] = slowly(float(value))
        elif name == "file_limit":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        else:
            options[name] = value
    try:
        predict(*paths, **{"device": "cpu"} | options)
    except CasesFailed as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Makes small trained models of every kind that nnU-Net v2 knows, and its predictions. Runs in nnU-Net's environment.

    PYTHON -m bench.in_nnunet.make_models OUT --raw Dataset004_Hippocampus --images 2
    PYTHON -m bench.in_nnunet.make_models OUT --raw Dataset004_Hippocampus --only plain-2d regions

nnU-Net plans the raw folder, the plans are made small and changed by one of VARIANTS, its network is trained for some
steps on the first case, so that its maps are smooth, and its own predictor predicts. Each folder of OUT holds model/,
images/, predictions/ and patch.npz, as ``python -m bench models imported --models OUT`` wants them. Beside these lie
predictions_float32/, for which nnU-Net sums tiles in float32 and not in 16 bit, and logits in float64 in patch.npz.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch

from bench.in_nnunet.predict_float32 import in_float32, predict
from bench.in_nnunet.variants import PLANNERS, VARIANTS, Change, in_old_words

STAGES = 4
FEATURES = (8, 12, 16, 24)
EDGE = {2: 64, 3: 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--raw", type=Path, required=True, help="a data set in nnU-Net's raw layout")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--images", type=int, default=2, help="how many are predicted")
    parser.add_argument("--steps", type=int, default=40, help="of the training")
    args = parser.parse_args()
    home = args.out.resolve() / ".nnunet"
    for name in ("raw", "preprocessed", "results"):
        (home / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(home / name)
    link = home / "raw" / "Dataset001_given"
    if not link.exists():
        link.symlink_to(args.raw.resolve(), target_is_directory=True)
    torch.set_num_threads(1)
    for name in args.only:
        make(name, args, home)
        print("made", name, flush=True)


def planned(planner: str, home: Path) -> dict:
    """What nnU-Net's planner writes for the data set."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    path = home / f"{planner}.json"
    if not path.is_file():
        extract_fingerprints([1], num_processes=1)
        plan_experiments([1], PLANNERS[planner])
        newest = max((home / "preprocessed" / "Dataset001_given").glob("nnUNet*lans*.json"), key=os.path.getmtime)
        shutil.copy(newest, path)
    return json.loads(path.read_text(encoding="utf-8"))


def made_small(entry: dict) -> None:
    """Some stages with few features and a small patch."""
    arguments = entry["architecture"]["arch_kwargs"]
    stages = min(STAGES, arguments["n_stages"])
    arguments |= {"n_stages": stages, "features_per_stage": list(FEATURES[:stages])}
    for key in ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if key in arguments:
            arguments[key] = arguments[key][: stages - (key == "n_conv_per_stage_decoder")]
    steps = np.prod(arguments["strides"], 0)
    edge = EDGE[len(steps)]
    wanted = [min(edge, size) for size in entry["patch_size"]]
    entry["patch_size"] = [int(-(-size // step) * step) for size, step in zip(wanted, steps)]


def make(name: str, args: argparse.Namespace, home: Path) -> None:
    """One folder of OUT."""
    planner, configuration, change, special = VARIANTS[name]
    plans = planned(planner, home)
    dataset = json.loads((args.raw / "dataset.json").read_text(encoding="utf-8"))
    entry = changed_plans(plans, dataset, configuration, change, special)

    folder = args.out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = folder / "model" / f"nnUNetTrainer__{plans['plans_name']}__{configuration}"
    model.mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (model / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    copied(args, dataset["file_ending"], folder / "images")

    folds = special.get("folds", (0,))
    file = special.get("file", "checkpoint_final.pth")
    for seed, fold in enumerate(folds):
        task = Task(plans, dataset, configuration, args.raw)
        trained, image = train(task, args.steps, seed)
        content = {
            "network_weights": trained.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration, "fold": fold, "plans": plans, "dataset_json": dataset},
            "inference_allowed_mirroring_axes": special.get("mirror"),
            "current_epoch": 1,
        }
        (model / f"fold_{fold}").mkdir()
        torch.save(content, model / f"fold_{fold}" / file)
        if seed == 0:
            write_patch(trained, image, folder / "patch.npz")

    predict(model, folds, folder / "images", folder / "predictions", file=file)
    with in_float32():
        predict(model, folds, folder / "images", folder / "predictions_float32", file=file)

    # What nnU-Net of today could not have predicted with, but wrote once.
    if "words" in special:
        plans["configurations"] = {configuration: in_old_words(entry)}
        (model / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    if "wrapper" in special:  # which nnU-Net takes off before it saves, but others do not
        add_wrapper(model / f"fold_{folds[0]}" / file, special["wrapper"])


def changed_plans(plans: dict, dataset: dict, configuration: str, change: Change, special: dict) -> dict:
    """Makes one configuration small and changes it, in place; returns the whole of it.

    It is written as an heir of the one that it came from.
    """
    base = plans["configurations"][configuration]
    entry = copy.deepcopy(base)
    made_small(entry)
    change(entry, dataset)
    heir = {key: value for key, value in entry.items() if base.get(key) != value}
    plans["configurations"] = {"base": base, configuration: {"inherits_from": "base"} | heir}
    if "order" in special:
        order = list(special["order"])
        plans["transpose_forward"] = order
        plans["transpose_backward"] = [order.index(axis) for axis in range(3)]
    return entry


def add_wrapper(path: Path, wrapper: str) -> None:
    """Puts ``wrapper`` before the name of every tensor of a checkpoint."""
    content = torch.load(path, weights_only=False)
    weights = content["network_weights"]
    content["network_weights"] = {wrapper + name: tensor for name, tensor in weights.items()}
    torch.save(content, path)


def copied(args: argparse.Namespace, ending: str, target: Path) -> None:
    """Links to the last images of the raw folder."""
    target.mkdir()
    cases = sorted(path.name.removesuffix(ending) for path in (args.raw / "labelsTr").glob(f"*{ending}"))
    for case in cases[-args.images :]:
        for path in (args.raw / "imagesTr").glob(f"{case}_????{ending}"):
            (target / path.name).symlink_to(path.resolve())


class Task:
    """What nnU-Net makes of plans and dataset.json, and the first case of the raw folder."""

    def __init__(self, plans: dict, dataset: dict, configuration: str, raw: Path) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.dataset = dataset
        self.raw = raw
        self.manager = PlansManager(copy.deepcopy(plans))
        self.configuration = self.manager.get_configuration(configuration)
        self.labels = self.manager.get_label_manager(dataset)
        self.is_2d = len(self.configuration.patch_size) == 2

    @property
    def patch_size(self) -> list[int]:
        """(z, y, x), one slice in 2-D."""
        return [1] * self.is_2d + list(self.configuration.patch_size)

    def network(self) -> torch.nn.Module:
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        return get_network_from_plans(
            self.configuration.network_arch_class_name,
            self.configuration.network_arch_init_kwargs,
            self.configuration.network_arch_init_kwargs_req_import,
            determine_num_input_channels(self.manager, self.configuration, self.dataset),
            self.labels.num_segmentation_heads,
            deep_supervision=False,
        )

    def first_case(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (C, Z, Y, X) and one-hot labels or regions (K, Z, Y, X), both at least as large as the patch."""
        ending = self.dataset["file_ending"]
        label = min((self.raw / "labelsTr").glob(f"*{ending}"))
        images = sorted((self.raw / "imagesTr").glob(f"{label.name.removesuffix(ending)}_????{ending}"))
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        paths = [str(path) for path in images]
        image, mask, _ = preprocessor.run_case(paths, str(label), self.manager, self.configuration, self.dataset)
        image = torch.as_tensor(np.asarray(image)).float()
        mask = torch.as_tensor(np.asarray(mask))[0].long()
        if self.labels.has_regions:
            regions = [torch.isin(mask, torch.tensor(region)) for region in self.labels.foreground_regions]
            target = torch.stack(regions).float()
        else:
            values = torch.tensor(self.labels.all_labels)
            target = (mask == values.view(-1, 1, 1, 1)).float()
        pads: list[int] = []
        for wanted, size in zip(reversed(self.patch_size), reversed(mask.shape)):  # PyTorch pads the last axis first
            pads += [0, max(0, wanted - size)]
        return torch.nn.functional.pad(image, pads), torch.nn.functional.pad(target, pads)


def train(task: Task, steps: int, seed: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network that has learned a little of the first case, and a patch of it (1, C, [Z,] Y, X)."""
    image, target = task.first_case()
    torch.manual_seed(seed)
    network = task.network()
    loss = torch.nn.BCEWithLogitsLoss() if task.labels.has_regions else torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    foreground = target if task.labels.has_regions else target[1:]
    centres = foreground.amax(0).nonzero()
    for _ in range(steps):
        centre = centres[int(torch.randint(len(centres), ()))]
        place = (slice(None), *patch_around(centre.tolist(), task.patch_size, target.shape[1:]))
        patch = image[place][None]
        truth = target[place][None]
        if task.is_2d:
            patch = patch[:, :, 0]
            truth = truth[:, :, 0]
        optimiser.zero_grad()
        loss(network(patch), truth).backward()
        optimiser.step()
    return network.eval(), patch


def patch_around(centre: list[int], size: list[int], shape: tuple[int, ...]) -> list[slice]:
    """The box of ``size`` around a voxel, moved so that it lies inside."""
    place = []
    for middle, wanted, available in zip(centre, size, shape):
        start = min(max(0, middle - wanted // 2), available - wanted)
        place.append(slice(start, start + wanted))
    return place


@torch.no_grad()
def write_patch(network: torch.nn.Module, image: torch.Tensor, path: Path) -> None:
    """The network's output for an image, in its own precision and in float64."""
    exact = copy.deepcopy(network).double()(image.double())
    np.savez_compressed(path, input=image.numpy(), logits=network(image).numpy(), logits64=exact.numpy())


if __name__ == "__main__":
    main()

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
from bench.in_nnunet.variants import PLANNERS, VARIANTS, in_old_words

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
    return json.loads(path.read_text())


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
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    planner, configuration, change, special = VARIANTS[name]
    plans = planned(planner, home)
    dataset = json.loads((args.raw / "dataset.json").read_text())
    # The changed configuration is written as an heir of the one that it came from.
    base = plans["configurations"][configuration]
    entry = copy.deepcopy(base)
    made_small(entry)
    change(entry, dataset)
    heir = {key: value for key, value in entry.items() if base.get(key) != value}
    plans["configurations"] = {"base": base, configuration: {"inherits_from": "base"} | heir}
    if "order" in special:
        order = list(special["order"])
        plans |= {"transpose_forward": order, "transpose_backward": [order.index(axis) for axis in range(3)]}
    folder = args.out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = folder / "model" / f"nnUNetTrainer__{plans['plans_name']}__{configuration}"
    model.mkdir(parents=True)
    for file, content in (("plans.json", plans), ("dataset.json", dataset)):
        (model / file).write_text(json.dumps(content))
    copied(args, dataset["file_ending"], folder / "images")
    manager = PlansManager(copy.deepcopy(plans))
    folds = special.get("folds", (0,))
    file = special.get("file", "checkpoint_final.pth")
    for seed, fold in enumerate(folds):
        trained, image = train(manager, configuration, dataset, args, seed)
        (model / f"fold_{fold}").mkdir()
        content = {
            "network_weights": trained.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration, "fold": fold, "plans": plans, "dataset_json": dataset},
            "inference_allowed_mirroring_axes": special.get("mirror"),
            "current_epoch": 1,
        }
        torch.save(content, model / f"fold_{fold}" / file)
        if seed == 0:
            write_patch(trained, image, folder / "patch.npz")
    predict(model, folds, folder / "images", folder / "predictions", file=file)
    with in_float32():
        predict(model, folds, folder / "images", folder / "predictions_float32", file=file)
    if "words" in special:
        plans["configurations"] = {configuration: in_old_words(entry)}
        (model / "plans.json").write_text(json.dumps(plans))
    if "wrapper" in special:  # which nnU-Net takes off before it saves, but others do not
        content["network_weights"] = {
            special["wrapper"] + key: value for key, value in content["network_weights"].items()
        }
        torch.save(content, model / f"fold_{folds[0]}" / file)


def copied(args: argparse.Namespace, ending: str, target: Path) -> None:
    target.mkdir()
    cases = sorted(path.name.removesuffix(ending) for path in (args.raw / "labelsTr").glob(f"*{ending}"))
    for case in cases[-args.images :]:
        for path in (args.raw / "imagesTr").glob(f"{case}_????{ending}"):
            (target / path.name).symlink_to(path.resolve())


def train(manager: object, configuration: str, dataset: dict, args: argparse.Namespace, seed: int) -> tuple:
    """A network that has learned a little of the first case, and a patch of it."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    chosen = manager.get_configuration(configuration)
    labels = manager.get_label_manager(dataset)
    ending = dataset["file_ending"]
    label = sorted((args.raw / "labelsTr").glob(f"*{ending}"))[0]
    images = sorted((args.raw / "imagesTr").glob(f"{label.name.removesuffix(ending)}_????{ending}"))
    preprocessor = chosen.preprocessor_class(verbose=False)
    image, mask, _ = preprocessor.run_case([*map(str, images)], str(label), manager, chosen, dataset)
    image = torch.as_tensor(np.asarray(image)).float()
    mask = torch.as_tensor(np.asarray(mask))[0].long()
    torch.manual_seed(seed)
    network = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        determine_num_input_channels(manager, chosen, dataset),
        labels.num_segmentation_heads,
        deep_supervision=False,
    )
    if labels.has_regions:
        target = torch.stack([torch.isin(mask, torch.tensor(region)) for region in labels.foreground_regions]).float()
    else:
        values = torch.tensor(labels.all_labels)
        target = (mask == values.view(-1, 1, 1, 1)).float()
    size = list(chosen.patch_size)
    size, is_2d = ([1, *size], True) if len(size) == 2 else (size, False)
    missing = [max(0, want - have) for want, have in zip(size, mask.shape)][::-1]
    pads = [side for count in missing for side in (0, count)]
    image = torch.nn.functional.pad(image, pads)
    target = torch.nn.functional.pad(target, pads)
    loss = torch.nn.BCEWithLogitsLoss() if labels.has_regions else torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    centres = target[(0 if labels.has_regions else 1) :].amax(0).nonzero()
    for _ in range(args.steps):
        centre = centres[int(torch.randint(len(centres), ()))]
        place = [slice(start, start + want) for start, want in starts(centre.tolist(), size, target.shape[1:])]
        patch = image[(slice(None), *place)][None]
        wanted = target[(slice(None), *place)][None]
        found = network(patch[:, :, 0] if is_2d else patch)
        optimiser.zero_grad()
        loss(found, wanted[:, :, 0] if is_2d else wanted).backward()
        optimiser.step()
    return network.eval(), patch[:, :, 0] if is_2d else patch


def starts(centre: list[int], size: list[int], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(min(max(0, at - want // 2), have - want), want) for at, want, have in zip(centre, size, shape)]


@torch.no_grad()
def write_patch(network: torch.nn.Module, image: torch.Tensor, path: Path) -> None:
    """The network's output for an image, in its own precision and in float64."""
    exact = copy.deepcopy(network).double()(image.double())
    np.savez_compressed(path, input=image.numpy(), logits=network(image).numpy(), logits64=exact.numpy())


if __name__ == "__main__":
    main()

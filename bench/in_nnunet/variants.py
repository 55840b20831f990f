"""The kinds of models that ``make_models.py`` makes: what is changed in the plans that nnU-Net writes."""

from __future__ import annotations

from collections.abc import Callable

PLANNERS = {"plain": "ExperimentPlanner", "m": "nnUNetPlannerResEncM", "l": "nnUNetPlannerResEncL"}
PLANNERS |= {"xl": "nnUNetPlannerResEncXL", "torch": "nnUNetPlannerResEncL_torchres_sepz"}
PLANNERS |= {"torch-whole": "nnUNetPlannerResEncL_torchres", "as-it-is": "nnUNetPlannerResEncL_noResampling"}
Change = Callable[[dict, dict], None]  # of a configuration and of dataset.json, in place


def network(**arguments: object) -> Change:
    """Other arguments of the network."""
    return lambda entry, dataset: entry["architecture"]["arch_kwargs"].update(arguments)


def resampling(**kinds: dict) -> Change:
    """Other arguments of the resampling of data, seg or probabilities."""

    def change(entry: dict, dataset: dict) -> None:
        for kind, arguments in kinds.items():
            entry[f"resampling_fn_{kind}_kwargs"].update(arguments)

    return change


def spacing(*factors: float) -> Change:
    """Voxels so many times as long along each axis, in the network's order; 2-D configurations take the last two."""

    def change(entry: dict, dataset: dict) -> None:
        used = factors[-len(entry["spacing"]) :]
        entry["spacing"] = [length * factor for length, factor in zip(entry["spacing"], used)]

    return change


def normalised(scheme: str, masked: bool = False) -> Change:
    """All channels by one scheme."""

    def change(entry: dict, dataset: dict) -> None:
        channels = len(entry["normalization_schemes"])
        entry.update(normalization_schemes=[scheme] * channels, use_mask_for_norm=[masked] * channels)

    return change


def mixed(entry: dict, dataset: dict) -> None:
    """A scheme and a mask of its own for every channel."""
    channels = len(entry["normalization_schemes"])
    schemes = ["ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "NoNormalization"]
    entry.update(normalization_schemes=(schemes * channels)[:channels], use_mask_for_norm=[True, False] * channels)


def regions(ignore: bool) -> Change:
    """Nested regions, the whole first, each painted as its first label that no later one has."""

    def change(entry: dict, dataset: dict) -> None:
        values = sorted(value for value in dataset["labels"].values() if value)
        nested = {f"from_{value}": values[index:] for index, value in enumerate(values)}
        dataset["labels"] = {"background": 0} | nested | ({"ignore": values[-1] + 1} if ignore else {})
        dataset["regions_class_order"] = values

    return change


def ignored(entry: dict, dataset: dict) -> None:
    dataset["labels"]["ignore"] = max(dataset["labels"].values()) + 1


def one_label(entry: dict, dataset: dict) -> None:
    dataset["labels"] = {"background": 0, "first": 1}


def flat(entry: dict, dataset: dict) -> None:
    """The first two stages neither look nor stride across slices."""
    arguments = entry["architecture"]["arch_kwargs"]
    arguments["kernel_sizes"][:2] = [[1, 3, 3], [1, 3, 3]]
    arguments["strides"][1:3] = [[1, 2, 2], [1, 2, 2]]
    entry["patch_size"] = [8, *entry["patch_size"][1:]]


def in_old_words(entry: dict) -> dict:
    """As nnU-Net wrote plans before version 2.3: the features follow from the first and the most."""
    network_class = entry["architecture"]["network_class_name"]
    arguments = entry["architecture"]["arch_kwargs"]
    old = {
        "UNet_class_name": network_class.rsplit(".", 1)[-1],
        "UNet_base_num_features": arguments["features_per_stage"][0],
        "unet_max_num_features": max(arguments["features_per_stage"]),
        "n_conv_per_stage_encoder": arguments.get("n_conv_per_stage", arguments.get("n_blocks_per_stage")),
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [3] * len(entry["patch_size"]),
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }
    return {key: value for key, value in entry.items() if key != "architecture"} | old


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(entry: dict, dataset: dict) -> None:
        for one in changes:
            one(entry, dataset)

    return change


COARSER = spacing(1.3, 1.6, 1.7)
APART = {"force_separate_z": True}
WHOLE = {"force_separate_z": False}
GEOMETRIC = network(features_per_stage=[8, 16, 20, 20])
THICK = spacing(4.0, 1.1, 1.2)
# name: planner, configuration, change, and what else is special: folds, mirrored axes, order of axes, file, wrapper
VARIANTS: dict[str, tuple[str, str, Change, dict]] = {
    "plain-2d": ("plain", "2d", COARSER, {"mirror": (0, 1)}),
    "plain-3d": ("plain", "3d_fullres", COARSER, {"mirror": (0, 2)}),
    "flat-kernels": ("plain", "3d_fullres", both(COARSER, flat), {}),
    "resenc-m": ("m", "3d_fullres", COARSER, {"mirror": (1,)}),
    "resenc-l-flat": ("l", "3d_fullres", both(COARSER, flat), {}),
    "resenc-xl-2d": ("xl", "2d", COARSER, {}),
    "no-bias": ("m", "3d_fullres", both(COARSER, network(conv_bias=False)), {}),
    "norm-bare": ("plain", "3d_fullres", both(COARSER, network(norm_op_kwargs={"eps": 1e-3})), {}),
    "norm-eps": ("m", "3d_fullres", both(COARSER, network(norm_op_kwargs={"eps": 0.1, "affine": True})), {}),
    "leak": ("m", "3d_fullres", both(COARSER, network(nonlin_kwargs={"negative_slope": 0.2, "inplace": False})), {}),
    "relu": ("plain", "2d", both(COARSER, network(nonlin="torch.nn.ReLU", nonlin_kwargs={"inplace": True})), {}),
    "dropout": (
        "plain",
        "3d_fullres",
        both(COARSER, network(dropout_op="torch.nn.Dropout3d", dropout_op_kwargs={"p": 0.2})),
        {},
    ),
    "old-plain": ("plain", "3d_fullres", both(COARSER, GEOMETRIC), {"words": "old"}),
    "old-resenc-2d": ("m", "2d", both(COARSER, GEOMETRIC), {"words": "old"}),
    "ct": ("plain", "3d_fullres", both(COARSER, normalised("CTNormalization")), {}),
    "zscore-masked": ("plain", "3d_fullres", both(COARSER, normalised("ZScoreNormalization", True)), {}),
    "zscore-whole": ("plain", "3d_fullres", both(COARSER, normalised("ZScoreNormalization")), {}),
    "none": ("plain", "3d_fullres", both(COARSER, normalised("NoNormalization", True)), {}),
    "rescale": ("plain", "3d_fullres", both(COARSER, normalised("RescaleTo01Normalization")), {}),
    "rgb": ("plain", "3d_fullres", both(COARSER, normalised("RGBTo01Normalization")), {}),
    "mixed": ("plain", "3d_fullres", both(COARSER, mixed), {}),
    "regions": ("m", "3d_fullres", both(COARSER, regions(False)), {}),
    "regions-ignore": ("plain", "2d", both(COARSER, regions(True)), {}),
    "ignore": ("plain", "3d_fullres", both(COARSER, ignored), {}),
    "one-label": ("plain", "3d_fullres", both(COARSER, one_label), {}),
    "folds": ("plain", "3d_fullres", COARSER, {"folds": (0, 1, 4), "mirror": (2,)}),
    "fold-all-best": ("plain", "3d_fullres", COARSER, {"folds": ("all",), "file": "checkpoint_best.pth"}),
    "compiled": ("plain", "3d_fullres", COARSER, {"wrapper": "_orig_mod."}),
    "transposed": ("plain", "3d_fullres", COARSER, {"order": (2, 0, 1)}),
    "transposed-2d": ("plain", "2d", COARSER, {"order": (1, 0, 2), "mirror": (1,)}),
    "thick": ("plain", "3d_fullres", THICK, {}),
    "thick-not-apart": ("plain", "3d_fullres", both(THICK, resampling(data=WHOLE, probabilities=WHOLE)), {}),
    "apart": ("plain", "3d_fullres", both(spacing(1.5, 1.1, 1.2), resampling(data=APART, probabilities=APART)), {}),
    "linear": ("plain", "3d_fullres", both(COARSER, resampling(data={"order": 1})), {}),
    "nearest": ("plain", "3d_fullres", both(COARSER, resampling(data={"order": 0}, probabilities={"order": 0})), {}),
    "order-z": (
        "plain",
        "3d_fullres",
        both(THICK, resampling(data={"order": 2, "order_z": 3}, probabilities={"order_z": 1})),
        {},
    ),
    "torch": ("torch", "3d_fullres", THICK, {}),
    "torch-whole": ("torch-whole", "3d_fullres", COARSER, {}),
    "as-it-is": ("as-it-is", "3d_fullres", COARSER, {}),
}

"""How nnU-Net v2's plans resample, in our terms; what segfw computes otherwise is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segfw.base.records import UserError
from segfw.grid.resample import Resampling

DEFAULT = "resample_data_or_seg_to_shape"
TORCH = "resample_torch_fornnunet"
NONE = "no_resampling_hack"
RESAMPLED = ("data", "seg", "probabilities")  # each by a function of its own
# By function: what its arguments are when they are left out, and must be where segfw has nothing else.
ARGUMENTS: dict[str, dict[str, Any]] = {
    DEFAULT: {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False},
    TORCH: {"is_seg": False, "force_separate_z": None, "mode": "linear", "aniso_axis_mode": "nearest-exact"},
    NONE: {},
}
ANISOTROPY = "separate_z_anisotropy_threshold"
WITHOUT_EFFECT = ("num_threads", "memefficient_seg_resampling", "device")  # on what is no mask
ORDERS = {"data": range(6), "probabilities": range(2)}  # of logits a spline is no convex combination


def resampling_of(entry: Mapping[str, Any], *, masks: bool, where: str) -> tuple[Resampling, Resampling] | None:
    """How images and logits of a configuration are resampled; None if nothing is.

    ``masks`` says whether masks are resampled too, as in training and in the second stage of a cascade: these segfw
    resamples only by nnU-Net's default. Raises UserError, naming function or arguments, for what segfw cannot follow.
    """
    functions = {kind: entry[f"resampling_fn_{kind}"] for kind in RESAMPLED if masks or kind != "seg"}
    if set(functions.values()) == {NONE}:
        return None
    if masks:
        _require_default_of_masks(entry, where)
    return _resampling(entry, "data", where), _resampling(entry, "probabilities", where)


def _resampling(entry: Mapping[str, Any], kind: str, where: str) -> Resampling:
    function = entry[f"resampling_fn_{kind}"]
    if function not in (DEFAULT, TORCH):
        raise UserError(f"{where}: {kind} is resampled by {function!r}, which segfw has not; predict with nnU-Net")
    arguments = entry[f"resampling_fn_{kind}_kwargs"]
    found = ARGUMENTS[function] | {key: value for key, value in arguments.items() if key not in WITHOUT_EFFECT}
    fixed = {"is_seg", "mode", "aniso_axis_mode"}
    different = {
        key: value
        for key, value in found.items()  # with the defaults, of which a spline for logits is one
        if key not in (*ARGUMENTS[function], ANISOTROPY)
        or (key in fixed and value != ARGUMENTS[function][key])
        or (key in ("order", "order_z") and value not in ORDERS[kind])
        or (key == "force_separate_z" and value not in (True, False, None))
        or (key == ANISOTROPY and value != 3)
    }
    if different:
        raise UserError(f"{where}: {kind} is resampled with {different}, which segfw has not; predict with nnU-Net")
    return Resampling(order=found.get("order", 1), across=found.get("order_z", 0), apart=found["force_separate_z"])


def _require_default_of_masks(entry: Mapping[str, Any], where: str) -> None:
    function = entry["resampling_fn_seg"]
    arguments = entry["resampling_fn_seg_kwargs"]
    default = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    if function != DEFAULT or ARGUMENTS[DEFAULT] | arguments != default:
        otherwise = f"by {function!r}" if function != DEFAULT else f"with {arguments}"
        raise UserError(
            f"{where}: masks (seg) are resampled {otherwise}, segfw only does nnU-Net's default; train and predict "
            "with nnU-Net"
        )


def resampling_json(images: Resampling, logits: Resampling) -> dict[str, Any]:
    """The fields of a configuration that say this to nnU-Net."""
    masks = Resampling(order=1)
    found: dict[str, Any] = {}
    for kind, resampling in zip(RESAMPLED, (images, masks, logits)):
        found[f"resampling_fn_{kind}"] = DEFAULT
        found[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": kind == "seg",
            "order": resampling.order,
            "order_z": resampling.across,
            "force_separate_z": resampling.apart,
        }
    return found

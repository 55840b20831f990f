"""Refiners whose networks are planted: what they answer is known beforehand, so that only the rest is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from builders.models import plan_of, write_fold
from builders.networks import spec
from builders.training import LABELS, ZSCORE, configuration
from segfw.clicks.click_maps import CHANNELS
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet, Region
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.images.geometry import Geometry
from segfw.images.volume import CANONICAL, Volume
from segfw.interaction.refiner import Refiner
from segfw.model.load import Model
from segfw.model.source import fold_folder
from segfw.model.weights import save_weights
from segfw.networks.spec import REFINER
from segfw.planning.plan import FULLRES, PLAN_FILE, REFINE

ORGANS = LabelSet(names=("background", "liver", "left kidney", "right kidney"), values=(0, 1, 2, 7))
TUMOUR = LabelSet(
    names=("background", "oedema", "core", "enhancing"),
    values=(0, 1, 2, 3),
    regions=(
        Region(name="whole", values=(1, 2, 3), painted=1),
        Region(name="inner", values=(2, 3), painted=2),
        Region(name="bright", values=(3,), painted=3),
    ),
)
UNEQUAL = (3.0, 1.0, 1.5)  # mm


class Planted(nn.Module):
    """Answers what a function of its input (1, C + 4, Z, Y, X) says: log-odds (1, Z, Y, X) of the structure.

    ``seen`` are all inputs.
    """

    def __init__(self, odds: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.odds = odds
        self.seen: list[np.ndarray] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image.clone().numpy())
        odds = self.odds(image) * self.scale
        return torch.stack((torch.zeros_like(odds), odds), 1)


def bright(image: Tensor, channel: int = 0) -> Tensor:
    """The structure is where a channel is above one half."""
    return 20 * (image[:, channel] - 0.5)


def as_given(image: Tensor) -> Tensor:
    """The structure is what it was."""
    return 20 * (image[:, -len(CHANNELS)] - 0.5)


def refiner(
    *networks: nn.Module,
    patch_size: tuple[int, int, int] = (16, 24, 24),
    spacing_mm: Sequence[float | None] = UNEQUAL,
    channels: tuple[str, ...] = ("MR",),
    labels: LabelSet = ORGANS,
    orientation: str = CANONICAL,
) -> Refiner:
    """A refiner of so many folds, with these networks."""
    none = (Normalization(kind="none"),) * len(channels)
    z, y, x = spacing_mm
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(z, y, x), normalization=none, orientation=orientation)
    network = spec(in_channels=len(channels) + len(CHANNELS), classes=2, strides=((1, 1, 1), (1, 1, 1)))
    chosen = configuration(how, network).model_copy(
        update={"name": REFINE, "is_refiner": True, "previous_stage": FULLRES, "patch_size": patch_size}
    )
    model = Model(
        plan=plan_of(chosen, labels=labels, channels=tuple(Channel(name=name) for name in channels)),
        configuration=chosen,
        weights={str(fold): each.state_dict() for fold, each in enumerate(networks)},
        mirror_axes=(),
    )
    waiting = list(networks)
    return Refiner(model, device="cpu", precision="fp32", build=lambda _: waiting.pop(0))


def canonical_grid(
    shape: Sequence[int], spacing_mm: Sequence[float] = UNEQUAL, origin_mm: Sequence[float] = (40.0, -30.0, 5.0)
) -> Geometry:
    """Axis 0 to the head, 1 to the front, 2 to the right of the patient."""
    z_mm, y_mm, x_mm = spacing_mm
    x0, y0, z0 = origin_mm
    affine = np.array([[0, 0, x_mm, x0], [0, y_mm, 0, y0], [z_mm, 0, 0, z0], [0, 0, 0, 1]], float)
    return Geometry.of(shape, affine)


def volume(array_zyx: np.ndarray, geometry: Geometry | None = None) -> Volume:
    array = array_zyx if array_zyx.ndim == 4 else array_zyx[None]
    return Volume(array=array, geometry=geometry or canonical_grid(array.shape[1:]))


def ras_of(geometry: Geometry, index_zyx: Sequence[float]) -> tuple[float, float, float]:
    """Where a voxel lies."""
    x, y, z = (geometry.matrix @ [*index_zyx, 1.0])[:3].tolist()
    return x, y, z


def refiner_folder(
    folder: Path,
    planted: nn.Module,
    *,
    folds: Sequence[str] = ("0",),
    labels: LabelSet = ORGANS,
    channels: tuple[str, ...] = ("MR",),
    spacing_mm: Sequence[float] = UNEQUAL,
    patch_size: tuple[int, int, int] = (16, 24, 24),
) -> Path:
    """The same as a work folder; whoever opens it gives ``build``."""
    model = refiner(planted, labels=labels, channels=channels, spacing_mm=spacing_mm, patch_size=patch_size).model
    folder.mkdir(parents=True)
    model.plan.save(folder / PLAN_FILE)
    for fold in folds:
        path = fold_folder(folder, model.configuration.name, fold) / "weights.safetensors"
        path.parent.mkdir(parents=True)
        save_weights(path, planted.state_dict(), epoch=7, mirror_axes=())
    return folder


def untrained_refiner(
    folder: Path,
    channels: tuple[str, ...] = ("MR",),
    labels: LabelSet = LABELS,
    normalization: Normalization | None = None,
) -> Path:
    """A small refiner of segfw's own architecture with random weights, for images of ``data.blocks_case``."""
    how = ZSCORE.model_copy(update={"normalization": (normalization or ZSCORE.normalization[0],) * len(channels)})
    network = spec(architecture=REFINER, in_channels=len(channels) + len(CHANNELS), classes=2)
    chosen = configuration(how, network).model_copy(
        update={"name": REFINE, "is_refiner": True, "previous_stage": FULLRES}
    )
    folder.mkdir(parents=True)
    plan_of(chosen, labels=labels, channels=tuple(Channel(name=name) for name in channels)).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0")
    return folder
